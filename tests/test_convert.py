"""Converting: every reader to every layout, the same masks and classes; whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO
from typer.testing import CliRunner

from readers import images, masks, same
from segwright.cli import app
from segwright.datasets import READERS
from segwright.datasets.base import Source
from segwright.errors import ConfigError, DataError, SegwrightError
from segwright.images import read_image
from segwright.png import write_png
from segwright.verbs import convert as module
from segwright.verbs.convert import WRITERS, Converted, convert
from segwright.verbs.settings import gather
from segwright.verbs.source import read_source

PLACES = {"folder": "new", "coco": "new", "nnunet": "Dataset042_New"}
OPTIONS = {"coco": ["data.classes=all"], "nnunet": ["data.fold=0"]}
"""With what a reader's example is read beside its root."""


def read(root: Path, reader: str, overrides=()) -> Source:
    values = {"data": {"name": reader, "root": str(root)}, "split": {"val_fraction": 0}}
    return read_source(gather(values, overrides=overrides))


def reread(done: Converted) -> Source:
    return read_source(gather(yaml.safe_load(done.yaml()) | {"split": {"val_fraction": 0}}))


def stems(samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """nnU-Net's file names have a channel number behind the name."""
    return {key.removesuffix("_0000"): value for key, value in samples.items()}


def contents(source: Source) -> list[bytes]:
    """The training images with their masks, whatever they are called."""
    split = source.splits["train"]
    return sorted(split.image(index).tobytes() + split.mask(index).tobytes() for index in range(len(split)))


def equal(again: Source, source: Source) -> None:
    assert list(again.classes) == list(source.classes)
    same(stems(masks(again)), stems(masks(source)))
    same(stems(images(again)), stems(images(source)))


@pytest.mark.parametrize("to", WRITERS)
@pytest.mark.parametrize("reader", READERS)
def test_every_readers_example_keeps_its_masks_classes_and_images(reader, to, tmp_path):
    root = READERS[reader].example(tmp_path / "data")
    source = read(root, reader, OPTIONS.get(reader, ()))
    done = convert(root, tmp_path / PLACES[to], to, reader=reader, overrides=OPTIONS.get(reader, ()))
    assert done.images == len(masks(source)) > 0
    again = reread(done)
    equal(again, source)
    assert not [finding for finding in again.findings if finding.level == "error"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("to", WRITERS)
def test_a_binary_task_stays_one(to, tmp_path):
    root = READERS["coco"].example(tmp_path / "data")
    done = convert(root, tmp_path / PLACES[to], to, reader="coco")
    again = reread(done)
    assert list(again.classes) == ["crack"]
    equal(again, read(root, "coco"))


@pytest.mark.parametrize("to", WRITERS)
def test_there_and_back_is_the_same(to, tmp_path):
    root = READERS["folder"].example(tmp_path / "data")
    there = convert(root, tmp_path / PLACES[to], to, reader="folder")
    back = convert(there.folder, tmp_path / "back", "folder", config={"data": there.data})
    equal(reread(back), read(root, "folder"))


@pytest.mark.slow
@pytest.mark.parametrize("to", WRITERS)
@pytest.mark.parametrize("name", ["Dataset501_CHASEDB1", "magnetic_tile"])
def test_real_sets_keep_their_masks(name, to, real_data, tmp_path):
    """A few images of each: a copy that links to them."""
    root = tmp_path / name
    chosen = [path for path in sorted((real_data / name).rglob("*")) if path.is_file()]
    for path in chosen:
        number = path.stem.removesuffix("_0000")[-2:]
        if path.suffix == ".json" or (path.suffix != ".md" and number in ("03", "20", "21")):
            target = root / path.relative_to(real_data / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    reader = "nnunet" if name.startswith("Dataset") else "folder"
    source = read(root, reader)
    assert masks(source)
    equal(reread(convert(root, tmp_path / PLACES[to], to, reader=reader)), source)


@pytest.mark.parametrize("names", [["background", "ignore", "crack"], ["ignore", "a", "b"], ["background"], ["ignore"]])
def test_classes_called_as_coco_calls_what_is_no_class_stay_classes(names, tmp_path):
    values = np.arange(max(len(names), 2), dtype=np.uint8)
    for number in range(2):
        write_png(tmp_path / f"data/images/{number}.png", np.zeros((2, len(values), 3), np.uint8) + number)
        write_png(tmp_path / f"data/masks/{number}.png", np.stack([values, values]))
    (tmp_path / "data/classes.json").write_text(json.dumps(names))
    source = read(tmp_path / "data", "folder")
    assert list(source.classes) == names
    equal(reread(convert(tmp_path / "data", tmp_path / "new", "coco", reader="folder")), source)


def test_pycocotools_paints_what_was_written(tmp_path):
    """Read by pycocotools alone: each category's pixels are those of the class."""
    root = READERS["folder"].example(tmp_path / "data")
    source = read(root, "folder")
    done = convert(root, tmp_path / "new", "coco", reader="folder")
    seen = set()
    for name, split in source.splits.items():
        reference = COCO(done.folder / name / "_annotations.coco.json")
        names = {entry["id"]: entry["name"] for entry in reference.dataset["categories"]}
        for index in range(len(split)):
            painted = np.full(split.mask(index).shape, 99, np.uint8)
            for entry in reference.imgToAnns[index]:
                mask = reference.annToMask(entry) == 1
                assert (painted[mask] == 99).all(), "annotations of one image never overlap"
                label = names[entry["category_id"]]
                painted[mask] = 255 if label == "ignore" else source.classes.index(label)
                assert entry["area"] == mask.sum()
                left, top, width, height = entry["bbox"]
                assert (left, top) == (np.nonzero(mask.any(0))[0][0], np.nonzero(mask.any(1))[0][0])
                assert (left + width, top + height) == (
                    np.nonzero(mask.any(0))[0][-1] + 1,
                    np.nonzero(mask.any(1))[0][-1] + 1,
                )
            np.testing.assert_array_equal(painted, split.mask(index))
            seen |= set(np.unique(painted).tolist())
    assert seen == {0, 1, 2, 255}


def test_jpeg_images_are_copied_byte_by_byte_except_for_nnunet(tmp_path):
    root = READERS["spark"].example(tmp_path / "data")
    original = root / "images/VenusExpress/train/image_00000_img.jpg"
    convert(root, tmp_path / "new", "folder", reader="spark")
    assert (tmp_path / "new/train/images/image_00000_img.jpg").read_bytes() == original.read_bytes()
    convert(root, tmp_path / "Dataset001_Craft", "nnunet", reader="spark")
    written = tmp_path / "Dataset001_Craft/imagesTr/image_00000_img_0000.png"
    np.testing.assert_array_equal(read_image(written), read_image(original))


def test_images_of_three_files_become_one(tmp_path):
    root = READERS["nnunet"].example(tmp_path / "data")
    for path in list((root / "imagesTr").iterdir()) + list((root / "imagesTs").iterdir()):
        pixels = read_image(path)
        for channel in range(3):
            write_png(
                path.with_name(path.name.replace("_0000.", f"_{channel:04d}.")), pixels[..., channel] // (channel + 1)
            )
    source = read(root, "nnunet")
    equal(reread(convert(root, tmp_path / "new", "folder", reader="nnunet")), source)


def test_equal_names_in_different_places_stay_apart(tmp_path):
    root = READERS["spark"].example(tmp_path / "data")
    for kind, suffix in (("images", "img"), ("mask", "layer")):
        folder = root / kind / "Soho/train"
        folder.mkdir(parents=True)
        first = root / kind / f"VenusExpress/train/image_00000_{suffix}.jpg"
        (folder / first.name).write_bytes(first.read_bytes())
    source = read(root, "spark")
    for to in WRITERS:
        again = reread(convert(root, tmp_path / PLACES[to].replace("new", to), to, reader="spark"))
        assert {name: len(split) for name, split in again.splits.items()} == {"train": 4, "valid": 1}
        assert contents(again) == contents(source)


def test_classes_and_splits_are_those_of_the_config(tmp_path):
    root = READERS["spark"].example(tmp_path / "data")
    overrides = ["classes.merge={craft: [spacecraft body, solar panels]}", "classes.binary=true"]
    done = convert(root, tmp_path / "new", "folder", reader="spark", overrides=overrides)
    again = reread(done)
    assert list(again.classes) == ["craft"]
    assert set(np.unique(again.splits["train"].mask(0)).tolist()) == {0, 1}


def test_a_test_set_without_masks_is_told_and_left_out(tmp_path):
    root = READERS["spark"].example(tmp_path / "data")
    assert set(reread(convert(root, tmp_path / "new", "folder", reader="spark")).splits) == {"train", "valid"}


def test_the_reader_is_found_by_the_folders_look(tmp_path):
    for reader in READERS:
        root = READERS[reader].example(tmp_path / reader)
        done = convert(root, tmp_path / f"{reader}_new", "folder")
        assert done.images == sum(map(len, read(root, reader).splits.values()))


# what is refused


def test_an_existing_output_is_not_touched(tmp_path):
    root = READERS["folder"].example(tmp_path / "data")
    (tmp_path / "new").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        convert(root, tmp_path / "new", "coco", reader="folder")
    assert not list((tmp_path / "new").iterdir())


def test_two_data_sets_of_nnunet_get_no_common_number(tmp_path):
    root = READERS["folder"].example(tmp_path / "data")
    convert(root, tmp_path / "Dataset701_A", "nnunet", reader="folder")
    with pytest.raises(ConfigError, match="holds Dataset701_A already"):
        convert(root, tmp_path / "Dataset701_B", "nnunet", reader="folder")
    convert(root, tmp_path / "Dataset702_B", "nnunet", reader="folder")
    convert(root, tmp_path / "Dataset701_B", "coco", reader="folder")


def test_a_mask_that_does_not_fit_leaves_nothing_behind(tmp_path):
    root = READERS["nnunet"].example(tmp_path / "data")
    write_png(root / "labelsTr/eye_002.png", np.zeros((3, 3), np.uint8))
    for to in WRITERS:
        with pytest.raises(DataError, match="eye_002"):
            convert(root, tmp_path / PLACES[to], to, reader="nnunet")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    root = READERS["folder"].example(tmp_path / "data")

    def full(source, folder, advance):
        (folder / "train").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(module.WRITERS, "folder", full)
    with pytest.raises(SegwrightError, match="No space left"):
        convert(root, tmp_path / "new", "folder", reader="folder")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("output", "to", "said"),
    [
        ("new", "cocoa", "Did you mean 'coco'"),
        ("new", "nnunet", "Dataset501_new"),
        ("Dataset000_A", "nnunet", "1 to 999"),
    ],
)
def test_what_cannot_be_written_is_refused(output, to, said, tmp_path):
    root = READERS["folder"].example(tmp_path / "data")
    with pytest.raises(ConfigError, match=said):
        convert(root, tmp_path / output, to, reader="folder")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_command_writes_and_prints_the_config_that_reads_it(tmp_path):
    root = READERS["folder"].example(tmp_path / "data")
    words = ["convert", str(root), "--from", "folder", "--to", "coco", "--output", str(tmp_path / "new")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    printed = yaml.safe_load(done.output[done.output.index("data:\n") :])
    equal(read_source(gather(printed | {"split": {"val_fraction": 0}})), read(root, "folder"))
    assert json.loads((tmp_path / "new/train/_annotations.coco.json").read_text())["categories"]
