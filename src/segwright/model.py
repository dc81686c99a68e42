"""A segmentation model: an encoder, a head, and where asked a shallow path at full resolution.

Shapes: B batch, K classes, H x W the input.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.encoders import Encoder, create_encoder
from segwright.errors import ConfigError
from segwright.heads import HEADS
from segwright.heads.detail import DetailPath
from segwright.heads.lite import LiteHead

log = logging.getLogger("segwright")

RARE = 0.02
"""Share of positive pixels that a fresh binary model expects: cracks, scratches and vessels cover 1 to 10 %."""

MODELS: dict[str, dict[str, Any]] = {
    "segformer_lite": {"head": {"name": "lite"}},
}
"""Whole models by name: what they fix of the other sections."""


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str | None = None
    """A whole model (segformer_lite), or none: then encoder.name and head.name make it."""
    detail: int = 0
    """Channels of a shallow path at full resolution that refines the head's map for thin structures; 0: none."""

    def __post_init__(self) -> None:
        if self.detail < 0:
            raise ConfigError(f"model.detail is {self.detail}; give 0 for no path, or its channels, e.g. 16.")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    name: str = "segformer_b0"
    """Any timm model with features, or an alias (segformer_b0, mobilenet_v3_small)."""
    pretrained: Any = True
    """1 or true: timm's default weights; 0 or false: random; else one of timm's tags, or a file."""
    drop_path: float | None = None
    """Highest rate of stochastic depth; none: the encoder's own default."""


class Segmenter(nn.Module):
    """image (B, 3, H, W), normalised -> logits (B, K, H, W)."""

    encoder: Encoder
    head: Any
    """Maps -> logits; has `features`, `width` and `classifier` (heads/lite.py is the pattern)."""

    def __init__(self, encoder: Encoder, head: nn.Module, detail: DetailPath | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.detail = detail

    def forward(self, image: Tensor) -> Tensor:
        maps = self.encoder(image)
        logits = self.head(maps) if self.detail is None else self.detail(image, self.head.features(maps))
        logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return logits


class SegFormerLite(Segmenter):
    """An encoder with the small top-down head `heads.lite`.

    Args:
        encoder_name: any timm encoder or alias; "segformer_b0", "mobilenet_v3_small".
        pretrained: load timm's weights; where they cannot be reached, a warning and random ones. Also a tag or a path.
        in_ch: channels of the image.
        num_classes: K; 1 means binary with a sigmoid outside.
        base: width of the head.

    Raises:
        ConfigError: no such encoder.
        WeightsError: a path that is missing or does not fit.
    """

    def __init__(
        self,
        encoder_name: str = "segformer_b0",
        pretrained: bool | int | str = True,
        in_ch: int = 3,
        num_classes: int = 1,
        base: int = 32,
    ) -> None:
        encoder = create_encoder(encoder_name, pretrained, in_channels=in_ch)
        super().__init__(encoder, LiteHead(encoder.channels, num_classes, base))
        if num_classes == 1:
            expect_rare(self)
        print(f"SegFormerLite({encoder_name}): {count_parameters(self):,} parameters")


def build_model(
    model: Config, encoder: EncoderConfig, head: Any, num_classes: int, pretrained: bool = True
) -> Segmenter:
    """The model of three config sections; `pretrained=False` where a checkpoint follows, whatever the section says."""
    wanted = encoder.pretrained if pretrained else False
    body = create_encoder(encoder.name, wanted, drop_path_rate=encoder.drop_path)
    top = HEADS.build(head.name, head.config, body.channels, num_classes)
    detail = DetailPath(top.width, num_classes, model.detail) if model.detail else None
    if detail is not None:
        del top.classifier  # the path has its own, at full resolution
    segmenter = Segmenter(body, top, detail)
    if num_classes == 1:
        expect_rare(segmenter)
    return segmenter


def expect_rare(model: Segmenter) -> None:
    """Sets the last bias so that a fresh binary model expects `RARE` positives, as Lin et al. 2017
    (https://arxiv.org/abs/1708.02002, section 4.1) do. From 0 it first has to learn that most pixels are background."""
    last: nn.Conv2d = (model.head if model.detail is None else model.detail).classifier
    assert last.bias is not None
    nn.init.constant_(last.bias, math.log(RARE / (1 - RARE)))


def is_encoder(name: str) -> bool:
    """Whether a parameter of a `Segmenter`, wrapped (DDP, torch.compile) or not, belongs to its encoder."""
    own = [part for part in name.split(".") if part not in {"module", "_orig_mod"}]
    return own[0] == "encoder"


def count_parameters(module: nn.Module, trainable_only: bool = False) -> int:
    """The number of single weights."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)


def probabilities(logits: Tensor) -> Tensor:
    """(B, K, H, W) logits -> probabilities in fp32: a sigmoid for one class, else a softmax."""
    logits = logits.float()
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)


def run_name(model: Config, encoder: EncoderConfig, head_name: str) -> str:
    """The run's folder name: the whole model's, else encoder_head."""
    return model.name or f"{encoder.name}_{head_name}"


def preset(values: dict[str, Any], known: Sequence[str] = tuple(MODELS)) -> dict[str, Any]:
    """The sections that `model.name` fixes. Raises `ConfigError` for another head than the whole model has."""
    name = (values.get("model") or {}).get("name")
    fixed = MODELS.get(name, {}) if name else {}
    head, given = fixed.get("head", {}).get("name"), (values.get("head") or {}).get("name")
    if head and given and head != given:
        raise ConfigError(
            f"model.name is {name}, whose head is {head}, but head.name is {given}. Leave out one of them."
        )
    return fixed
