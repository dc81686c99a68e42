"""SegFormer's all-MLP head, without its concatenated map.

Xie et al. 2021, "SegFormer", section 3.2, https://arxiv.org/abs/2105.15203
The published head projects each map to one width, enlarges all to the finest map's size, concatenates them (coarsest
first) and fuses them by a 1x1 convolution without bias; then batch norm, ReLU, dropout and a 1x1 classifier.

With A_i, b_i a projection and W_i the fuse convolution's columns for map i, the fused map is
sum_i resize(W_i A_i x_i) + sum_i W_i b_i (see `summing`). The small products W_i A_i are made anew from the parameters
wherever gradients are needed, so that training has the published parameters, function and gradients, up to rounding. In
evaluation the batch norm folds into them, and they are kept until a parameter changes.

The parameters are named as in Hugging Face's files below `decode_head.`; `segformer_weights` knows the other layouts.

Shapes: B batch, C_i channels of map i, E width, K classes, h x w the finest map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import ConfigError
from segwright.heads.blocks import check_segformer, classify
from segwright.heads.summing import (
    Kept,
    compute_dtype,
    fold_norm,
    full_precision,
    may_fold,
    project_and_sum,
    sum_relu,
    tensors_of,
)

DROPOUTS = {"channel": nn.Dropout2d, "element": nn.Dropout}


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 256
    """E: channels after projection (the paper: 256 for B0 and B1, 768 for B2 to B5)."""
    dropout: float = 0.1
    """Share of the fused map that training sets to zero; 0: none."""
    dropout_kind: str = "channel"
    """channel: whole channels, as the published code does; element: single values, as Hugging Face does."""

    def __post_init__(self) -> None:
        check_segformer(self.width, self.dropout)
        if self.dropout_kind not in DROPOUTS:
            raise ConfigError(f"head.dropout_kind is '{self.dropout_kind}'; there are: {', '.join(DROPOUTS)}.")


class Projection(nn.Module):
    """Holds `proj`, the linear layer of one map; it has its own module so that its name is the published one."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, width)


class SegformerHead(nn.Module):
    """maps [(B, C_i, h_i, w_i)], finest first -> logits (B, K, h, w), channels-last.

    `dropout_kind` is a key of `DROPOUTS`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        width: int = 256,
        dropout: float = 0.1,
        dropout_kind: str = "channel",
    ) -> None:
        super().__init__()
        self.width = width
        self.linear_c = nn.ModuleList(Projection(c, width) for c in channels)
        self.linear_fuse = nn.Conv2d(len(channels) * width, width, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(width)
        self.dropout = DROPOUTS[dropout_kind](dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self._kept = Kept()
        nn.init.kaiming_normal_(self.linear_fuse.weight, mode="fan_out", nonlinearity="relu")

    def train(self, mode: bool = True) -> "SegformerHead":
        self._kept.drop()
        return super().train(mode)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """What is classified, (B, E, h, w)."""
        if may_fold(self, maps):
            return sum_relu(maps, *self._folded(maps[0]))
        return self.dropout(self._fused(maps))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        if may_fold(self, maps):
            return sum_relu(maps, *self._folded(maps[0]), self.classifier)
        return classify(self._fused(maps), self.dropout, self.classifier)

    def _fused(self, maps: Sequence[Tensor]) -> Tensor:
        self._kept.drop()
        with full_precision(maps[0].device):
            weights, bias = self._products()
        return F.relu(self.batch_norm(project_and_sum(maps, weights, bias)), inplace=True)

    def _products(self) -> tuple[list[Tensor], Tensor]:
        """W_i A_i, each (E, C_i), finest first, and sum_i W_i b_i (E,)."""
        fuse = self.linear_fuse.weight.flatten(1)
        coarsest_first = list(self.linear_c)[::-1]
        parts = fuse.chunk(len(coarsest_first), dim=1)
        weights = [part @ level.get_parameter("proj.weight") for part, level in zip(parts, coarsest_first, strict=True)]
        return weights[::-1], fuse @ torch.cat([level.get_parameter("proj.bias") for level in coarsest_first])

    def _folded(self, like: Tensor) -> tuple[list[Tensor], Tensor]:
        """The products with the batch norm in them, in the type that a product with `like` is computed in."""
        dtype = compute_dtype(like)

        def make() -> tuple[list[Tensor], Tensor]:
            weights, bias = fold_norm(self.batch_norm, *self._products())
            return [w.to(dtype) for w in weights], bias.to(dtype)

        return self._kept.get(tensors_of(self.linear_c, self.linear_fuse, self.batch_norm), dtype, make)


def build(config: Config, channels: Sequence[int], num_classes: int) -> SegformerHead:
    """The head for an encoder whose maps have `channels`, finest first."""
    return SegformerHead(channels, num_classes, config.width, config.dropout, config.dropout_kind)
