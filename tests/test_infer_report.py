"""The page and the table of what was predicted, on counts made by hand."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from segwright.verbs.infer_files import Written
from segwright.verbs.infer_report import percent, write_report

COLOURS = np.array([[0, 0, 0, 0], [255, 0, 0, 255], [0, 0, 255, 255]], np.uint8)


def written(*counts: int, brightest: int = 255) -> Written:
    return Written(Path("x_mask.png"), np.array(counts), b"\xff\xd8\xff", brightest)


def test_shares_are_of_each_image_and_the_page_tells_those_of_all_pixels(tmp_path):
    """100 pixels and 300: 10 + 0 of 400 are red, 2.5 %, and 30 + 300, 82.5 %, blue."""
    of_images = {"a.png": written(60, 10, 30), "<b>.png": written(0, 0, 300)}
    write_report(tmp_path, "best.pth", ["background", "red", "blue"], COLOURS, of_images, {"c.png": "cut & gone"})
    rows = list(csv.reader((tmp_path / "mask_shares.csv").read_text().splitlines()))
    assert rows == [
        ["image", "mask", "background", "red", "blue"],
        ["a.png", "x_mask.png", "0.6", "0.1", "0.3"],
        ["<b>.png", "x_mask.png", "0", "0", "1"],
    ]
    page = (tmp_path / "masks.html").read_text()
    assert "a.png: blue 30.0%, red 10.0%<" in page  # the background is not drawn
    assert "&lt;b&gt;.png: blue 100.0%<" in page
    assert '<th scope="row">red</th><td>2.5%</td>' in page
    assert '<th scope="row">blue</th><td>82.5%</td>' in page
    assert "cut &amp; gone" in page


def test_of_one_class_its_own_share_is_told(tmp_path):
    of_images = {"a.png": written(75, 25), "b.png": written(100, 0)}
    write_report(tmp_path, "best.pth", ["crack"], COLOURS[:2], of_images, {})
    assert (tmp_path / "mask_shares.csv").read_text() == "image,mask,crack\na.png,x_mask.png,0.25\nb.png,x_mask.png,0\n"
    page = (tmp_path / "masks.html").read_text()
    assert "a.png: crack 25.0%<" in page
    assert "b.png: nothing found<" in page
    assert "could not be predicted</summary>" not in page


def test_a_page_of_many_images_says_that_it_shows_the_first(tmp_path):
    of_images = {"a.png": written(1, 0), "b.png": Written(Path("b"), np.array([1, 0]), b"", 255)}
    write_report(tmp_path, "best.pth", ["crack"], COLOURS[:2], of_images, {})
    assert "The first 1 of 2 images." in (tmp_path / "masks.html").read_text()


def test_a_name_that_is_no_text_is_told_with_question_marks(tmp_path):
    good, bad = (os.fsdecode(name) for name in (b"caf\xe9.png", b"b\xe9.png"))
    write_report(tmp_path, "best.pth", ["crack"], COLOURS[:2], {good: written(1, 0)}, {bad: f"{bad} is broken"})
    assert "caf?.png,x_mask.png,0" in (tmp_path / "mask_shares.csv").read_text()
    assert "b?.png is broken" in (tmp_path / "masks.html").read_text()


@pytest.mark.parametrize(
    ("share", "said"), [(0, "0.0%"), (0.0004, "under 0.1%"), (0.001, "0.1%"), (0.0253, "2.5%"), (1, "100.0%")]
)
def test_what_is_there_is_never_called_nothing(share, said):
    assert percent(share) == said
