"""A lighter SegFormer head: the projected maps are summed, not fused.

After SegFormer (Xie et al. 2021, section 3.2, https://arxiv.org/abs/2105.15203); ours. Each map is projected to one
width; the projections are enlarged to the finest map's size and summed, then batch norm and ReLU, one depthwise 3x3
convolution, again batch norm and ReLU, and a 1x1 classifier. No fuse convolution, no dropout; no bias where a batch
norm follows.

Shapes: B batch, C_i channels of map i, E width, K classes, h x w the finest map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import ConfigError
from segwright.heads.summing import (
    Kept,
    compute_dtype,
    fold_norm,
    linear,
    may_fold,
    project_and_sum,
    sum_relu,
    tensors_of,
)


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 128
    """E: channels after projection."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"head.width is {self.width}; a projection needs at least 1 channel. 128 is the default.")


class UltrafastSegformerHead(nn.Module):
    """maps [(B, C_i, h_i, w_i)], finest first -> logits (B, K, h, w), channels-last."""

    def __init__(self, channels: Sequence[int], num_classes: int, width: int = 128) -> None:
        super().__init__()
        self.width = width
        self.project = nn.ModuleList(nn.Linear(c, width, bias=False) for c in channels)
        self.norm = nn.BatchNorm2d(width)
        self.smooth = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.smooth_norm = nn.BatchNorm2d(width)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self._kept = Kept()

    def train(self, mode: bool = True) -> "UltrafastSegformerHead":
        self._kept.drop()
        return super().train(mode)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """What is classified, (B, E, h, w)."""
        if may_fold(self, maps):
            projections, bias, smooth, smooth_bias = self._folded(maps[0])
            summed = sum_relu(maps, projections, bias)
            return F.conv2d(summed, smooth, smooth_bias, padding=1, groups=self.width).relu_()
        self._kept.drop()
        summed = project_and_sum(maps, list(self.project.parameters()), None)
        summed = F.relu(self.norm(summed), inplace=True)
        return F.relu(self.smooth_norm(self.smooth(summed)), inplace=True)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return linear(self.features(maps), self.classifier.weight.flatten(1), self.classifier.bias)

    def _folded(self, like: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Projections and bias, depthwise kernel and bias, with the batch norms in them, in `like`'s compute type."""
        dtype = compute_dtype(like)

        def make() -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
            projections, bias = fold_norm(self.norm, list(self.project.parameters()))
            (smooth,), smooth_bias = fold_norm(self.smooth_norm, [self.smooth.weight])
            return [w.to(dtype) for w in projections], bias.to(dtype), smooth.to(dtype), smooth_bias.to(dtype)

        return self._kept.get(tensors_of(self.project, self.norm, self.smooth, self.smooth_norm), dtype, make)


def build(config: Config, channels: Sequence[int], num_classes: int) -> UltrafastSegformerHead:
    """The head for an encoder whose maps have `channels`, finest first."""
    return UltrafastSegformerHead(channels, num_classes, config.width)
