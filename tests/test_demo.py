"""The demo, whole: it is what a new user runs first."""

import pytest

import segwright
from segwright.errors import DataError


@pytest.mark.slow
def test_the_demo_learns_more_than_grey_levels_tell_and_shows_it(tmp_path):
    result = segwright.demo(tmp_path / "demo")
    assert result.test_iou >= 0.5
    assert result.test_iou >= result.grey_iou + 0.2
    for name in ("report.html", "grid.png", "outputs/metrics_test.json", "run/best.pth"):
        assert (tmp_path / "demo" / name).is_file()
    assert len(list((tmp_path / "demo/outputs/infer").glob("*_overlay.png"))) == 12


def test_the_demo_leaves_a_folder_alone_that_is_not_its_own(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="holds something else than a demo"):
        segwright.demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
