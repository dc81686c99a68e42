import io
import math
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from segwright.drawing.curves import curves, curves_png
from segwright.drawing.overlays import FALSE, HIT, MISSED, comparison, grid, overlay, palette
from segwright.drawing.report import report
from segwright.errors import DataError

GREY = np.full((40, 60, 3), 100, np.uint8)


def squares() -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 10:20] = 1
    return mask


# overlays


def test_overlay_blends_inside_and_paints_the_contour_fully():
    """Inside: (100 + c) / 2 with c = (255, 0, 110); on the rim: c itself; outside: the photograph."""
    picture = overlay(GREY, squares())
    assert picture[15, 15].tolist() == [178, 50, 105]
    assert picture[10, 15].tolist() == picture[15, 19].tolist() == [255, 0, 110]
    np.testing.assert_array_equal(picture[squares() == 0], GREY[squares() == 0])


def test_a_line_of_one_pixel_has_full_colour_however_faint_the_fill():
    mask = np.zeros((40, 60), np.uint8)
    mask[20] = 1
    assert (overlay(GREY, mask, alpha=0.05)[20] == (255, 0, 110)).all()


def test_overlay_leaves_its_inputs_and_ignored_pixels_alone():
    mask = np.full((40, 60), 255, np.uint8)
    image = GREY.copy()
    np.testing.assert_array_equal(overlay(image, mask), GREY)
    np.testing.assert_array_equal(overlay(image, squares()), overlay(GREY, squares()))
    np.testing.assert_array_equal(image, GREY)


def test_a_given_palette_paints_class_0_too_and_its_transparency_counts():
    solid = np.array([[10, 20, 30], [200, 0, 0]], np.uint8)
    assert overlay(GREY, squares(), solid, alpha=1)[0, 0].tolist() == [10, 20, 30]
    half = np.array([[10, 20, 30, 51], [200, 0, 0, 255]], np.uint8)
    assert overlay(GREY, squares(), half, alpha=1)[0, 0].tolist() == [82, 84, 86]  # 100 + 51/255 * (c - 100)


def test_without_a_palette_id_0_is_background_among_many_classes():
    mask = squares() * 3
    picture = overlay(GREY, mask, alpha=1)
    assert picture[0, 0].tolist() == [100, 100, 100]
    assert picture[15, 15].tolist() == palette(3)[2, :3].tolist()


@pytest.mark.parametrize("num_classes", [2, 11, 16, 40, 150])
def test_palette_colours_are_opaque_and_well_apart(num_classes):
    colours = palette(num_classes).astype(int)
    assert colours.shape == (num_classes, 4)
    assert (colours[:, 3] == 255).all()
    apart = np.abs(colours[:, None, :3] - colours[None, :, :3]).sum(-1) + 999 * np.eye(num_classes, dtype=int)
    assert apart.min() >= 60


def test_binary_palette_has_a_transparent_background():
    assert palette(1).tolist() == [[0, 0, 0, 0], [255, 0, 110, 255]]


def test_comparison_tells_hit_false_and_missed_apart_and_skips_ignored_pixels():
    truth, prediction = np.zeros((2, 40, 60), np.uint8)
    truth[5, 1:3], prediction[5, 2:4] = 1, 1
    truth[5, 3] = 255
    truth[6, 1], prediction[6, 1] = 1, 2  # another class than the true one
    prediction[7, 7] = 1
    picture = comparison(GREY, truth, prediction)
    assert [tuple(picture[5, c].tolist()) for c in (1, 2)] == [MISSED, HIT]
    assert tuple(picture[6, 1].tolist()) == tuple(picture[7, 7].tolist()) == FALSE
    assert picture[5, 3].tolist() == picture[0, 0].tolist() == [80, 80, 80]


@pytest.mark.parametrize("width", [40, 100, 256, 2000])
def test_the_legend_shows_all_three_colours_below_the_picture(width):
    empty = np.zeros((30, width), np.uint8)
    picture = comparison(np.zeros((30, width, 3), np.uint8), empty, empty)
    legend = {tuple(c) for c in picture[30:].reshape(-1, 3).tolist()}
    assert {HIT, FALSE, MISSED} <= legend
    assert picture.shape[1] == width
    assert not {HIT, FALSE, MISSED} & {tuple(c) for c in picture[:30].reshape(-1, 3).tolist()}


def relative_luminance(colour: tuple[int, int, int]) -> float:
    """WCAG 2, https://www.w3.org/TR/WCAG20/#relativeluminancedef"""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour) / 255]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_the_three_colours_differ_in_lightness():
    light = sorted(map(relative_luminance, (HIT, FALSE, MISSED)))
    assert (light[1] + 0.05) / (light[0] + 0.05) > 1.4
    assert (light[2] + 0.05) / (light[1] + 0.05) > 1.4


def test_grid_places_pictures_in_rows_with_captions():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    sheet = grid([np.full((50, 80, 3), c, np.uint8) for c in colours], ["a", "b", "c"], 2)
    found = [np.argwhere((sheet == c).all(-1)) for c in colours]
    assert [len(f) for f in found] == [50 * 80] * 3
    tops, lefts = [f[:, 0].min() for f in found], [f[:, 1].min() for f in found]
    assert tops[0] == tops[1] < tops[2] - 50
    assert lefts[0] == lefts[2] < lefts[1] - 79
    caption = sheet[tops[0] + 50 : tops[2] - 8]
    assert caption.min() < 100


def test_grid_shrinks_large_pictures_and_cuts_any_caption_to_one_line():
    name = "a very long name\nwith a break, ünïcode 裂缝 and a stray byte \udcff" * 4
    sheet = grid([np.zeros((1000, 2000, 3), np.uint8)], [name], 4)
    assert sheet.shape[1] == 480 + 16
    assert sheet.shape[0] < 240 + 60


# curves

ROWS = [
    {"epoch": 1, "train_loss": 0.9, "valid_loss": 0.8, "valid_iou": 0.1, "lr_head": 1e-3, "frozen": True},
    {"epoch": 2, "train_loss": 0.5, "valid_loss": math.nan, "valid_iou": 0.3, "lr_head": 1e-3, "frozen": True},
    {"epoch": 3, "train_loss": 0.4, "valid_loss": 0.5, "valid_iou": 0.4, "lr_head": 1e-4, "frozen": False},
]


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return opened(curves_png(ROWS))


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_curves_draw_a_panel_for_each_kind_of_column_that_is_there(drawn):
    one = opened(curves_png([{"epoch": 1, "train_loss": 1.0}]))
    assert drawn.shape == (2 * one.shape[0], 2 * one.shape[1], 3)  # loss, score, learning rate: two in a row
    assert (drawn[one.shape[0] + 5 :, one.shape[1] + 20 :] == 255).all()


def test_curves_mark_the_epoch_that_unfreezes(drawn):
    always = [{**row, "frozen": False} for row in ROWS]
    assert not np.array_equal(drawn, opened(curves_png(always)))


def test_a_csvs_texts_draw_the_same_as_numbers(drawn):
    texts = [{key: str(value) for key, value in row.items()} for row in ROWS]
    np.testing.assert_array_equal(opened(curves_png(texts)), drawn)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"epoch": 1}],
        [{"train_loss": math.inf, "lr_head": 0.0, "note": "x"}],
        [{"train_loss": "", "valid_iou": None}, {"train_loss": "0.5"}],
    ],
)
def test_curves_draw_whatever_little_there_is(rows):
    assert opened(curves_png(rows)).size


def test_curves_write_a_png_and_leave_no_draft(tmp_path):
    curves(ROWS, tmp_path / "curves.png")
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"


def test_overlays_come_without_matplotlib_and_curves_without_pyplot():
    code = """
import sys
import segwright.drawing.overlays, segwright.drawing.report
assert "matplotlib" not in sys.modules
segwright.drawing.report.curves_png([{"epoch": 1, "train_loss": 1.0}])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# report


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.alts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        values = dict(attrs)
        assert not {a for a in values if a.startswith("on")}
        self.addresses += [values[a] for a in ("src", "href", "srcset", "action", "data") if a in values]
        self.alts += [values["alt"]] if "alt" in values else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


EVIL = "<script>alert(1)</script>\"'&.jpg"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("report")
    png = io.BytesIO()
    Image.fromarray(GREY).save(png, "PNG")
    (tmp_path / "grid.png").write_bytes(png.getvalue())
    report(
        tmp_path / "report.html",
        title=f"Run {EVIL}",
        facts={"model": "segformer_lite", EVIL: EVIL},
        metrics={
            "iou": (0.51234, 0.41, 0.62),
            "num_images": 12,
            "per_class": {EVIL: {"iou": 0.5}, "b": {"dice": None}},
        },
        history=ROWS,
        figures=[("grid", tmp_path / "grid.png"), (EVIL, png.getvalue())],
        best=[(EVIL, GREY, 0.9)],
        worst=[("worst.jpg", GREY, 0.01), ("empty.jpg", GREY, math.nan)],
        config=f"NAME: {EVIL}\n",
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grid.png", "report.html"]
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_loads_nothing_from_outside(page):
    addresses = Page(page).addresses
    assert len(addresses) == 6  # curves, two figures, three samples
    assert all(a.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for a in addresses)
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_the_report_escapes_names(page):
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert "<script" not in page
    assert any(EVIL in word for word in parsed.words)
    assert any(EVIL in alt for alt in parsed.alts)
    assert parsed.open == []


def test_the_report_says_metrics_intervals_samples_and_config(page):
    words = Page(page).words
    for expected in (
        "0.5123",
        "0.41 to 0.62",
        "12",
        "segformer_lite",
        "worst.jpg: IoU 0.010",
        "Resolved configuration",
    ):
        assert any(expected == word for word in words), expected
    assert "prefers-color-scheme: dark" in page


def test_an_empty_report_has_no_empty_sections(tmp_path):
    report(tmp_path / "r.html", title="t", facts={}, metrics={}, history=[], figures=[], best=[], worst=[])
    assert "h2" not in Page((tmp_path / "r.html").read_text()).tags


def test_a_name_that_is_no_text_can_be_reported(tmp_path):
    report(tmp_path / "r.html", title="\udcff", facts={}, metrics={}, history=[], figures=[], best=[], worst=[])
    assert Page((tmp_path / "r.html").read_text(encoding="utf-8")).words


def test_a_figure_that_no_browser_shows_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(DataError, match="neither PNG nor JPEG"):
        report(
            tmp_path / "r.html", title="", facts={}, metrics={}, history=[], figures=[("", b"II*\0")], best=[], worst=[]
        )
    assert list(tmp_path.iterdir()) == []
