"""The check as people meet it: its page, its JSON, its mended copy."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segwright
from runs import small
from segwright.cli import main
from segwright.datasets import folder
from segwright.datasets.base import Finding
from segwright.drawing.check_report import FILES_SHOWN, Double, Picture, check_report
from segwright.errors import ConfigError, DataError, SegwrightError
from segwright.png import write_png
from segwright.verbs.check import check
from segwright.verbs.settings import gather
from segwright.verbs.source import read_source
from test_spoiled import CASES, CRACK, THREE, Garden, photograph


def page(path: Path, **parts) -> str:
    """A page of these parts; the others are empty."""
    empty = {"facts": {}, "findings": [], "shares": {}, "sizes": [], "suspicious": [], "doubles": [], "samples": []}
    check_report(path, title="Leaves", **{**empty, **parts})
    return path.read_text()


def config(garden: Garden) -> dict:
    return {"data": garden.config()}


@pytest.fixture
def garden(tmp_path) -> Garden:
    made = Garden(tmp_path / "garden", CRACK)
    made.plant()
    return made


# the page


def test_the_page_needs_nothing_from_outside_and_shows_errors_first(tmp_path):
    findings = [Finding("error", "bad-thing", "a thing is bad.", "Mend it.", ("a.png",)), Finding("info", "note", "so")]
    picture = Picture(photograph(0), "a.png: bad-thing")
    shown = page(
        tmp_path / "page.html",
        findings=findings,
        suspicious=[picture],
        doubles=[Double(picture, picture, "equal pixels")],
        sizes=[(96, 128)] * 3,
    )
    assert not re.search(r"""(src|href)=["'](?!data:image/(jpeg|png);base64,)""", shown)
    assert "http" not in shown.replace("http-equiv", "")
    places = [
        shown.index(word) for word in ("bad-thing", "Suspicious pictures", "equal pixels", "For your information")
    ]
    assert places == sorted(places)
    assert "128 x 96" in shown


def test_names_from_outside_cannot_become_tags(tmp_path):
    evil = "<script>alert(1)</script>"
    shown = page(
        tmp_path / "page.html",
        facts={evil: evil},
        findings=[Finding("warning", evil, evil, evil, (evil,))],
        shares={evil: {evil: 0.5}},
        samples=[Picture(photograph(0), evil)],
    )
    assert "<script" not in shown


def test_the_bars_go_with_the_root_of_the_share(tmp_path):
    """A quarter of the picture: half of 6 rem."""
    shown = page(tmp_path / "page.html", shares={"train": {"leaf": 0.25}})
    assert 'width: 3.00rem"></span> 25 %' in shown


def test_many_sizes_become_ranges_that_count_every_image(tmp_path):
    shown = page(tmp_path / "page.html", sizes=[(50, side) for side in range(100, 200)])
    counts = re.findall(r"</span> (\d+)</td>", shown)
    assert len(counts) == 12
    assert sum(map(int, counts)) == 100


def test_a_page_of_nothing_and_one_of_very_many_names_are_written(tmp_path):
    assert "0 errors" in page(tmp_path / "empty.html")
    names = tuple(f"{number}.png" for number in range(FILES_SHOWN + 7))
    assert "and 7 more" in page(tmp_path / "many.html", findings=[Finding("error", "x", "y", "", names)])


def test_the_check_writes_a_page_with_pictures_of_what_it_found(garden, tmp_path):
    CASES["an inverted mask"].spoil(garden)
    CASES["an image copied across"].spoil(garden)
    Image.open(garden.mask("train", 5)).resize((64, 64)).save(garden.mask("train", 5))
    report = check(config=config(garden), html=tmp_path / "check.html")
    shown = (tmp_path / "check.html").read_text()
    assert report.errors == 2
    for words in ("train/masks/train4.png", "inverted-mask", "equal pixels", "mask-size"):
        assert words in shown
    assert len(re.findall("<img", shown)) >= 2 + 2 + 6


# the command


def run_cli(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return int(left.value.code or 0)


def test_the_report_goes_to_a_file_and_findings_to_the_screen(garden, tmp_path, capsys):
    CASES["an image copied across"].spoil(garden)
    words = [f"data.{key}={value}" for key, value in garden.config().items() if key != "classes"]
    assert run_cli("check", *words, "data.classes={crack: 1}", "--json", str(tmp_path / "out" / "report.json")) == 1
    assert "duplicate-across" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    found = next(finding for finding in report["findings"] if finding["code"] == "duplicate-across")
    assert found["level"] == "error"
    assert found["files"] == ["train/images/train0.png", "valid/images/valid2.png"]
    assert found["fix"]
    assert report["summary"]["splits"]["train"]["images"] == 12


def test_class_weights_are_suggested_where_there_are_several_classes(tmp_path):
    """Pixels 9 : 4 : 1, so 1 / sqrt goes 2 : 3 : 6, and divided by the mean 11 / 3: 6 / 11, 9 / 11, 18 / 11."""
    made = Garden(tmp_path / "garden", THREE)
    made.plant()
    mask = np.repeat(np.array([0, 1, 2], np.uint8), [9, 4, 1])[None].repeat(14, 0)
    for index in range(12):
        Image.fromarray(mask).save(made.mask("train", index))
        Image.fromarray(photograph(index)[:14, :14]).save(made.image("train", index))
    message = {finding.code: finding.message for finding in check(config=config(made)).findings}["class-weights"]
    assert message.endswith("background 0.545, leaf 0.818, stem 1.64.")


def test_a_quick_check_draws_no_page_and_mends_nothing(garden, tmp_path):
    for asked in ({"html": tmp_path / "a.html"}, {"fix": tmp_path / "b"}):
        with pytest.raises(ConfigError, match="quick"):
            check(config=config(garden), quick=True, **asked)


def test_images_of_several_sizes_that_would_meet_in_a_batch_stop_the_run_and_are_found_before(tmp_path):
    root = folder.example(tmp_path / "data")
    for kind in ("images", "masks"):
        path = root / "train" / kind / "both.png"
        Image.open(path).resize((70, 40), 0).save(path)
    settings = {"data": {"name": "folder", "root": str(root)}, "input": {"size": None}, "run": {"output": "none"}}
    said = r"there are 2 \(width x height, images\): .*70 x 40 \(1\).*train.batch_size=8 images needs one size"
    with pytest.raises(ConfigError, match=said):
        segwright.train(settings)
    for quick in (True, False):
        findings = check(config=settings, quick=quick).findings
        assert re.search(said, next(one.message for one in findings if one.code == "mixed-batches"))
    for key, value in (("train", {"batch_size": 1}), ("augment", {"crop": 32}), ("input", {"size": 64})):
        assert not {"mixed-batches"} & {one.code for one in check(config=settings | {key: value}, quick=True).findings}


def test_training_does_not_start_on_a_file_that_is_cut_off(painted, tmp_path):
    data = Path(shutil.copytree(painted, tmp_path / "data"))
    cut = sorted(path for path in (data / "train").iterdir() if path.suffix != ".json")[-1]
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"train/{cut.name}"):
        segwright.train(small(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# the mended copy


MENDED = [
    "a mask of another size",
    "a value that is no class",
    "EXIF orientation 6",
    "EXIF orientation 8",
    "an image copied across",
    "a mirrored copy across",
    "siblings across",
    "a JPEG file cut off",
    "a mask's file cut off",
    "the image saved as its mask",
]


@pytest.mark.parametrize("name", MENDED)
def test_the_copy_has_no_trace_of_what_can_be_mended_and_the_original_is_untouched(name, tmp_path):
    case, made = CASES[name], Garden(tmp_path / "garden", THREE)
    made.plant()
    named = {path.relative_to(made.root).as_posix() for path in case.spoil(made)}
    before = {path: path.read_bytes() for path in made.root.rglob("*.*")}
    report = check(config=config(made), fix=tmp_path / "mended")
    assert {path: path.read_bytes() for path in made.root.rglob("*.*")} == before
    assert named & {name for fix in report.fixes for name in (fix.file, fix.file.replace("images", "masks"))}
    again = check(config=config(Garden(tmp_path / "mended", THREE)))
    assert {finding.code for finding in again.findings if finding.level != "info"} == set()
    told = json.loads((tmp_path / "mended" / "fixes.json").read_text())
    assert told["fixes"]
    assert set(told["fixes"][0]) == {"file", "code", "action"}


def test_what_the_reader_left_out_is_listed_too(tmp_path):
    made = Garden(tmp_path / "garden", THREE)
    made.plant()
    CASES["a pair without its mask"].spoil(made)
    (fix,) = check(config=config(made), fix=tmp_path / "mended").fixes
    assert (fix.code, fix.action) == ("missing-mask", "left out")
    assert not (tmp_path / "mended" / fix.file).exists()


def test_what_is_mended_is_not_listed_as_left_out_too(tmp_path):
    """Also where the data lie deeper than their root, from which the reader counts and the survey does not."""
    made = Garden(tmp_path / "outer" / "garden", THREE)
    made.plant()
    CASES["a pair without its mask"].spoil(made)
    CASES["a value that is no class"].spoil(made)
    values = {"data": made.config() | {"root": str(tmp_path / "outer")}}
    report = check(config=values, fix=tmp_path / "mended")
    assert sorted(fix.code for fix in report.fixes) == ["mask-value", "missing-mask"]


def test_a_mask_is_turned_as_its_image_is(tmp_path):
    """Orientation 6: the file's first row becomes the right column, its left column the top row."""
    made = Garden(tmp_path / "garden", THREE)
    made.plant()
    CASES["EXIF orientation 6"].spoil(made)
    check(config=config(made), fix=tmp_path / "mended")
    lying = np.asarray(Image.open(made.mask("train", 1)))
    upright = np.asarray(Image.open(tmp_path / "mended" / "train" / "masks" / "train1.png"))
    np.testing.assert_array_equal(upright, np.rot90(lying, -1))


def test_the_command_ends_well_where_the_copy_has_no_errors_left(tmp_path, capsys):
    made = Garden(tmp_path / "garden", THREE)
    made.plant()
    CASES["a mask of another size"].spoil(made)
    words = ["check", *(f"data.{key}={value}" for key, value in made.config().items() if key != "classes")]
    for more, code in ([], 1), (["--fix", str(tmp_path / "mended")], 0):
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        assert ended.value.code == code
    assert "0 errors left in the copy" in capsys.readouterr().err


def test_errors_that_the_copy_still_has_are_told(tmp_path):
    root = folder.example(tmp_path / "data")
    for kind in ("images", "masks"):
        path = root / "train" / kind / "both.png"
        Image.open(path).resize((70, 40), 0).save(path)
    report = check(root, overrides=["input.size=null"], fix=tmp_path / "mended")
    assert [finding.code for finding in report.left] == ["mixed-batches"]
    assert json.loads(report.json())["left"][0]["code"] == "mixed-batches"
    for name, words in {"a": ["augment.crop=32"], "b": ["train.batch_size=1"]}.items():
        assert check(root, overrides=["input.size=null", *words], fix=tmp_path / name).left == []


def test_a_tree_that_is_not_of_the_copys_classes_is_left_as_an_error(tmp_path):
    """The first check does not come to the tree, for the data have errors."""
    made = Garden(tmp_path / "garden", THREE)
    made.plant()
    CASES["a value that is no class"].spoil(made)
    values = config(made) | {"hierarchy": {"classes": {"background": 0, "plant": {"leaf": 1, "nosuch": 9}}}}
    report = check(config=values, fix=tmp_path / "mended")
    assert [finding.code for finding in report.left] == ["unusable"]
    assert "nosuch" in report.left[0].message


def test_a_copy_says_itself_that_its_masks_are_class_ids(tmp_path):
    """All that is left in them is 0 and 255, ignored: by the values alone they would be black and white."""
    root = tmp_path / "data"
    for split, first in (("train", 0), ("valid", 3)):
        for number in range(first, first + 3):
            mask = np.zeros((32, 32), np.uint8)
            mask[:16] = 7
            write_png(root / split / "masks" / f"{split}{number}.png", mask)
            write_png(root / split / "images" / f"{split}{number}.png", photograph(number)[:32, :32])
    values = {"data": {"name": "folder", "root": str(root), "kind": "index", "classes": ["crack"]}}
    report = check(config=values, fix=tmp_path / "mended")
    assert {"unknown-value"} <= {finding.code for finding in report.findings}
    source = read_source(gather({"data": {"name": "folder", "root": str(tmp_path / "mended")}}))
    assert set(np.unique(source.splits["train"].mask(0))) == {0, 255}


def test_of_copies_across_the_one_that_is_measured_stays(garden, tmp_path):
    CASES["an image copied across"].spoil(garden)
    fixes = check(config=config(garden), fix=tmp_path / "mended").fixes
    assert [(fix.file, fix.code) for fix in fixes] == [("train/images/train0.png", "duplicate-across")]
    assert not (tmp_path / "mended" / "train" / "images" / "train0.png").exists()
    assert (tmp_path / "mended" / "valid" / "images" / "valid2.png").exists()


def test_an_image_in_all_splits_stays_in_the_last_alone(garden, tmp_path):
    for split in ("train", "valid"):
        shutil.copy(garden.image("test", 0), garden.image(split, 0))
    fixes = check(config=config(garden), fix=tmp_path / "mended").fixes
    assert {(fix.file, fix.code) for fix in fixes} == {
        ("train/images/train0.png", "duplicate-across"),
        ("valid/images/valid0.png", "duplicate-across"),
    }


def test_what_is_like_a_copy_of_another_split_is_left_out_too(garden, tmp_path):
    """train5 is train0 mirrored, and train0 equals valid0."""
    shutil.copy(garden.image("train", 0), garden.image("valid", 0))
    Image.open(garden.image("train", 0)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(garden.image("train", 5))
    report = check(config=config(garden), fix=tmp_path / "mended")
    found = {finding.code: finding for finding in report.findings}
    assert set(found["near-duplicate-across"].files) == {"train/images/train5.png", "valid/images/valid0.png"}
    assert {(fix.file, fix.code) for fix in report.fixes} == {
        ("train/images/train0.png", "duplicate-across"),
        ("train/images/train5.png", "near-duplicate-across"),
    }


def test_the_copy_overwrites_nothing_and_leaves_no_half_behind(garden, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError, match="exists"):
        check(config=config(garden), fix=tmp_path / "there")

    def full(*_):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("segwright.verbs.fix.write_text", full)
    with pytest.raises(SegwrightError, match=r"mended could not be written .*no space"):
        check(config=config(garden), fix=tmp_path / "mended")
    with pytest.raises(DataError, match="lies in the data's own folder"):
        check(config=config(garden), fix=garden.root / "mended")
    (tmp_path / "file").touch()
    with pytest.raises(SegwrightError, match="file is a file, where a folder is needed"):
        check(config=config(garden), fix=tmp_path / "file" / "mended")
    (tmp_path / "file").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["garden", "there"]


def test_nothing_left_is_an_error(tmp_path):
    made = Garden(tmp_path / "garden", THREE)
    made.plant()
    for index in range(4):
        made.image("valid", index).write_text("gone")
    with pytest.raises(DataError, match="valid"):
        check(config=config(made), fix=tmp_path / "mended")
