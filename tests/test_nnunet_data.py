"""nnU-Net's raw layout, read and written: labels, ignore, folds, channels, and what nnU-Net itself says of it."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from readers import codes, errors, found, images, masks, same
from segwright.datasets import READERS, folder, nnunet, spark
from segwright.datasets.base import Source
from segwright.datasets.nnunet import Config
from segwright.datasets.nnunet_example import CASES, IGNORE_LABEL, LABELS, label
from segwright.datasets.nnunet_write import write
from segwright.errors import ConfigError, DataError
from segwright.images import read_image
from segwright.png import write_png


@pytest.fixture
def root(tmp_path):
    return nnunet.example(tmp_path / "Dataset901_Eyes")


def scan(root, **options):
    return nnunet.scan(Config(root=str(root), **options))


def edit(root, **changes):
    """Changes keys of dataset.json; None takes one out."""
    path = root / "dataset.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def drawn(case):
    ids = label(case)
    ids[ids == IGNORE_LABEL] = 255
    return ids


def test_labels_are_read_and_the_ignore_label_becomes_255(root):
    source = READERS.build("nnunet", Config(root=str(root)))
    assert list(source.classes) == ["background", "vessel", "disc"]
    expected = {f"train/{case}_0000": drawn(case) for case in CASES["Tr"]}
    same(masks(source), expected | {f"test/{case}_0000": drawn(case) for case in CASES["Ts"]})
    assert not source.findings


def test_a_fold_divides_the_labelled_images(root):
    source = scan(root, fold=0)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 2, "valid": 1, "test": 1}
    assert source.splits["valid"].path(0).name == "eye_001_0000.png"
    assert pickle.loads(pickle.dumps(source.splits["valid"])).annotation(0).name == "eye_001.png"


@pytest.mark.parametrize(
    ("options", "folds", "code"),
    [
        ({"fold": 1}, None, "no-such-fold"),
        ({"fold": 0}, "{}", "not-json"),
        ({"fold": 0}, "[{}]", "not-json"),
        ({"fold": 0}, '[{"train": [["eye_000"]], "val": []}]', "not-json"),
        ({"fold": 0}, '[{"train": ["eye_000", "eye_007"], "val": ["eye_001"]}]', "unknown-case"),
        ({"fold": 0, "splits": "elsewhere.json"}, None, "not-json"),
    ],
)
def test_folds_that_do_not_fit_are_errors(root, options, folds, code):
    if folds is not None:
        (root / "splits_final.json").write_text(folds)
    assert code in errors(scan(root, **options))


def test_cases_outside_the_fold_are_left_out_aloud(root):
    (root / "splits_final.json").write_text('[{"train": ["eye_000"], "val": ["eye_001"]}]')
    assert found(scan(root, fold=0), "not-in-fold").files == ("imagesTr/eye_002_0000.png",)
    with pytest.raises(ConfigError, match="counted from 0"):
        Config(root="x", fold=-1)


def test_three_grey_channels_become_rgb(root):
    for case in CASES["Tr"] + CASES["Ts"]:
        part = "Tr" if case in CASES["Tr"] else "Ts"
        pixels = read_image(root / f"images{part}/{case}_0000.png")
        for channel in range(3):
            write_png(root / f"images{part}/{case}_{channel:04d}.png", pixels[..., channel] // (channel + 1))
    image = scan(root).splits["train"].image(0)
    first = read_image(root / "imagesTr/eye_000_0000.png")[..., 0]
    np.testing.assert_array_equal(image[..., 0], first)
    np.testing.assert_array_equal(image[..., 2], read_image(root / "imagesTr/eye_000_0002.png")[..., 0])
    write_png(root / "imagesTr/eye_000_0001.png", first[1:])
    with pytest.raises(DataError, match="differ in size"):
        scan(root).splits["train"].image(0)


def test_two_channels_cannot_become_rgb(root):
    write_png(root / "imagesTr/eye_000_0001.png", label("eye_000"))
    assert found(scan(root), "channels").files == ("imagesTr/eye_000_0000.png",)


def test_regions_are_refused_by_name(root):
    edit(root, labels={"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=[1, 2])
    with pytest.raises(DataError, match=r"whole: \[1, 2\]"):
        nnunet.build(Config(root=str(root)))


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "vessel": 2},
        {"vessel": 1, "disc": 2},
        {"background": 0, "vessel": 1, "disc": 1},
        {"background": 0, "vessel": 1, "disc": 3, "ignore": 2},
        {"background": 0, "vessel": "1"},
        {"background": 0, "vessel": True},
        {"background": []},
        {},
        ["background", "vessel"],
    ],
)
def test_labels_that_nnunet_would_not_take_are_errors(root, labels):
    edit(root, labels=labels)
    assert "labels" in errors(scan(root))


def test_more_labels_than_a_byte_tells_apart_are_an_error(root):
    edit(root, labels={str(number): number for number in range(255)})
    assert "too-many-labels" in errors(scan(root))


def test_background_and_one_label_are_a_binary_task(root):
    edit(root, labels={"background": 0, "vessel": 1})
    assert list(scan(root).classes) == ["vessel"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"file_ending": ".nii.gz"}, "unknown-ending"),
        ({"dataset": {"eye_000": {"images": [], "label": ""}}}, "listed-files"),
    ],
)
def test_what_is_not_read_here_is_an_error(root, changes, code):
    edit(root, **changes)
    assert code in errors(scan(root))


def test_a_wrong_count_is_a_warning_and_partners_are_named(root):
    (root / "labelsTr/eye_000.png").unlink()
    (root / "imagesTr/eye_001_0000.png").unlink()
    source = scan(root)
    assert found(source, "num-training").level == "warning"
    assert found(source, "missing-mask").files == ("imagesTr/eye_000_0000.png",)
    assert found(source, "missing-image").files == ("labelsTr/eye_001.png",)


def test_test_images_without_labels_are_no_split(root):
    (root / "labelsTs/eye_010.png").unlink()
    assert set(scan(root).splits) == {"train"}
    assert found(scan(root), "test-without-masks").files == ("imagesTs",)


def test_a_broken_description_is_an_error_and_another_folder_is_refused(root):
    (root / "dataset.json").write_text("[")
    assert {"not-json", "labels"} <= errors(scan(root))
    (root / "dataset.json").unlink()
    assert not nnunet.recognises(root)
    with pytest.raises(DataError, match="imagesTr/"):
        scan(root)


def test_the_real_vessels_are_as_the_files_say(real_data):
    real = real_data / "Dataset501_CHASEDB1"
    source = nnunet.build(Config(root=str(real)))
    assert list(source.classes) == ["vessel"]
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 14, "test": 6}
    assert not source.findings
    split = source.splits["train"]
    assert split.image(3).shape == (960, 999, 3)
    assert np.unique(split.mask(3)).tolist() == [0, 1]
    assert 0.05 < split.mask(3).mean() < 0.12  # vessels cover about a twelfth of a fundus


# writing


def rewritten(source: Source, tmp_path, name="Again", number=902, **options) -> Source:
    return scan(write(source, tmp_path / "raw", name, number), **options)


def test_what_is_written_is_read_as_it_was(root, tmp_path):
    source = scan(root, fold=0)
    again = rewritten(source, tmp_path, fold=0)
    assert not again.findings
    assert list(again.classes) == list(source.classes)
    same(masks(again), masks(source))
    same(images(again), images(source))


def test_the_ignore_label_is_written_as_the_highest(root, tmp_path):
    path = write(scan(root), tmp_path, "Again", 902)
    assert path.name == "Dataset902_Again"
    content = json.loads((path / "dataset.json").read_text())
    assert content["labels"] == LABELS
    assert content["numTraining"] == 3
    assert content["file_ending"] == ".png"
    stored = read_image(path / "labelsTr/eye_000.png")[..., 0]
    assert np.unique(stored).tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(stored, label("eye_000"))


def test_without_ignored_pixels_no_label_is_called_ignore(tmp_path):
    source = spark.build(spark.Config(root=str(spark.example(tmp_path / "spark"))))
    path = write(source, tmp_path, "Craft", 7)
    content = json.loads((path / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "spacecraft body": 1, "solar panels": 2}
    assert {file.suffix for file in (path / "imagesTr").iterdir()} == {".png"}
    assert json.loads((path / "splits_final.json").read_text())[0]["val"] == ["image_00003_img"]


def test_a_class_0_that_is_no_background_keeps_its_name(tmp_path):
    source = folder.build(folder.Config(root=str(folder.example(tmp_path / "folder"))))
    assert source.classes[0] != "background"
    path = write(source, tmp_path, "Wall", 8)
    assert json.loads((path / "dataset.json").read_text())["labels"]["background"] == 0
    assert list(scan(path).classes) == list(source.classes)


@pytest.mark.parametrize(("name", "number"), [("", 1), ("a b", 1), ("a/b", 1), ("a", 0), ("a", 1000)])
def test_names_that_nnunet_would_not_find_are_refused(root, tmp_path, name, number):
    with pytest.raises(ConfigError, match="DatasetNNN_Name"):
        write(scan(root), tmp_path, name, number)


@pytest.mark.parametrize("names", [("a", "background"), ("background", "ignore"), ("a", "b", "b")])
def test_class_names_that_nnunet_keeps_for_itself_are_refused(root, tmp_path, names):
    source = scan(root)
    with pytest.raises(ConfigError, match="Rename a class"):
        write(Source(names, source.splits), tmp_path, "Again", 3)


def test_masks_that_do_not_fit_are_refused_by_name(root, tmp_path):
    write_png(root / "labelsTr/eye_001.png", label("eye_001")[:-1])
    with pytest.raises(DataError, match="eye_001_0000"):
        write(scan(root), tmp_path / "one", "Again", 3)
    write_png(root / "labelsTr/eye_001.png", np.full((40, 40), 9, np.uint8))
    with pytest.raises(DataError, match=r"eye_001\.png holds values that stand for no class: 9\."):
        write(scan(root), tmp_path / "two", "Again", 3)


@pytest.mark.slow
@pytest.mark.nnunet
@pytest.mark.usefixtures("nnunet")
def test_nnunet_itself_finds_nothing_wrong(root, tmp_path):
    path = write(scan(root, fold=0), tmp_path, "Again", 902)
    code = (
        "import sys; from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity as v\n"
        "if __name__ == '__main__': v(sys.argv[1], 1)"
    )
    script = tmp_path / "verify.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script), str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "verify_dataset_integrity Done" in done.stdout
    assert "Error" not in done.stdout


def test_no_finding_without_a_code_of_its_own(root):
    (root / "imagesTr/eye_002_0000.png").unlink()
    assert codes(scan(root)) == {"missing-image", "num-training"}


def test_evaluating_test_images_without_labels_says_what_to_do_instead(root):
    from segwright.verbs.evaluate import split_batches

    (root / "labelsTs/eye_010.png").unlink()
    with pytest.raises(DataError, match=r"no split 'test'; there are: train\..*imagesTs: 1 files.*segwright infer"):
        split_batches(None, scan(root), "test")
