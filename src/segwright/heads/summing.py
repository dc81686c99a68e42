"""The sum of several maps, each projected to one width and brought to the finest map's size: how SegFormer heads fuse.

A 1x1 convolution works on channels alone and a bilinear resize on places alone, and a resize's weights sum to one; so
both commute, biases included, and a 1x1 convolution of concatenated enlarged maps is the sum of enlarged products, each
computed at its own map's size. Enlarging goes in one step from each size to the finest: bilinear twice by 2 is not
bilinear by 4.

Without gradients on a CPU the sum is made in strips of a few rows that stay in the cache from the projection to the
classifier, so that a map of the full width never lies in memory. A strip takes from a coarser map only the few rows
that it lies between: a product with a narrow band of the resize's matrix.

Shapes: B batch, C_i channels of map i, E width, K classes, h x w the finest map's size.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.bilinear import Band, bands

STRIP_BYTES = 3 * 2**20
"""A thread's share of a strip, at most. Measured at E 256 and 768: 4 to 16 rows of 128 places are equally fast."""
MOST_ROWS = 64
"""A strip's largest height: the taller, the more zeros has its band of the resize's matrix."""

Made = TypeVar("Made")
Layer = tuple[Tensor, Tensor]
"""Weight (E, C) and bias (E,) of a 1x1 convolution."""


def linear(maps: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution: (B, C, h, w), weight (E, C) -> (B, E, h, w), channels-last."""
    if for_elsewhere():
        return F.conv2d(maps, weight[:, :, None, None], bias)
    return F.linear(maps.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def project_and_sum(maps: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor | None) -> Tensor:
    """sum_i resize(weights_i maps_i) + bias: [(B, C_i, h_i, w_i)], finest first -> (B, E, h, w), channels-last.

    Differentiable. It adds in place to the first product (nobody else sees it), so that one map of E channels is kept.
    That product has a row a place: added to in place, a view of it would be copied whole in the backward pass, twice a
    map (4.6 % of a training step of segformer_b0).
    """
    if for_elsewhere():
        total, *others = (linear(x, w, b) for x, w, b in zip(maps, weights, [bias, *[None] * len(maps)], strict=False))
        return sum((_resize(x, maps[0].shape[-2:]) for x in others), start=total)
    batch, _, height, width = maps[0].shape
    total = F.linear(_places(maps[0]), weights[0], bias)
    for x, weight in zip(maps[1:], weights[1:], strict=True):
        total.add_(_places(_resize(linear(x, weight), (height, width))))
    return total.view(batch, height, width, -1).permute(0, 3, 1, 2)


def _places(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B h w, C); without a copy if it is channels-last."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def sum_relu(
    maps: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: Tensor,
    classifier: nn.Conv2d | None = None,
    first: Sequence[Layer] | None = None,
) -> Tensor:
    """relu(project_and_sum(...)), then the 1x1 `classifier` if there is one. For evaluation: no gradients.

    [(B, C_i, h_i, w_i)], finest first -> (B, E, h, w), or (B, K, h, w), in the weights' type. `first`: a layer for each
    map, with a ReLU behind it, whose outputs are what is projected.
    """
    dtype = bias.dtype
    maps = [x.to(dtype) for x in maps]
    last = None if classifier is None else (classifier.weight.flatten(1).to(dtype), _cast(classifier.bias, dtype))
    if maps[0].device.type == "cpu" and not in_graph():
        return _by_strips(maps, weights, bias, last, first or [None] * len(maps))
    if first is not None:
        maps = [linear(x, *layer).relu_() for x, layer in zip(maps, first, strict=True)]
    total = project_and_sum(maps, weights, bias).relu_()
    return total if last is None else linear(total, *last)


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor:
    assert tensor is not None, "a classifier has a bias"
    return tensor.to(dtype)


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    known = all(type(side) is int for side in (*maps.shape[-2:], *size))  # not while recorded for any size
    if known and tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def _by_strips(
    maps: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: Tensor,
    last: Layer | None,
    first: Sequence[Layer | None],
) -> Tensor:
    batch, _, height, width = maps[0].shape
    rows = _rows_per_strip(width * bias.numel(), bias.element_size())
    levels = [(x.permute(0, 2, 3, 1), layer, w) for x, layer, w in zip(maps, first, weights, strict=True)]
    # what has the finest size, the first map at least, is projected strip by strip; the coarser maps are, here
    fine = [(x, layer, w.t()) for x, layer, w in levels if x.shape[1:3] == (height, width)]
    coarse = [_lines(_through(x, layer), w, width) for x, layer, w in levels if x.shape[1:3] != (height, width)]
    mixes = [bands(z.shape[1], height, rows, bias.dtype, bias.device) for z in coarse]
    out = bias.new_empty(batch, height, width, bias.numel() if last is None else last[1].numel())
    for image in range(batch):
        for number, top in enumerate(range(0, height, rows)):
            into = out[image, top : top + rows].flatten(0, 1)
            products = [(_through(x[image, top : top + rows].flatten(0, 1), layer), w) for x, layer, w in fine]
            strip = _strip(products, bias, into if last is None else None)
            lines = strip.view(-1, width * bias.numel())
            for mix, rows_between in _mixes([(z[image], mix[number]) for z, mix in zip(coarse, mixes, strict=True)]):
                lines.addmm_(mix, rows_between)
            strip.relu_()
            if last is not None:
                torch.addmm(last[1], strip, last[0].t(), out=into)
    return out.permute(0, 3, 1, 2)


def _mixes(levels: Sequence[tuple[Tensor, Band]]) -> list[tuple[Tensor, Tensor]]:
    """For each coarser map what one strip takes from it: weights and rows, whose product is to be added to the strip.

    In half precision all maps are one product, so that the strip is rounded once instead of once a map.
    """
    pairs = [(band.mix, z[band.source]) for z, band in levels]
    if len(pairs) > 1 and pairs[0][0].element_size() < 4:
        return [(torch.cat([mix for mix, _ in pairs], dim=1), torch.cat([rows for _, rows in pairs]))]
    return pairs


def _through(places: Tensor, layer: Layer | None) -> Tensor:
    """(..., C) -> (..., E), the layer and a ReLU; the same, where there is none."""
    return places if layer is None else F.linear(places, *layer).relu_()


def _lines(places: Tensor, weight: Tensor, width: int) -> Tensor:
    """A coarser map projected and as wide as the finest, its height as it is: (B, h, w, C) -> (B, h, width * E)."""
    projected = F.linear(places, weight).permute(0, 3, 1, 2)
    return _resize(projected, (places.shape[1], width)).permute(0, 2, 3, 1).flatten(2)


def _strip(products: Sequence[tuple[Tensor, Tensor]], bias: Tensor, out: Tensor | None) -> Tensor:
    """sum_i x_i w_i + bias over the places of some rows: x (places, C), w (C, E) -> (places, E)."""
    (x, w), *others = products
    strip = torch.addmm(bias, x, w, out=out)
    for x, w in others:
        strip.addmm_(x, w)
    return strip


def _rows_per_strip(row: int, element_bytes: int) -> int:
    """Rows of `row` values each: 8 in fp32 and 16 in half precision for each thread, fewer where they do not fit."""
    rows = min(32 // element_bytes, STRIP_BYTES // (row * element_bytes))
    return max(1, min(MOST_ROWS, rows * torch.get_num_threads()))


def in_graph() -> bool:
    """Whether the code is being recorded (torch.compile, torch.export, tracing) instead of run."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def for_elsewhere() -> bool:
    """Whether the code is being recorded for another runtime, whose maps are not channels-last: no permutations."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def may_fold(head: nn.Module, maps: Sequence[Tensor]) -> bool:
    """Whether batch norm may be folded into weights: the whole head is in evaluation and nobody asks for gradients."""
    if any(module.training for module in head.modules()):
        return False
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (*maps, *head.parameters()))
    return not wanted or torch.compiler.is_exporting()


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast off, where it is on: products of weights are small, and rounding them would be rounding twice."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The type that a matrix product with this tensor is computed in: autocast's, where it is on."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def fold_norm(
    norm: nn.BatchNorm2d, weights: Sequence[Tensor], bias: Tensor | None = None
) -> tuple[list[Tensor], Tensor]:
    """A convolution, weights (E, ...) and bias (E,), with the batch norm behind it in it, as in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.running_mean if bias is None else norm.running_mean - bias
    return [scale.view(-1, *(1,) * (w.ndim - 1)) * w for w in weights], norm.bias - shift * scale


def tensors_of(*modules: nn.Module) -> list[Tensor]:
    """Their parameters and buffers."""
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


class Kept:
    """A value made from tensors, kept until one of them is changed, replaced, moved or converted.

    Changes are seen by the tensors' version counters, as autograd sees them. A copied or pickled head begins without a
    kept value.
    """

    def __init__(self) -> None:
        self._kept: tuple[object, list[tuple[Tensor, int]], object] | None = None

    def drop(self) -> None:
        """Forget the value. Heads call it in `train()` and whenever gradients are taken: a fused optimizer's step and
        what is written through `.data` do not move the counters.
        """
        if not in_graph():
            self._kept = None

    def __getstate__(self) -> dict[str, None]:
        return {"_kept": None}

    def get(self, sources: Sequence[Tensor], key: object, make: Callable[[], Made]) -> Made:
        """`make()`, or what it gave the last time for the same `key` and unchanged `sources`."""
        if in_graph():
            return make()
        kept = self._kept
        if kept is not None and kept[0] == key and _unchanged(kept[1], sources):
            return kept[2]  # type: ignore[return-value]
        with torch.inference_mode(False), torch.no_grad(), full_precision(sources[0].device):
            made = make()
            if not any(t.is_inference() for t in sources):  # these have no version counter
                # the aliases hold the memory, so that no other tensor can take its address
                self._kept = (key, [(t.detach(), t._version) for t in sources], made)
        return made


def _unchanged(kept: Sequence[tuple[Tensor, int]], sources: Sequence[Tensor]) -> bool:
    return len(kept) == len(sources) and all(
        not t.is_inference() and t._version == version and t.dtype == alias.dtype and alias.is_set_to(t)
        for (alias, version), t in zip(kept, sources, strict=True)
    )
