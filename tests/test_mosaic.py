"""Mosaics: four images side by side, each with its own mask, and still a function of (seed, pass, index)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixel_split import write_split
from segwright.data import TrainingSet
from segwright.transforms import Augment, Config

STILL = {"hflip": 0, "vflip": 0, "scale": (1, 1), "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def plain_pairs(sizes):
    """Image i is (50 i + 50) grey all over and of class i + 1."""
    return [
        (torch.full((3, *size), 50 * i + 50, dtype=torch.uint8), torch.full(size, i + 1, dtype=torch.uint8))
        for i, size in enumerate(sizes)
    ]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(20, 90), st.integers(20, 90)), min_size=4, max_size=4),
    size=st.sampled_from([None, (33, 47), (64, 64)]),
    crop=st.sampled_from([None, 32, 47]),
    rotate=st.sampled_from([0, 30]),
    rare=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_every_quarter_shows_one_image_and_its_own_mask(sizes, size, crop, rotate, rare, seed):
    augment = Augment(
        Config(**STILL | {"scale": (0.4, 2.0)}, mosaic=1, crop=crop, rotate=rotate, rare=rare), fill=(0, 0, 0)
    )
    image, mask = augment.mosaic(plain_pairs(sizes), np.random.default_rng(seed), size)
    assert mask.shape == image.shape[1:] == ((crop, crop) if crop else size or sizes[0])
    assert set(mask.unique().tolist()) <= {1, 2, 3, 4, 255}
    for number in range(1, 5):
        grey = image[:, mask == number].float()
        assert (grey <= 50 * number).all()
        # a turned corner pixel may hold three quarters of the black filling
        assert (grey >= (50 * number / 4 - 2 if rotate else 50 * number)).all()
    if not rotate:
        assert (image[:, mask == 255] == 0).all()


def test_the_quarters_lie_in_order_around_a_point_of_the_middle():
    augment = Augment(Config(**STILL, mosaic=1))
    for seed in range(20):
        _, mask = augment.mosaic(plain_pairs([(80, 120)] * 4), np.random.default_rng(seed), (80, 120))
        row, column = int((mask[:, 0] == 1).sum()), int((mask[0] == 1).sum())
        assert 20 <= row <= 60
        assert 30 <= column <= 90
        expected = torch.empty(80, 120, dtype=torch.uint8)
        expected[:row, :column], expected[:row, column:] = 1, 2
        expected[row:, :column], expected[row:, column:] = 3, 4
        assert torch.equal(mask, expected)


def test_things_keep_their_size_in_a_mosaic():
    """Stripes of 8 px: the class changes every 8 rows in each quarter, as it does without a mosaic."""
    ids = (torch.arange(128)[:, None] // 8 % 2).expand(128, 128).to(torch.uint8).contiguous()
    pairs = [(torch.zeros(3, 128, 128, dtype=torch.uint8), ids)] * 4
    _, mask = Augment(Config(**STILL, mosaic=1)).mosaic(pairs, np.random.default_rng(0), (128, 128))
    changes = np.flatnonzero(np.diff(mask[:, 5].numpy().astype(int)))
    assert (np.diff(changes) == 8).sum() >= len(changes) - 3


def test_a_sample_is_a_function_of_seed_pass_and_index(tmp_path):
    split = write_split(tmp_path, [(40, 50), (64, 64), (33, 77), (50, 40), (90, 60)])
    make = lambda seed: TrainingSet(split, (64, 48), Augment(Config(mosaic=0.5, rotate=10, rare=0.5)), seed)  # noqa: E731
    one, two, other = make(1), make(1), make(2)
    keys = [(number, index) for number in range(4) for index in range(5)]
    again = {key: two[key] for key in reversed(keys)}
    assert all(torch.equal(one[key]["image"], again[key]["image"]) for key in keys)
    assert all(torch.equal(one[key]["mask"], again[key]["mask"]) for key in keys)
    assert not all(torch.equal(one[key]["image"], other[key]["image"]) for key in keys)
    assert not all(torch.equal(one[0, index]["image"], one[1, index]["image"]) for index in range(5))


@pytest.mark.parametrize(("mosaic", "reads"), [(0.0, 40), (1.0, 160)])
def test_a_mosaic_reads_three_more_images_and_none_where_it_is_off(tmp_path, mosaic, reads):
    split = write_split(tmp_path, [(40, 50)] * 4)
    data = TrainingSet(split, (32, 32), Augment(Config(mosaic=mosaic)), 0)
    for number in range(10):
        for index in range(4):
            data[number, index]
    assert split.decoded == reads


def test_a_share_of_the_samples_are_mosaics():
    augment = Augment(Config(mosaic=0.25))
    drawn = [augment.companions(np.random.default_rng([0, i]), 7) for i in range(2000)]
    share = sum(len(companions) == 3 for companions in drawn) / 2000
    assert abs(share - 0.25) < 0.04  # 4 standard deviations
    assert {index for companions in drawn for index in companions} == set(range(7))
