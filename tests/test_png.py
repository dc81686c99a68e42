"""What is written as PNG, and the mark of a prediction."""

import numpy as np
import pytest
from PIL import Image

from segwright.errors import SegwrightError
from segwright.images import read_image
from segwright.png import is_prediction, write_png

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("array", "quick"), [(GREY, False), (RGB, False), (RGB, True)], ids=["grey", "rgb", "quick rgb"]
)
def test_what_is_written_is_read_back(tmp_path, array, quick):
    write_png(tmp_path / "x.png", array, quick=quick)
    wide = array if array.ndim == 3 else np.repeat(array[..., None], 3, -1)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), wide)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


WAYS = {
    "grey": (GREY, {}),
    "palette": (GREY, {"colours": np.zeros((256, 3), np.uint8)}),
    "rgb": (RGB, {}),
    "quick": (RGB, {"quick": True}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_prediction_is_known_by_its_header_and_nothing_else_is(tmp_path, way):
    array, how = WAYS[way]
    write_png(tmp_path / "truth.png", array, **how)
    write_png(tmp_path / "guess.png", array, prediction=True, **how)
    assert not is_prediction(tmp_path / "truth.png")
    assert is_prediction(tmp_path / "guess.png")
    with Image.open(tmp_path / "guess.png") as image:
        assert image.info["Software"] == "segwright prediction", "Pillow does not find the mark, or its checksum is off"
        np.testing.assert_array_equal(np.asarray(image), array)
    whole = (tmp_path / "guess.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: whole.index(b"IDAT") + 4])
    assert is_prediction(tmp_path / "cut.png"), "pixels were read"
    Image.open(tmp_path / "guess.png").save(tmp_path / "mended.png")
    assert not is_prediction(tmp_path / "mended.png")
    (tmp_path / "no.png").write_bytes(b"segwright prediction")
    assert not any(map(is_prediction, [tmp_path / "no.png", tmp_path / "missing.png", tmp_path]))


def test_a_large_picture_is_written_as_a_stream_however_quick_it_is_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr("segwright.large.LARGE_PX", 23)
    monkeypatch.setattr("segwright.png._quick", None)
    write_png(tmp_path / "x.png", RGB, quick=True)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), RGB)


def test_what_opencv_does_not_write_pillow_does(tmp_path):
    """A row of more than a million pixels."""
    wide = np.zeros((1, 1_000_001, 3), np.uint8)
    write_png(tmp_path / "x.png", wide, quick=True, prediction=True)
    assert read_image(tmp_path / "x.png").shape == wide.shape
    assert is_prediction(tmp_path / "x.png")


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, monkeypatch):
    write_png(tmp_path / "x.png", GREY)
    before = (tmp_path / "x.png").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(SegwrightError, match=r"x\.png"):
        write_png(tmp_path / "x.png", RGB)
    assert (tmp_path / "x.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
