"""UPerNet: pyramid pooling on the coarsest map, then a feature pyramid whose levels are fused.

Xiao et al. 2018, "Unified Perceptual Parsing", section 3.1, https://arxiv.org/abs/1807.10221; widths and order of the
parts as in mmsegmentation's UPerHead.

Shapes: B batch, C_i channels of map i, E width, K classes, h x w the finest map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import ConfigError
from segwright.heads.blocks import conv_norm_relu, enlarge
from segwright.heads.summing import for_elsewhere

POOLED_SIZES = (1, 2, 3, 6)
"""Sides of the pooled maps (Zhao et al. 2017, "Pyramid Scene Parsing Network", section 3.2)."""
DROPOUT = 0.1
"""Share of channels dropped before the classifier, as in mmsegmentation."""


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 512
    """E: channels of every level."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"head.width is {self.width}; a level needs at least 1 channel. 512 is the default.")


class UperNetHead(nn.Module):
    """maps [(B, C_i, h_i, w_i)], finest first -> logits (B, K, h, w)."""

    def __init__(self, channels: Sequence[int], num_classes: int, width: int = 512) -> None:
        super().__init__()
        *finer, coarsest = channels
        self.width = width
        self.pooled = nn.ModuleList(conv_norm_relu(coarsest, width) for _ in POOLED_SIZES)
        self.context = conv_norm_relu(coarsest + len(POOLED_SIZES) * width, width, 3)
        self.lateral = nn.ModuleList(conv_norm_relu(c, width) for c in finer)
        self.smooth = nn.ModuleList(conv_norm_relu(width, width, 3) for _ in finer)
        self.fuse = conv_norm_relu(len(channels) * width, width, 3)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """What is classified, (B, E, h, w)."""
        *finer, coarsest = maps
        levels = [self._context(coarsest)]
        for x, lateral in zip(reversed(finer), reversed(self.lateral), strict=True):
            x = lateral(x)
            levels.insert(0, x + enlarge(levels[0], x))
        smoothed = [smooth(level) for smooth, level in zip(self.smooth, levels[:-1], strict=True)]
        smoothed.append(levels[-1])
        return self.dropout(self.fuse(torch.cat([enlarge(x, smoothed[0]) for x in smoothed], dim=1)))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.classifier(self.features(maps))

    def _context(self, coarsest: Tensor) -> Tensor:
        """The coarsest map beside its means over 1 x 1, 2 x 2, 3 x 3 and 6 x 6 parts: (B, C, h, w) -> (B, E, h, w)."""
        parts = [coarsest]
        for side, conv in zip(POOLED_SIZES, self.pooled, strict=True):
            parts.append(enlarge(conv(means(coarsest, side)), coarsest))
        return self.context(torch.cat(parts, dim=1))


def means(maps: Tensor, side: int) -> Tensor:
    """Means over `side` x `side` parts that cover the map: (B, C, h, w) -> (B, C, side, side).

    Recorded for another runtime, as two products, since ONNX has no adaptive pooling of maps of any size.
    """
    if not for_elsewhere():
        return F.adaptive_avg_pool2d(maps, side)
    rows, columns = (_shares(maps, side, cells) for cells in maps.shape[-2:])
    return rows @ maps @ columns.t()


def _shares(like: Tensor, side: int, cells: int) -> Tensor:
    """(side, cells): each cell's share in each part's mean; part i goes from floor(i n / s) to ceil((i + 1) n / s)."""
    part, cell = torch.arange(side, device=like.device)[:, None], torch.arange(cells, device=like.device)
    start, stop = part * cells // side, ((part + 1) * cells + side - 1) // side
    return ((cell >= start) & (cell < stop)).to(like.dtype) / (stop - start)


def build(config: Config, channels: Sequence[int], num_classes: int) -> UperNetHead:
    """The head for an encoder whose maps have `channels`, finest first."""
    return UperNetHead(channels, num_classes, config.width)
