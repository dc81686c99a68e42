"""Several classes: each its own colour, ids kept, and a legend of what occurs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.drawing.classes import class_colours, panels
from segwright.png import write_png

OWN = [(10, 20, 30), (200, 0, 0), (0, 0, 200)]


def test_the_data_sets_own_colours_are_used_and_a_background_is_not_drawn() -> None:
    colours = class_colours(["background", "body", "panel"], OWN)
    assert colours[:, :3].tolist() == [list(colour) for colour in OWN]
    assert colours[:, 3].tolist() == [0, 255, 255]


@pytest.mark.parametrize("count", [2, 3, 20])
def test_without_own_colours_every_class_gets_one(count: int) -> None:
    names = [f"c{i}" for i in range(count)]
    plain = class_colours(names)
    with_background = class_colours(["background", *names[1:]])
    assert len({tuple(row) for row in plain.tolist()}) == count == len(with_background)
    assert (plain[:, 3] == 255).all()
    assert with_background[0, 3] == 0
    assert (with_background[1:, 3] == 255).all()


def test_panels_show_the_photograph_the_truth_and_the_prediction() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    truth, prediction = np.zeros((40, 60), np.uint8), np.ones((40, 60), np.uint8)
    truth[:10] = 255
    picture = panels(image, truth, prediction, ["a", "b", "c"], class_colours(["a", "b", "c"], OWN))
    assert picture.shape[1] == 3 * 60 + 8
    assert picture.shape[0] > 40  # the legend
    assert (picture[5, :60] == 100).all()
    assert (picture[5, 64:124] == 100).all()  # ignored: as the photograph
    assert picture[30, 90].tolist() == [55, 60, 65]  # half of (10, 20, 30)
    assert picture[30, 150].tolist() == [150, 50, 50]


def test_a_mask_with_a_palette_keeps_its_ids(tmp_path: Path) -> None:
    mask = np.array([[0, 1], [2, 1]], np.uint8)
    write_png(tmp_path / "m.png", mask, np.array(OWN, np.uint8))
    image = Image.open(tmp_path / "m.png")
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), mask)
    assert np.asarray(image.convert("RGB"))[1, 0].tolist() == [0, 0, 200]
