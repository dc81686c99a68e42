"""DeepLabV3+ with atrous spatial pyramid pooling of depthwise-separable convolutions.

Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution", sections 3.1 and 3.2,
https://arxiv.org/abs/1802.02611; widths and order of the parts as in mmsegmentation's DepthwiseSeparableASPPHead.
The coarsest map goes through five branches side by side (its mean, a 1x1 and three dilated 3x3 convolutions), which are
fused by a 3x3; the result is enlarged, joined with the reduced finest map, and refined by two separable 3x3.

Shapes: B batch, C_i channels of map i, E width, K classes, h x w the finest map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import ConfigError
from segwright.heads.blocks import BatchNormOfAny, conv_norm_relu, enlarge

FINEST_WIDTH = 48
"""Channels that the finest map is reduced to (section 3.2 of the paper, Table 1)."""
DROPOUT = 0.1
"""Share of channels dropped before the classifier, as in mmsegmentation."""
RATES = (6, 12, 18)
"""Dilations at output stride 16 and 32."""
RATES_AT_STRIDE_8 = (12, 24, 36)


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 512
    """E: channels of every branch and of what follows."""
    rates: tuple[int, ...] = ()
    """Three dilations; none: 12, 24, 36 where the coarsest map is half the finest (stride 8), else 6, 12, 18."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"head.width is {self.width}; a branch needs at least 1 channel. 512 is the default.")
        if self.rates and (len(self.rates) != 3 or min(self.rates) < 1):
            raise ConfigError(
                f"head.rates is {list(self.rates)}; there are three dilated branches, and a dilation is 1 or more. "
                "Give three numbers, e.g. [6, 12, 18], or none."
            )


class Separable(nn.Module):
    """A depthwise 3x3 and a 1x1 convolution, each with batch norm and ReLU: (B, C, h, w) -> (B, E, h, w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.norm = BatchNormOfAny(inputs)
        self.point = conv_norm_relu(inputs, outputs)

    def forward(self, x: Tensor, rate: int = 1) -> Tensor:
        x = F.conv2d(x, self.depthwise.weight, padding=rate, dilation=rate, groups=x.shape[1])
        return self.point(F.relu(self.norm(x), inplace=True))


class AsppHead(nn.Module):
    """maps [(B, C_i, h_i, w_i)], finest first -> logits (B, K, h, w). It uses the first and the last map.

    `rates` are three dilations; empty: by the ratio of the maps' sizes (see `Config`).
    """

    def __init__(self, channels: Sequence[int], num_classes: int, width: int = 512, rates: Sequence[int] = ()) -> None:
        super().__init__()
        self.width = width
        self.used = (0, len(channels) - 1)
        self.rates = tuple(rates)
        self.pooled = conv_norm_relu(channels[-1], width)
        self.point = conv_norm_relu(channels[-1], width)
        self.dilated = nn.ModuleList(Separable(channels[-1], width) for _ in RATES)
        self.fuse = conv_norm_relu(5 * width, width, 3)
        self.finest = conv_norm_relu(channels[0], FINEST_WIDTH)
        self.refine = nn.Sequential(Separable(width + FINEST_WIDTH, width), Separable(width, width))
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """What is classified, (B, E, h, w)."""
        finest, coarsest = maps[0], maps[-1]
        branches = [enlarge(self.pooled(coarsest.mean((2, 3), keepdim=True)), coarsest), self.point(coarsest)]
        rates = self.rates or _rates(finest, coarsest)
        branches += [branch(coarsest, rate) for branch, rate in zip(self.dilated, rates, strict=True)]
        context = enlarge(self.fuse(torch.cat(branches, dim=1)), finest)
        return self.dropout(self.refine(torch.cat([context, self.finest(finest)], dim=1)))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.classifier(self.features(maps))


def _rates(finest: Tensor, coarsest: Tensor) -> tuple[int, ...]:
    """Dilations by output stride, the finest map being at stride 4; maps of one size are a plain ViT's, at 14 or 16."""
    is_half = finest.shape[-1] != coarsest.shape[-1] and finest.shape[-1] < 3 * coarsest.shape[-1]
    return RATES_AT_STRIDE_8 if is_half else RATES


def build(config: Config, channels: Sequence[int], num_classes: int) -> AsppHead:
    """The head for an encoder whose maps have `channels`, finest first."""
    return AsppHead(channels, num_classes, config.width, config.rates)
