"""mmsegmentation's SegFormer head (from its version 0.20), without its concatenated map.

Source of the function and of the names: github.com/open-mmlab/mmsegmentation, decode_heads/segformer_head.py, and
mmcv's ConvModule; written anew. After Xie et al. 2021, "SegFormer", section 3.2, https://arxiv.org/abs/2105.15203
Other than in the published head (`segformer`) each projection is a 1x1 convolution without bias with a batch norm and a
ReLU of its own, and the maps are concatenated from the finest to the coarsest. All are enlarged to the finest map's
size and fused by a 1x1 convolution without bias, batch norm and ReLU; then dropout of whole channels and a 1x1
classifier.

With A_i the fuse convolution's columns for map i, the fused map is sum_i resize(A_i relu(norm_i(W_i x_i))): a ReLU
keeps W_i and A_i apart, but A_i still works at its own map's size (see `summing`). In evaluation each batch norm folds
into the convolution before it; what comes of that is kept until a parameter changes.

The parameters are named as in mmsegmentation's files below `decode_head.`, but for the classifier, which is `conv_seg`
there; `segformer_weights` knows that.

Shapes: B batch, C_i channels of map i, E width, K classes, h x w the finest map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segwright.heads.blocks import BatchNormOfAny, check_segformer, classify
from segwright.heads.summing import (
    Kept,
    Layer,
    compute_dtype,
    fold_norm,
    linear,
    may_fold,
    project_and_sum,
    sum_relu,
    tensors_of,
)

CLASSIFIER_STD = 0.01
"""Of the classifier's first weights; its bias begins at 0 (mmsegmentation, decode_heads/decode_head.py)."""

Folded = tuple[list[Layer], list[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 256
    """E: channels after projection (mmsegmentation: 256 for every size of SegFormer, B2 to B5 too)."""
    dropout: float = 0.1
    """Share of the fused map's channels that training sets to zero; 0: none."""

    def __post_init__(self) -> None:
        check_segformer(self.width, self.dropout)


class ConvNorm(nn.Module):
    """Holds a 1x1 convolution without bias and its batch norm under their published names; a ReLU follows both."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 1, bias=False)
        self.bn = BatchNormOfAny(width)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, E, h, w), channels-last."""
        return F.relu(self.bn(linear(maps, self.conv.weight.flatten(1))), inplace=True)

    def folded(self, parts: int = 1) -> tuple[list[Tensor], Tensor]:
        """The convolution's columns, divided into `parts`, and a bias, with the batch norm in them."""
        return fold_norm(self.bn, self.conv.weight.flatten(1).chunk(parts, dim=1))


class SegformerMmsegHead(nn.Module):
    """maps [(B, C_i, h_i, w_i)], finest first -> logits (B, K, h, w), channels-last."""

    def __init__(self, channels: Sequence[int], num_classes: int, width: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.width = width
        self.convs = nn.ModuleList(ConvNorm(c, width) for c in channels)
        self.fusion_conv = ConvNorm(len(channels) * width, width)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self._kept = Kept()
        nn.init.normal_(self.classifier.weight, std=CLASSIFIER_STD)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def train(self, mode: bool = True) -> "SegformerMmsegHead":
        self._kept.drop()
        return super().train(mode)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """What is classified, (B, E, h, w)."""
        if may_fold(self, maps):
            projections, columns, bias = self._folded(maps[0])
            return sum_relu(maps, columns, bias, first=projections)
        return self.dropout(self._fused(maps))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        if may_fold(self, maps):
            projections, columns, bias = self._folded(maps[0])
            return sum_relu(maps, columns, bias, self.classifier, projections)
        return classify(self._fused(maps), self.dropout, self.classifier)

    def _fused(self, maps: Sequence[Tensor]) -> Tensor:
        self._kept.drop()
        projected = [project(x) for project, x in zip(self.convs, maps, strict=True)]
        columns = self.fusion_conv.conv.weight.flatten(1).chunk(len(projected), dim=1)
        return F.relu(self.fusion_conv.bn(project_and_sum(projected, columns, None)), inplace=True)

    def _folded(self, like: Tensor) -> Folded:
        """Projections with biases, the columns A_i and a bias, in the type that `like` is computed in."""
        dtype = compute_dtype(like)

        def make() -> Folded:
            columns, bias = self.fusion_conv.folded(len(self.convs))
            projections = [project.folded() for project in self.convs]  # type: ignore[operator]
            before = [(weight.to(dtype), shift.to(dtype)) for (weight,), shift in projections]
            return before, [w.to(dtype) for w in columns], bias.to(dtype)

        return self._kept.get(tensors_of(self.convs, self.fusion_conv), dtype, make)


def build(config: Config, channels: Sequence[int], num_classes: int) -> SegformerMmsegHead:
    """The head for an encoder whose maps have `channels`, finest first."""
    return SegformerMmsegHead(channels, num_classes, config.width, config.dropout)
