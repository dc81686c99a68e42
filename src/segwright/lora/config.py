"""The section `lora` of a configuration."""

from dataclasses import dataclass

from segwright.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    enabled: bool = False
    """Freeze the encoder and train low-rank adapters in it; the head trains as always."""
    r: int = 8
    """Rank of the adapters."""
    lora_alpha: float = 16.0
    """The adapters' product is scaled by lora_alpha / r."""
    lora_dropout: float = 0.05
    """Share of an adapter's inputs that is dropped in training."""
    target_modules: tuple[str, ...] = ("qkv",)
    """Ends of the names of the layers that get an adapter: qkv, attn.proj, mlp.fc1; one that fits none is an error."""

    def __post_init__(self) -> None:
        check_values(self.r, self.lora_alpha, self.lora_dropout)


def check_values(r: int, alpha: float, dropout: float) -> None:
    """Raises `ConfigError` for values that no adapter can have."""
    if r < 1 or not alpha > 0 or not 0 <= dropout < 1:
        raise ConfigError(
            f"lora: r is {r}, lora_alpha {alpha} and lora_dropout {dropout}; r is 1 or more, dropout from 0 to below "
            "1, and alpha, the adapters' weight beside the layers', more than 0. 8, 16 and 0.05 are usual."
        )
