"""What a training inside nnU-Net can be told: backbone, head, adapters, optimizer and schedule.

The sections, their keys and defaults are those of the nnU-Net integration whose users they are for; what is ours stands
after them. OmegaConf reads the dataclasses, so they are neither frozen nor nested by inheritance.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from segwright.config import load_yaml, resolve
from segwright.errors import ConfigError

DEFAULT_FILE = "segformer_default.yaml"
"""In this package."""


@dataclass
class SegFormerModelConfig:
    backbone: str = "dinov3"
    """dinov2, dinov3, retfound, retfound_dinov2, visionfm; mit_b0 ... mit_b5; or timm/NAME for any encoder."""
    backbone_size: str = "large"
    """small, base or large; of the ViTs that are named without a size."""
    decoder_hidden_size: int = 256
    """The head's width."""
    checkpoint_path: str = ""
    """File with the backbone's weights; empty: the published ones. retfound and visionfm cannot be fetched."""
    head: str = "segformer"
    """aspp, extremely_fast_segformer, fpn, lite, segformer, segformer_mmseg, ultrafast_segformer or upernet."""
    pyramid: bool = False
    """Of a plain ViT: maps of strides 4 to 32 instead of four at its patch's stride. Others have them by themselves."""
    detail: int = 0
    """Channels of a shallow path at full resolution beside the backbone, for vessels and other thin things; 0: none."""
    pretrained: bool = True
    """False: without checkpoint_path the backbone's weights are random."""
    fold_mean_std: bool = True
    """Normalise with the backbone's mean and std inside the network, where its weights are pretrained and nnU-Net hands
    over 3 channels in [0, 1] (channels called rgb_to_0_1). Others, z-scored images above all, are never touched."""


@dataclass
class SegFormerLoRAConfig:
    enabled: bool = True
    """Freeze the backbone and train adapters in it, and the head."""
    r: int = 8
    """Rank of the adapters."""
    lora_alpha: int = 16
    """The adapters' product is scaled by lora_alpha / r."""
    target_modules: list[str] = field(default_factory=lambda: ["qkv"])
    """Ends of the names of the layers that get an adapter."""
    lora_dropout: float = 0.05
    """Share of an adapter's inputs that is dropped in training."""


@dataclass
class SegFormerTrainConfig:
    initial_lr: float = 1e-3
    """AdamW's at the first epoch; it falls to zero as (1 - epoch / epochs)^0.9, nnU-Net's PolyLR."""
    weight_decay: float = 3e-5
    """AdamW's."""
    gradient_clip: float = 12.0
    """Longest gradient, as a norm over all weights; 0: any."""
    epochs: int = 1000
    """As nnU-Net counts them: pieces of the schedule, not passes over the images."""
    iterations_per_epoch: int = 250
    """Steps an epoch. It is validated on a fifth as many batches, as in nnU-Net."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.iterations_per_epoch < 1:
            raise ConfigError(
                f"train.epochs is {self.epochs} and train.iterations_per_epoch {self.iterations_per_epoch}; both are 1 "
                "or more. nnU-Net's are 1000 and 250."
            )
        if not self.initial_lr > 0 or not self.weight_decay >= 0 or not self.gradient_clip >= 0:
            raise ConfigError(
                f"train.initial_lr is {self.initial_lr}, weight_decay {self.weight_decay} and gradient_clip "
                f"{self.gradient_clip}; the first must be above 0, the others not below. 0.001, 3e-5 and 12 are usual."
            )


@dataclass
class SegFormernnUNetConfig:
    """All of it; stands in the plans and checkpoints as `to_plain` writes it."""

    model: SegFormerModelConfig = field(default_factory=SegFormerModelConfig)
    lora: SegFormerLoRAConfig = field(default_factory=SegFormerLoRAConfig)
    train: SegFormerTrainConfig = field(default_factory=SegFormerTrainConfig)


SCHEMA: dict[str, Any] = {
    "model": SegFormerModelConfig,
    "lora": SegFormerLoRAConfig,
    "train": SegFormerTrainConfig,
}


def load_config(path: str | Path | None = None) -> SegFormernnUNetConfig:
    """The configuration in a YAML file; without one, the packaged default, else the dataclasses' own values.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, or a value that cannot work.
    """
    if path is not None:
        return from_plain(load_yaml(path))
    packaged = files("segwright.nnunet") / DEFAULT_FILE
    return from_plain(load_yaml(str(packaged))) if packaged.is_file() else SegFormernnUNetConfig()


def from_plain(values: Mapping[str, Any]) -> SegFormernnUNetConfig:
    """A mapping with any of the sections model, lora and train. `ConfigError`: all its problems at once."""
    return SegFormernnUNetConfig(**resolve(values, SCHEMA, {}))


def to_plain(config: SegFormernnUNetConfig) -> dict[str, Any]:
    """Nested plain values, as plans and checkpoints hold them; `from_plain` gives an equal configuration back."""
    return asdict(config)


def same_network(one: SegFormernnUNetConfig, other: SegFormernnUNetConfig) -> list[str]:
    """The keys of `model` and `lora` in which the two differ, each with both values; empty: one network."""
    a, b = to_plain(one), to_plain(other)
    return [
        f"{section}.{key} is {value!r} there and {b[section][key]!r} here"
        for section in ("model", "lora")
        for key, value in a[section].items()
        if value != b[section][key] and key not in FIRST_WEIGHTS
    ]


FIRST_WEIGHTS = {"checkpoint_path", "pretrained"}
"""Keys that say what a training starts from; a trained network does not depend on them."""
