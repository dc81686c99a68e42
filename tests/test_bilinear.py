"""Resizing by bands, and what is made of it, equal PyTorch's own resize of the whole map."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segwright.bilinear import bands
from segwright.inference import argmax
from segwright.inference.argmax import argmax_resized
from segwright.model import FEW, enlarge

SIZES = [((16, 16), (64, 64)), ((13, 9), (50, 37)), ((8, 8), (8, 8)), ((11, 6), (5, 21)), ((1, 1), (9, 7))]


def whole(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("step", [1, 3, 100])
@pytest.mark.parametrize(("low", "high"), SIZES, ids=str)
def test_bands_put_together_are_the_whole(low, high, step):
    maps = normal(2, *low).double()
    made = bands(low[0], high[0], step, maps.dtype, maps.device)
    assert [row for band in made for row in range(high[0])[band.rows]] == list(range(high[0]))
    joined = torch.cat([band.enlarge(maps[:, band.source], high[1]) for band in made])
    torch.testing.assert_close(joined.transpose(0, 1), whole(maps[None], high)[0])


def test_a_band_takes_the_source_rows_it_lies_between_and_no_more():
    """Four rows become 16: rows 4 to 7 lie at 0.625, 0.875, 1.125 and 1.375 of them, so between rows 0 and 2."""
    band = bands(4, 16, 4, torch.float32, torch.device("cpu"))[1]
    assert (band.rows, band.source) == (slice(4, 8), slice(0, 3))
    expected = [[0.375, 0.625, 0], [0.125, 0.875, 0], [0, 0.875, 0.125], [0, 0.625, 0.375]]
    assert band.mix.tolist() == expected


@pytest.mark.parametrize("pixels", [argmax.ON_CPU, 40], ids=["in one band", "in many"])
@pytest.mark.parametrize(("low", "high"), SIZES, ids=str)
def test_argmax_class_by_class_is_argmax_over_all(low, high, pixels, monkeypatch):
    """Ties included: a seventh of the logits are equal to another class's."""
    monkeypatch.setattr(argmax, "ON_CPU", pixels)
    logits = 3 * normal(7, *low)
    logits[4] = logits[1]
    ids = argmax_resized(logits, high)
    assert ids.dtype == torch.uint8
    assert torch.equal(ids.long(), whole(logits[None], high)[0].argmax(0))


def test_argmax_is_exact_under_autocast_and_takes_any_number():
    """Infinite logits are the largest there are, and NaN is 0: only the places beside them change."""
    logits = normal(5, 8, 8)
    plain = argmax_resized(logits, (40, 24))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(argmax_resized(logits, (40, 24)), plain)
    ids = argmax_resized(logits.double(), (40, 24))
    assert torch.equal(ids, plain)
    coarse = logits.bfloat16()
    away = argmax_resized(coarse, (40, 24)) != argmax_resized(coarse.float(), (40, 24))
    assert away.float().mean() < 0.01
    logits[2, 3, 3] = torch.inf
    logits[1, 3, 3] = torch.nan
    changed = argmax_resized(logits, (40, 24)) != plain
    rows, columns = (index.tolist() for index in changed.nonzero(as_tuple=True))
    assert int(argmax_resized(logits, (40, 24))[17, 10]) == 2  # the centre of row 3 and column 3
    assert min(rows) >= 12
    assert max(rows) <= 22
    assert min(columns) >= 7
    assert max(columns) <= 13


@pytest.mark.parametrize("classes", [1, 2, FEW, FEW + 1, 19, 24])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
def test_enlarging_without_gradients_is_pytorchs_in_full_precision(classes, layout):
    logits = normal(2, classes, 6, 5).contiguous(memory_format=layout)
    with torch.no_grad():
        torch.testing.assert_close(enlarge(logits, (23, 17)), whole(logits, (23, 17)))
        rounded = enlarge(logits.bfloat16(), (23, 17))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, whole(logits.bfloat16().float(), (23, 17)))
