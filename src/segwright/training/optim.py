"""The optimizer: AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101) with two named groups."""

from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW

from segwright.errors import ConfigError
from segwright.model import is_encoder
from segwright.training.freeze import may_train


@dataclass(frozen=True, kw_only=True)
class Config:
    lr: float = 1e-3
    """Learning rate; the head's unless `lr_head` is given."""
    lr_head: float | None = None
    """The head's; none: `lr`."""
    lr_encoder: float | None = None
    """The encoder's; none: a tenth of `lr`, since its weights are usually pretrained."""
    weight_decay: float = 0.01
    """On all parameters."""

    def __post_init__(self) -> None:
        for name in ("lr", "lr_head", "lr_encoder"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 10:
                raise ConfigError(f"optim.{name} is {value}; a learning rate is positive and small, e.g. 0.001.")
        if not 0 <= self.weight_decay < 1:
            raise ConfigError(f"optim.weight_decay is {self.weight_decay}; give a number from 0 to 1, e.g. 0.01.")

    def rates(self) -> tuple[float, float]:
        """(head, encoder)."""
        head = self.lr if self.lr_head is None else self.lr_head
        encoder = self.lr * 0.1 if self.lr_encoder is None else self.lr_encoder
        return head, encoder


def build_optimizer(model: nn.Module, config: Config) -> AdamW:
    """AdamW over the groups `head` and `encoder`, in this order. What may thaw later is in it; of an encoder with LoRA
    adapters, the adapters alone."""
    head_rate, encoder_rate = config.rates()
    groups = [
        {"name": "head", "params": [p for n, p in model.named_parameters() if not is_encoder(n)], "lr": head_rate},
        {"name": "encoder", "params": may_train(model), "lr": encoder_rate},
    ]
    return AdamW(groups, weight_decay=config.weight_decay, fused=True)


def rates_now(optimizer: AdamW) -> dict[str, float]:
    """Group name -> its learning rate."""
    return {group["name"]: float(group["lr"]) for group in optimizer.param_groups}
