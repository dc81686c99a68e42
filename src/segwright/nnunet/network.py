"""The network that nnU-Net trains: any encoder with any head, built from the configuration and channel counts alone.

nnU-Net rebuilds a network at prediction from its plans, without the trainer. So the plans hold the configuration, and
what only the first training knows (whether weights were found, so whether mean and std are folded in) lies in buffers.

Shapes: B batch, C channels, K outputs, H x W the patch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segwright import lora
from segwright.config import Choice
from segwright.encoders import resolve_name
from segwright.encoders.families import find_family
from segwright.encoders.names import split_tag
from segwright.encoders.vit import is_plain
from segwright.errors import ConfigError, nearest
from segwright.heads import HEADS
from segwright.model import Config, EncoderConfig, Segmenter, build_model, enlarge
from segwright.nnunet.config import SegFormerModelConfig, SegFormernnUNetConfig
from segwright.nnunet.model import BACKBONES, SIZES

FROM_TIMM = "timm/"
OWN = ("mit_", "mit-", "segformer_")
"""Beginnings of the names of encoders that need no `timm/` before them."""
FROM_CHECKPOINT = "a checkpoint of nnU-Net"
"""Origin of weights that follow."""
IN_0_1 = "RGBTo01Normalization"
"""nnU-Net's way to normalise a channel called rgb_to_0_1: divided by 255."""


class SegFormerNetwork(nn.Module):
    """patch (B, C, H, W), normalised as nnU-Net's plans say -> logits (B, K, H, W).

    The patch may have any size: what the backbone needs is padded within it. A state dict with adapters is merged into
    a network without any, so that a prediction needs no peft.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, parts: Segmenter, mean: Sequence[float], std: Sequence[float], lora_alpha: float) -> None:
        super().__init__()
        self.backbone = parts.encoder
        self.decode_head = parts.head
        self.detail = parts.detail
        self.lora_alpha = lora_alpha
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, patch: Tensor) -> Tensor:
        patch = (patch - self.mean) / self.std
        maps = self.backbone(patch)
        logits = self.decode_head(maps) if self.detail is None else self.detail(patch, self.decode_head.features(maps))
        return enlarge(logits, patch.shape[-2:])

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """PyTorch's own, but that adapters in `state_dict` which the network lacks are added to the weights."""
        if not lora.adapters_of(self.backbone):
            state_dict = lora.merged(state_dict, self.lora_alpha)
        return super().load_state_dict(state_dict, strict, assign)

    @property
    def normalises(self) -> bool:
        """Whether mean and std of the backbone are folded in."""
        return bool((self.std != 1).any())


def build_network(
    config: SegFormernnUNetConfig, in_channels: int, outputs: int, schemes: Sequence[str] = (), fresh: bool = False
) -> SegFormerNetwork:
    """The network of a configuration; `schemes` are nnU-Net's normalisations, one a channel.

    `fresh`: for a training that starts, with pretrained weights; else a checkpoint follows, and nothing is looked up.
    Adapters are put in by `add_adapters`.

    Raises:
        ConfigError: a backbone, size or head that does not exist, or does not fit the others.
        WeightsError: `checkpoint_path` is missing or does not fit; or none is given where nothing can be fetched.
    """
    parts = _parts(config.model, in_channels, outputs, fresh)
    if not fresh:
        parts.encoder.origin = FROM_CHECKPOINT
    mean, std = [0.0] * in_channels, [1.0] * in_channels
    pretrained = parts.encoder.origin not in {"random", FROM_CHECKPOINT}
    if config.model.fold_mean_std and pretrained and list(schemes) == [IN_0_1] * 3:
        mean, std = list(parts.encoder.mean), list(parts.encoder.std)
    return SegFormerNetwork(parts, mean, std, config.lora.lora_alpha)


def add_adapters(network: SegFormerNetwork, config: SegFormernnUNetConfig) -> None:
    """Freezes the backbone and puts adapters into it, where the configuration enables them.

    Raises:
        ConfigError, MissingPackageError: as `segwright.lora.enable_lora`.
    """
    own = config.lora
    if own.enabled:
        lora.enable_lora(network, own.r, own.lora_alpha, own.lora_dropout, own.target_modules)


def encoder_name(model: SegFormerModelConfig) -> str:
    """Segwright's name of the backbone. `ConfigError`: there is none, or not of that size."""
    name = model.backbone
    if name in BACKBONES:
        if model.backbone_size not in SIZES:
            raise ConfigError(
                f"model.backbone_size is '{model.backbone_size}', and {name} is not of that size. There are: "
                f"{', '.join(SIZES)}."
            )
        return BACKBONES[name].format(size=model.backbone_size)
    if name.startswith(FROM_TIMM) or name.startswith(OWN):
        return resolve_name(name.removeprefix(FROM_TIMM))
    raise ConfigError(
        f"model.backbone: no backbone is called '{name}'.{nearest(name, BACKBONES)} Others are mit_b0 to mit_b5, and "
        f"{FROM_TIMM}NAME for any encoder that Segwright takes, e.g. {FROM_TIMM}convnext_tiny."
    )


def _parts(model: SegFormerModelConfig, in_channels: int, outputs: int, fresh: bool) -> Segmenter:
    """Encoder, head and detail path."""
    name = encoder_name(model)
    encoder = EncoderConfig(
        name=name,
        pretrained=model.checkpoint_path or model.pretrained,
        pyramid=model.pyramid or (False if _is_flat(name) else None),
        in_chans=in_channels,
    )
    if model.head not in HEADS:
        raise ConfigError(f"model.head: no head is called '{model.head}'.{nearest(model.head, HEADS)}")
    head = Choice(model.head, HEADS[model.head].Config(width=model.decoder_hidden_size))
    return build_model(Config(detail=model.detail), encoder, head, outputs, pretrained=fresh)


def _is_flat(name: str) -> bool:
    """Whether the encoder is a plain ViT, which has a choice of pyramid or none."""
    return find_family(name) is not None or is_plain(split_tag(name)[0])
