"""Plain ViTs (DINOv2, DINOv3, RETFound, VisionFM, ...) as nets of encoders: four blocks' maps, flat or as a pyramid.

Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929; which blocks: the last of each quarter, as DINOv2's
segmentation does (Oquab et al. 2023, https://arxiv.org/abs/2304.07193). The pyramid has the parts of Li et al. 2022,
"Exploring Plain Vision Transformer Backbones", section 3, https://arxiv.org/abs/2203.16527, but earlier blocks feed the
finer levels, as in BEiT's and MAE's segmentation.

An image that is no multiple of the patch is padded at the right and below; the maps are then cut, or where a cell would
lie half outside, resampled, so that every map covers the image exactly and a resize to the image's size is in place.

Shapes: B batch, H x W the image, P the patch's side, D channels of the ViT, h x w a map.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.encoders.vit_weights import load_vit
from segwright.errors import ConfigError

MODULES = ("timm.models.vision_transformer", "timm.models.eva")
"""Where timm defines the plain ViTs that take any image size."""
STRIDES = (4, 8, 16, 32)
"""Of the pyramid's levels."""


def is_plain(model: str) -> bool:
    """Whether timm's model of that name is a plain ViT."""
    return timm.models.model_entrypoint(model).__module__ in MODULES


def feature_blocks(depth: int) -> tuple[int, ...]:
    """The last block of each quarter: 12 blocks: 2, 5, 8, 11; 24: 5, 11, 17, 23. `ConfigError`: fewer than 4 blocks."""
    if depth < 4:
        raise ConfigError(f"the ViT has {depth} blocks; four of them are to give maps. Choose a deeper one.")
    return tuple(quarter * depth // 4 - 1 for quarter in (1, 2, 3, 4))


def get_vit_features(backbone: Any, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
    """Maps of timm's ViT after the blocks `indices`: (B, C, H, W) -> [(B, D, ceil(H / P), ceil(W / P))].

    Normed by its last norm, without class and register tokens; zeros pad the image at the right and below.
    """
    side_y, side_x = backbone.patch_embed.patch_size
    x = F.pad(x, (0, -x.shape[-1] % side_x, 0, -x.shape[-2] % side_y))
    return backbone.forward_intermediates(x, indices=list(indices), norm=True, intermediates_only=True)


@dataclass(frozen=True)
class Levels:
    """timm's way to ask a net about its maps."""

    of_channels: tuple[int, ...]
    of_strides: tuple[int, ...]

    def channels(self) -> list[int]:
        return list(self.of_channels)

    def reduction(self) -> list[int]:
        return list(self.of_strides)


class PlainVit(nn.Module):
    """image (B, C, H, W) -> [(B, C_i, ceil(H / s_i), ceil(W / s_i))], finest first: what an `Encoder` takes as its net.

    Args:
        vit: timm's model; it loses its classifier.
        pyramid: maps of strides 4, 8, 16, 32 with D/4, D/2, D and D channels (at a patch of 14 or 16), the finer ones
            by transposed convolutions, which no pretrained weights know. Else four maps (D) at stride P.
        min_stride: finer levels of the pyramid are not made.
    """

    def __init__(self, vit: Any, pyramid: bool, min_stride: int = 4) -> None:
        super().__init__()
        self.vit = vit
        self.patch_px: int = vit.patch_embed.patch_size[0]
        self.pretrained_cfg = dict(vit.pretrained_cfg)
        blocks = feature_blocks(len(vit.blocks))
        _drop_classifier(vit)
        levels = [level for level, stride in enumerate(STRIDES) if stride >= min_stride or not pyramid]
        self.blocks = [blocks[level] for level in levels]
        dim, exponent = vit.embed_dim, round(math.log2(self.patch_px))
        self.doublings = [exponent - int(math.log2(STRIDES[level])) for level in levels] if pyramid else [0] * 4
        self.pyramid = nn.ModuleList(_scaled(dim, n) for n in self.doublings) if pyramid else None
        self.strides = tuple(STRIDES[level] for level in levels) if pyramid else (self.patch_px,) * 4
        self.unused: set[int] = set()
        self.feature_info = Levels(tuple(dim >> max(0, n) for n in self.doublings), self.strides)

    def leave_out(self, unused: Iterable[int]) -> None:
        """The pyramid's levels that nobody takes are not made; None stands in their place."""
        if self.pyramid is not None:
            self.unused |= set(unused)
            for level in self.unused:
                self.pyramid[level] = nn.Identity()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping what it computed."""
        self.vit.set_grad_checkpointing(enable)

    def forward(self, image: Tensor) -> list[Any]:
        maps = get_vit_features(self.vit, image, self.blocks)
        return [None if level in self.unused else self._level(level, x, image) for level, x in enumerate(maps)]

    def _level(self, level: int, x: Tensor, image: Tensor) -> Tensor:
        """A block's map as the map of that level, at its stride."""
        if self.pyramid is not None:
            x = self.pyramid[level](x)
        return cover(x, self.patch_px / 2 ** self.doublings[level], image.shape[-2:], self.strides[level])


def plain_vit(
    model: str, *, pyramid: bool, min_stride: int, file: str | None = None, cfg: dict[str, Any], **options: Any
) -> PlainVit:
    """timm's model of that name as a net. `file`: its weights; `cfg` stands over what timm says of it (mean, std)."""
    vit: Any = timm.create_model(model, num_classes=0, dynamic_img_size=True, **options)
    if file is not None:
        load_vit(vit, file, model)
    net = PlainVit(vit, pyramid, min_stride)
    net.pretrained_cfg |= cfg
    return net


def cover(maps: Tensor, cell_px: float, size_px: Sequence[int], stride: int) -> Tensor:
    """Maps whose cells are `cell_px` wide, from the image's left upper corner on -> maps that cover the image exactly.

    (B, C, h, w) -> (B, C, ceil(H / stride), ceil(W / stride)), linear between the centres of cells.
    """
    height, width = ((pixels + stride - 1) // stride for pixels in size_px)  # ONNX rounds a negative quotient up
    known = all(type(pixels) is int for pixels in size_px)  # not while recorded for any size
    if known and cell_px == stride and all(pixels % stride == 0 for pixels in size_px):
        return maps[..., :height, :width]
    rows = _between(maps, size_px[0] / height / cell_px, height, maps.shape[-2])
    columns = _between(maps, size_px[1] / width / cell_px, width, maps.shape[-1])
    return rows @ maps @ columns.t()


def _between(like: Tensor, step: float, count: int, cells: int) -> Tensor:
    """Weights (count, cells) of cells in `count` points, `step` cells apart: linear; constant beyond the centres."""
    points = (torch.arange(count, device=like.device) + 0.5) * step - 0.5
    centres = torch.arange(cells, device=like.device)
    return (1 - (points.clamp(0, cells - 1)[:, None] - centres).abs()).clamp(min=0).to(like.dtype)


def _scaled(dim: int, doublings: int) -> nn.Module:
    """(B, D, h, w) -> 2^doublings times the size, the channels halved each time; pooled where it is negative."""
    if doublings <= 0:
        return nn.MaxPool2d(2**-doublings, ceil_mode=True) if doublings else nn.Identity()
    parts: list[nn.Module] = []
    for n in range(doublings):
        if n:
            parts += [LayerNorm2d(dim >> n), nn.GELU()]
        parts.append(nn.ConvTranspose2d(dim >> n, dim >> (n + 1), 2, stride=2))
    return nn.Sequential(*parts)


def _drop_classifier(vit: Any) -> None:
    """What classifies has no use here. Where the pooled token alone is normed, that norm serves all tokens."""
    if isinstance(vit.norm, nn.Identity) and not isinstance(vit.fc_norm, nn.Identity):
        vit.norm = vit.fc_norm
    vit.prune_intermediate_layers([len(vit.blocks) - 1], prune_norm=False, prune_head=True)
