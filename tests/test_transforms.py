"""Image and mask move together, and a sample depends on (seed, epoch, index) alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segwright.errors import ConfigError
from segwright.transforms import Augment, Config, normalise, resize, resize_mask

GEOMETRY = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def scene(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A mask of blobs drawn into the image: red is 255 exactly where the mask is 1."""
    rng = np.random.default_rng(height * 1000 + width)
    coarse = torch.from_numpy((rng.random((1, 1, 4, 5)) < 0.5).astype(np.float32))
    mask = F.interpolate(coarse, size=(height, width), mode="nearest-exact")[0, 0].to(torch.uint8)
    image = torch.stack([mask * 255, torch.zeros_like(mask), torch.zeros_like(mask)])
    return image, mask


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(33, 90),
    width=st.integers(33, 90),
    crop=st.sampled_from([None, 32, 47, 64]),
    scale=st.sampled_from([(1.0, 1.0), (0.5, 2.0), (0.3, 0.6), (1.5, 2.5)]),
    foreground=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_what_is_drawn_into_the_image_comes_out_where_the_mask_says(height, width, crop, scale, foreground, seed):
    image, mask = scene(height, width)
    augment = Augment(Config(rot90=True, crop=crop, scale=scale, foreground=foreground, **GEOMETRY))
    out, ids = augment(image, mask, np.random.default_rng(seed), (height, width))
    assert out.shape[-2:] == ids.shape == ((crop, crop) if crop else (height, width))
    assert set(ids.unique().tolist()) <= {0, 1, 255}
    red, valid = out[0].float(), ids != 255
    # next to an edge the bilinear image lies between both values; elsewhere they must agree
    same = F.max_pool2d((ids == 1).float()[None], 5, 1, 2)[0] == -F.max_pool2d(-(ids == 1).float()[None], 5, 1, 2)[0]
    inside = F.max_pool2d((~valid).float()[None], 5, 1, 2)[0] == 0
    sure = same & inside & valid
    assert ((red > 127) == (ids == 1))[sure].all()


def test_every_geometry_option_changes_something_and_none_changes_nothing():
    image, mask = scene(40, 60)
    still = Config(hflip=0, vflip=0, scale=(1, 1), **GEOMETRY)
    out, ids = Augment(still)(image, mask, np.random.default_rng(0), (40, 60))
    assert torch.equal(out, image)
    assert torch.equal(ids, mask)
    for option in ({"hflip": 1.0}, {"vflip": 1.0}, {"scale": (1.5, 1.5)}, {"scale": (0.5, 0.5)}, {"crop": 32}):
        moved, _ = Augment(Config(**{"hflip": 0, "vflip": 0, "scale": (1, 1), **GEOMETRY, **option}))(
            image, mask, np.random.default_rng(0), (40, 60)
        )
        assert moved.shape != image.shape or not torch.equal(moved, image), option


def test_a_flip_is_a_flip():
    image, mask = scene(40, 60)
    augment = Augment(Config(hflip=1, vflip=0, scale=(1, 1), **GEOMETRY))
    out, ids = augment(image, mask, np.random.default_rng(0), (40, 60))
    assert torch.equal(out, image.flip(-1))
    assert torch.equal(ids, mask.flip(-1))


def test_foreground_crops_hold_foreground():
    mask = torch.zeros(200, 300, dtype=torch.uint8)
    mask[150, 40] = 1
    image = torch.zeros(3, 200, 300, dtype=torch.uint8)
    augment = Augment(Config(crop=64, foreground=1.0, scale=(1, 1)))
    crops = [augment(image, mask, np.random.default_rng(i), (200, 300))[1] for i in range(40)]
    assert all((ids == 1).any() for ids in crops)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_changes_the_image_alone_and_as_its_formula_says(name):
    image = torch.randint(40, 200, (3, 30, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(30, 20, dtype=torch.uint8)
    config = Config(**{"hflip": 0, "vflip": 0, "scale": (1, 1), **GEOMETRY, name: 0.5})
    out, ids = Augment(config)(image, mask, np.random.default_rng(3), (30, 20))
    assert torch.equal(ids, mask)
    x, y = image.double(), out.double()
    grey = (x * torch.tensor([0.299, 0.587, 0.114]).double()[:, None, None]).sum(0, keepdim=True)
    centre = {"brightness": torch.zeros(1), "contrast": x.mean(), "saturation": grey}[name]
    factor = ((y - centre) * (x - centre)).sum() / ((x - centre) ** 2).sum()
    assert 0.5 <= factor <= 1.5
    assert abs(factor - 1) > 0.02
    assert ((centre + (x - centre) * factor).clamp(0, 255) - y).abs().max() <= 2.0


def test_a_mask_keeps_its_values_when_resized_and_its_nearest_pixel():
    mask = torch.tensor([[0, 7], [255, 3]], dtype=torch.uint8)
    assert resize_mask(mask, (4, 4)).tolist() == mask.repeat_interleave(2, 0).repeat_interleave(2, 1).tolist()
    image, ids = resize(
        torch.zeros(3, 50, 70, dtype=torch.uint8), torch.full((50, 70), 255, dtype=torch.uint8), (33, 21)
    )
    assert image.shape == (3, 33, 21)
    assert set(ids.unique().tolist()) == {255}


def test_normalise_by_hand():
    image = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    out = normalise(image, (0.5, 0.4, 0.2), (0.5, 0.2, 0.1))
    assert out.flatten().tolist() == pytest.approx([1.0, 3.0, 8.0], abs=1e-5)


@pytest.mark.parametrize(
    "bad", [{"hflip": 1.5}, {"scale": (0, 1)}, {"scale": (2, 1)}, {"crop": 8}, {"brightness": 1.0}, {"foreground": -1}]
)
def test_a_bad_option_is_named(bad):
    with pytest.raises(ConfigError, match=f"augment.{next(iter(bad))}"):
        Config(**bad)
