"""The lightest SegFormer head: the finest map is left out, and all work is done at the second finest.

After SegFormer (Xie et al. 2021, section 3.2, https://arxiv.org/abs/2105.15203); ours. The maps from the second finest
on (strides 8, 16, 32 of an encoder with strides 4 to 32) are projected to one width, enlarged to the second finest's
size and summed; batch norm, ReLU, 1x1 classifier. No fuse convolution, no dropout; no bias where a batch norm follows.
So the logits have stride 8, half the other heads' size a side; who uses them resizes them to the image, as always.

Shapes: B batch, C_i channels of map i, E width, K classes, h x w the second finest map.
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
    width: int = 64
    """E: channels after projection."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"head.width is {self.width}; a projection needs at least 1 channel. 64 is the default.")


class ExtremelyFastSegformerHead(nn.Module):
    """maps [(B, C_i, h_i, w_i)], finest first, two at least -> logits (B, K, h, w) of the second map's size."""

    level = 1
    """Which map's size the logits have."""

    def __init__(self, channels: Sequence[int], num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.used = tuple(range(self.level, len(channels)))
        self.project = nn.ModuleList(nn.Linear(c, width, bias=False) for c in channels[self.level :])
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self._kept = Kept()

    def train(self, mode: bool = True) -> "ExtremelyFastSegformerHead":
        self._kept.drop()
        return super().train(mode)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """What is classified, (B, E, h, w)."""
        maps = maps[self.level :]
        if may_fold(self, maps):
            return sum_relu(maps, *self._folded(maps[0]))
        self._kept.drop()
        summed = project_and_sum(maps, list(self.project.parameters()), None)
        return F.relu(self.norm(summed), inplace=True)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        taken = maps[self.level :]
        if may_fold(self, taken):
            return sum_relu(taken, *self._folded(taken[0]), self.classifier)
        return linear(self.features(maps), self.classifier.weight.flatten(1), self.classifier.bias)

    def _folded(self, like: Tensor) -> tuple[list[Tensor], Tensor]:
        """Projections and bias with the batch norm in them, in the type that a product with `like` is computed in."""
        dtype = compute_dtype(like)

        def make() -> tuple[list[Tensor], Tensor]:
            projections, bias = fold_norm(self.norm, list(self.project.parameters()))
            return [w.to(dtype) for w in projections], bias.to(dtype)

        return self._kept.get(tensors_of(self.project, self.norm), dtype, make)


def build(config: Config, channels: Sequence[int], num_classes: int) -> ExtremelyFastSegformerHead:
    """The head for an encoder whose maps have `channels`, finest first."""
    return ExtremelyFastSegformerHead(channels, num_classes, config.width)
