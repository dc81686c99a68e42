"""Image and mask move together, and a sample depends on (seed, epoch, index) alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from segwright.errors import ConfigError
from segwright.transforms import Augment, Config, normalise, resize, resize_mask
from segwright.transforms.colour import LUMA, chroma_matrix
from segwright.transforms.warp import STILL, Flips, warp
from segwright.transforms.windows import Window

GEOMETRY = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def scene(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A mask of blobs drawn into the image: red is 255 exactly where the mask is 1."""
    rng = np.random.default_rng(height * 1000 + width)
    coarse = torch.from_numpy((rng.random((1, 1, 4, 5)) < 0.5).astype(np.float32))
    mask = F.interpolate(coarse, size=(height, width), mode="nearest-exact")[0, 0].to(torch.uint8)
    image = torch.stack([mask * 255, torch.zeros_like(mask), torch.zeros_like(mask)])
    return image, mask


@pytest.mark.parametrize("shape", [(40, 1), (1, 40), (3, 500)])
def test_the_least_scale_leaves_some_of_the_narrowest_image(shape):
    augment = Augment(Config(scale=(0.1, 0.1)))
    for seed in range(50):
        image, mask = torch.zeros(3, *shape, dtype=torch.uint8), torch.zeros(shape, dtype=torch.uint8)
        _, ids = augment(image, mask, np.random.default_rng(seed), (32, 32))
        assert (ids == 0).sum() >= 9


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(33, 90),
    width=st.integers(33, 90),
    crop=st.sampled_from([None, 32, 47, (48, 64)]),
    scale=st.sampled_from([(1.0, 1.0), (0.5, 2.0), (0.3, 0.6), (1.5, 2.5)]),
    foreground=st.sampled_from([{}, {"foreground": 1.0}, {"rare": 1.0}]),
    rotate=st.sampled_from([0.0, 30.0, 180.0]),
    mosaic=st.booleans(),
    colour=st.sampled_from([GEOMETRY, GEOMETRY | {"hue": 0.05, "saturation": 0.3}, {"contrast": 0.1}, {"noise": 1.0}]),
    stretch=st.sampled_from([None, (61, 75)]),
    seed=st.integers(0, 10**6),
)
def test_what_is_drawn_into_the_image_comes_out_where_the_mask_says(
    height, width, crop, scale, foreground, rotate, mosaic, colour, stretch, seed
):
    image, mask = scene(height, width)
    size = stretch or (height, width)
    augment = Augment(Config(rot90=True, crop=crop, scale=scale, rotate=rotate, **foreground, **colour))
    rng = np.random.default_rng(seed)
    out, ids = augment.mosaic([(image, mask)] * 4, rng, size) if mosaic else augment(image, mask, rng, size)
    assert out.shape[-2:] == ids.shape == (crop if isinstance(crop, tuple) else (crop, crop) if crop else size)
    assert set(ids.unique().tolist()) <= {0, 1, 255}
    red, valid = out[0].float(), ids != 255
    # next to an edge, which may lie just outside the frame, the image is between both values; elsewhere they must agree
    same = F.max_pool2d((ids == 1).float()[None], 5, 1, 2)[0] == -F.max_pool2d(-(ids == 1).float()[None], 5, 1, 2)[0]
    inside = F.max_pool2d((~valid).float()[None], 5, 1, 2)[0] == 0
    flat = F.max_pool2d(red[None], 3, 1, 1)[0] + F.max_pool2d(-red[None], 3, 1, 1)[0] < 100
    sure = same & inside & valid & flat
    assert not ((red > 191) & (ids == 0) & sure).any()
    assert not ((red < 64) & (ids == 1) & sure).any()


def test_the_last_test_looks_at_most_pixels():
    """Or it would pass without seeing anything: at the scale of the original, what is sure is most of the image."""
    image, mask = scene(80, 90)
    _, ids = Augment(Config(rotate=30, **GEOMETRY))(image, mask, np.random.default_rng(0), (80, 90))
    edges = F.max_pool2d((ids == 1).float()[None], 5, 1, 2) + F.max_pool2d(-(ids == 1).float()[None], 5, 1, 2)
    assert ((edges == 0)[0] & (ids != 255)).float().mean() > 0.4


def blobs(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture, (H, W, 3) uint8."""
    coarse = torch.from_numpy(np.random.default_rng(seed).random((1, 3, 9, 11)).astype(np.float32) * 255)
    return F.interpolate(coarse, size=(height, width), mode="bicubic")[0].permute(1, 2, 0).clamp(0, 255).byte().numpy()


FILL = np.array([1, 2, 3], np.uint8)


@pytest.mark.parametrize("side", [32, 47])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turn_by_quarters_is_numpys(side, quarters):
    image, mask = blobs(side, side), scene(side, side)[1].numpy()
    out, ids = warp(image, mask, Window(0, 0, side, side), 90 * quarters, (side, side), fill=FILL)
    assert np.array_equal(ids, np.rot90(mask, quarters))
    assert np.abs(out.astype(int) - np.rot90(image, quarters)).max() <= 1


@pytest.mark.parametrize(("across", "down"), [(True, False), (False, True), (True, True)])
def test_a_turn_is_mirrored_after_it(across, down):
    image, mask = blobs(50, 61), scene(50, 61)[1].numpy()
    flips, window = Flips(across, down), Window(5, -4, 40, 50)
    plain, mirrored = (warp(image, mask, window, 20.0, (47, 64), f, FILL) for f in (STILL, flips))
    axes = [axis for axis, flip in ((1, across), (0, down)) if flip]
    assert np.array_equal(np.flip(mirrored[1], axes), plain[1])
    assert np.abs(np.flip(mirrored[0], axes).astype(int) - plain[0]).max() <= 2
    assert np.array_equal(flips.of(image), np.flip(image, axes))
    assert not np.array_equal(mirrored[0], plain[0])


@pytest.mark.parametrize("degrees", [-30, 7.5, 30, 133])
def test_a_turn_by_any_angle_is_torchvisions(degrees):
    """An independent implementation; both are anticlockwise about the centre."""
    image, mask = blobs(71, 90), scene(71, 90)[1].numpy()
    out, ids = warp(image, mask, Window(0, 0, 71, 90), degrees, (71, 90), fill=FILL)
    theirs = TF.rotate(torch.from_numpy(image).permute(2, 0, 1), degrees, TF.InterpolationMode.BILINEAR)
    there = TF.rotate(torch.from_numpy(mask)[None] + 1, degrees)[0].numpy().astype(int) - 1
    inside = F.max_pool2d(torch.from_numpy(there < 0).float()[None], 3, 1, 1)[0].numpy() == 0
    assert np.abs(out.astype(int) - theirs.permute(1, 2, 0).numpy())[inside].max() <= 3
    assert (ids == there)[inside].mean() > 0.995
    assert (ids == 255).sum() == pytest.approx((there < 0).sum(), rel=0.03)
    outside = F.max_pool2d(torch.from_numpy(ids != 255).float()[None], 3, 1, 1)[0].numpy() == 0
    assert outside.any()
    assert (out[outside] == FILL).all()


@pytest.mark.parametrize("factor", [1.3, 1.9, 2.0, 3.7, 8.5])
def test_shrinking_averages_as_the_antialiased_resize_does(factor):
    """Pixel noise, whose standard deviation says how much is averaged. Ours averages over squares first, where an
    unturned frame falls between no pixels: it is a little sharper then."""
    side = round(60 * factor)
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out, _ = warp(image, image[..., 0], Window(0, 0, side, side), 0.0, (60, 60), fill=FILL)
    theirs, _ = resize(torch.from_numpy(image).permute(2, 0, 1), torch.zeros(side, side, dtype=torch.uint8), (60, 60))
    inner = (slice(2, -2), slice(2, -2))
    ours, reference = out[inner].astype(float), theirs.permute(1, 2, 0).numpy()[inner].astype(float)
    assert 0.7 * reference.std() < ours.std() < 1.7 * reference.std()
    assert np.abs(ours.mean() - reference.mean()) < 1
    assert np.corrcoef(ours.ravel(), reference.ravel())[0, 1] > 0.8


def test_a_thin_line_fades_evenly_when_a_turned_window_shrinks():
    """A line of 1 px, four times smaller: every row of it keeps about a quarter of 255, none is skipped."""
    image = np.zeros((400, 400, 3), np.uint8)
    image[:, 200] = 255
    out, _ = warp(image, image[..., 0], Window(0, 0, 400, 400), 20.0, (100, 100))
    mass = out[30:70, :, 0].astype(float).sum(1) * np.cos(np.radians(20))
    assert mass.min() > 0.7 * 255 / 4
    assert mass.max() < 1.3 * 255 / 4


def test_what_lies_wholly_outside_is_filled():
    out, ids = warp(blobs(40, 40), np.zeros((40, 40), np.uint8), Window(500, 500, 40, 40), 10.0, (32, 48), fill=FILL)
    assert (out == FILL).all()
    assert (ids == 255).all()


def test_every_geometry_option_changes_something_and_none_changes_nothing():
    image, mask = scene(40, 60)
    still = Config(hflip=0, vflip=0, scale=(1, 1), **GEOMETRY)
    out, ids = Augment(still)(image, mask, np.random.default_rng(0), (40, 60))
    assert torch.equal(out, image)
    assert torch.equal(ids, mask)
    for option in (
        {"hflip": 1.0},
        {"vflip": 1.0},
        {"scale": (1.5, 1.5)},
        {"scale": (0.5, 0.5)},
        {"crop": 32},
        {"rotate": 30},
        {"hue": 0.2},
        {"blur": 1.0},
        {"noise": 1.0},
    ):
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


def test_rare_crops_favour_no_class_among_those_present():
    """One pixel of class 3 in 60,000: half of the crops show it."""
    mask = torch.zeros(200, 300, dtype=torch.uint8)
    mask[150, 240] = 3
    mask[:10] = 255
    image = torch.zeros(3, 200, 300, dtype=torch.uint8)
    augment = Augment(Config(crop=32, rare=1.0, scale=(1, 1)))
    crops = [augment(image, mask, np.random.default_rng(i), (200, 300))[1] for i in range(400)]
    assert abs(np.mean([(ids == 3).any() for ids in crops]) - 0.5) < 0.1


def test_a_mask_that_is_all_ignored_can_be_cropped():
    mask = torch.full((50, 60), 255, dtype=torch.uint8)
    augment = Augment(Config(crop=32, rare=1.0, foreground=1.0))
    _, ids = augment(torch.zeros(3, 50, 60, dtype=torch.uint8), mask, np.random.default_rng(0), (50, 60))
    assert (ids == 255).all()


def test_hue_turns_colours_and_keeps_greys_and_lumas():
    third = chroma_matrix(1, 1 / 3)
    assert third @ np.ones(3) == pytest.approx(np.ones(3), abs=1e-12)
    assert LUMA @ third == pytest.approx(LUMA, abs=1e-12)
    assert np.linalg.matrix_power(third, 3) == pytest.approx(np.eye(3), abs=1e-12)
    assert chroma_matrix(1, 0) == pytest.approx(np.eye(3), abs=1e-12)
    red = third @ [1, 0, 0]
    assert red.argmax() != 0


def test_blur_and_noise_are_as_strong_as_they_say():
    flat = torch.full((3, 200, 200), 128, dtype=torch.uint8)
    point = torch.zeros(3, 65, 65, dtype=torch.uint8)
    point[:, 32, 32] = 255
    still = {"hflip": 0, "vflip": 0, "scale": (1, 1), **GEOMETRY}
    spread = torch.arange(65) - 32.0
    for seed in range(10):
        noisy, _ = Augment(Config(**still, noise=1))(flat, flat[0], np.random.default_rng(seed), (200, 200))
        assert 1.9 < noisy.float().std() < 12.5
        blurred, _ = Augment(Config(**still, blur=1))(point, point[0], np.random.default_rng(seed), (65, 65))
        weight = blurred[0].float().sum(0)
        if seed_sigma := float(((weight * spread**2).sum() / weight.sum()).sqrt()):
            assert 0.2 < seed_sigma < 2.2


def test_switches_that_are_off_draw_nothing():
    """So that an older config stays the same run: the generator stands where the old draws left it."""
    image, mask = scene(64, 64)
    rng, old = np.random.default_rng(4), np.random.default_rng(4)
    augment = Augment(Config())
    assert augment.companions(rng, 9) == []
    augment(image, mask, rng, (64, 64))
    scale = old.uniform(0.75, 1.5)
    slack = 64 - round(64 / scale)
    old.random()  # foreground
    for _ in range(2):
        old.integers(min(slack, 0), max(slack, 0) + 1)
    for _ in range(2):
        old.random()  # flips
    for _ in range(3):
        old.uniform(-0.2, 0.2)  # colour
    assert rng.random() == old.random()


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
    "bad",
    [
        {"hflip": 1.5},
        {"scale": (0, 1)},
        {"scale": (2, 1)},
        {"crop": 8},
        {"brightness": 1.0},
        {"foreground": -1},
        {"rare": 2},
        {"mosaic": 1.1},
        {"hue": 0.6},
        {"rotate": 200},
        {"blur": -1},
        {"noise": 3},
    ],
)
def test_a_bad_option_is_named(bad):
    with pytest.raises(ConfigError, match=f"augment.{next(iter(bad))}"):
        Config(**bad)
