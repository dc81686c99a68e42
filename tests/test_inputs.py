"""What infer is given, and the weights that it is given by a run's folder."""

import logging
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import segwright
from segwright.encoders import create_encoder
from segwright.errors import ConfigError, DataError, SegwrightError, WeightsError
from segwright.verbs.evaluate import evaluate, split_batches
from segwright.verbs.export import export
from segwright.verbs.infer import NotPredicted, infer_one
from segwright.verbs.inputs import find_images
from segwright.verbs.loading import weights_file


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "none does not exist"),
        ("none/*.png", "no image matches the pattern"),
        (
            "above",
            r"itself holds no image, and its subfolders are not searched; .*above/a/b holds 1.*above/\*\*/\*\.png",
        ),
        ("texts", "names no image: it holds none of"),
    ],
)
def test_where_no_image_is_found_it_is_said_why(tmp_path, name, said):
    (tmp_path / "above" / "a" / "b").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "above" / "a" / "b" / "x.png")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "classes.json").touch()
    with pytest.raises(DataError, match=said):
        find_images(tmp_path / name)
    assert find_images(f"{tmp_path}/above/**/*.png")


def test_pictures_of_other_kinds_that_are_passed_over_are_named(tmp_path, caplog):
    for name in ("a.png", "b.gif"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in find_images(tmp_path)] == ["a.png"]
    assert "1 files are passed over" in caplog.text
    assert "taken from folders and patterns: b.gif. Give each alone" in caplog.text
    assert find_images(tmp_path / "b.gif") == [tmp_path / "b.gif"]


def test_what_is_no_image_is_said_to_be_none(tmp_path):
    (tmp_path / "classes.json").write_text("[]")
    loaded = SimpleNamespace(predictor=SimpleNamespace(tree=None))
    with pytest.raises(NotPredicted, match=r"classes\.json is no image that can be read: its content is no") as told:
        infer_one(loaded, tmp_path / "classes.json", tmp_path / "x")
    assert "data set" not in str(told.value)


def test_a_runs_folder_stands_for_its_best_weights(tmp_path, caplog):
    caplog.set_level(logging.INFO, "segwright")
    with pytest.raises(WeightsError, match=r"holds no best\.pth"):
        segwright.load(tmp_path)
    (tmp_path / "best.pth").touch()
    assert weights_file(tmp_path) == tmp_path / "best.pth"
    assert f"weights: {tmp_path / 'best.pth'}" in caplog.text
    for verb in (segwright.load, evaluate, lambda path: export(path, tmp_path / "out")):
        with pytest.raises(WeightsError, match=r"best\.pth cannot be read as weights: it is empty"):
            verb(tmp_path)


def test_a_file_in_the_place_of_what_is_written_is_said_before_anything_is_computed(tmp_path):
    (tmp_path / "out").touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for verb in (
        lambda: evaluate(tmp_path, output=tmp_path / "out"),
        lambda: segwright.infer(tmp_path, tmp_path / "a.png", tmp_path / "out"),
        lambda: export(tmp_path, tmp_path / "out"),
    ):
        with pytest.raises(SegwrightError, match="out is a file, where a folder is needed"):
            verb()


def test_a_split_that_is_not_there_is_said_with_the_word_for_another():
    class Data:
        splits = {"train": [], "valid": []}  # noqa: RUF012
        findings: list = []  # noqa: RUF012

    with pytest.raises(DataError, match=r"there are: train, valid\..* e\.g\. --split valid"):
        split_batches(None, Data, "test")


def test_an_image_of_whole_numbers_is_said_to_need_float_and_normalisation():
    encoder = create_encoder("test_resnet")
    with pytest.raises(ConfigError, match=r"an image of torch\.uint8; it takes float, normalised"):
        encoder(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
