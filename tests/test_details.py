"""What an evaluation writes beside its numbers: each image, each group, the confusion matrix, the page."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import segwright
from segwright.data import Config as InputConfig
from segwright.data import preloaded
from segwright.datasets import folder, spark
from segwright.datasets.base import IGNORE, Source, group_of
from segwright.datasets.mapping import Config as ClassesConfig
from segwright.datasets.mapping import mapped
from segwright.drawing.confusion import confusion_png
from segwright.errors import DataError
from segwright.hierarchy import read as read_tree
from segwright.metrics import Counts, scores
from segwright.splitting import Config as SplitConfig
from segwright.splitting import divided
from segwright.verbs import details
from segwright.verbs.infer import network_logits
from segwright.verbs.loading import load_model
from segwright.verbs.pictures import split_metrics
from segwright.verbs.scoring import Tally
from segwright.verbs.tree_scores import TreeTally

TINY = {
    "encoder": {"name": "test_resnet", "pretrained": False},
    "head": {"width": 8},
    "input": {"size": 64},
    "train": {"epochs": 1, "batch_size": 2, "amp": False},
}


@pytest.fixture(scope="module")
def crafts(tmp_path_factory) -> Path:
    """SPARK's smallest data set, with two crafts on its validation side."""
    root = spark.example(tmp_path_factory.mktemp("spark") / "data")
    for kind, suffix in (("images", "img"), ("mask", "layer")):
        there = root / kind / "VenusExpress"
        (there / "val").mkdir()
        (there / f"train/image_00001_{suffix}.jpg").rename(there / f"val/image_00001_{suffix}.jpg")
    return root


@pytest.fixture(scope="module")
def evaluated(crafts, tmp_path_factory) -> Path:
    """The folder of a run on it, evaluated."""
    run = tmp_path_factory.mktemp("run") / "r"
    segwright.train({**TINY, "data": {"name": "spark", "root": str(crafts)}, "run": {"output": str(run)}})
    segwright.evaluate(run / "best.pth", split="valid", output=run / "evaluation")
    return run


def read(run: Path) -> dict:
    return json.loads((run / "evaluation/metrics_valid.json").read_text())


@pytest.mark.slow
def test_each_craft_has_scores_which_are_those_of_its_images_alone(evaluated):
    names, classes, counts = details.read_counts(evaluated / "evaluation/per_image_valid.csv")
    assert names == [
        "images/VenusExpress/val/image_00001_img.jpg",
        "images/XMM Newton/val/image_00003_img.jpg",
    ]
    groups = read(evaluated)["per_group"]
    assert list(groups) == ["VenusExpress", "XMM Newton"]
    for row, values in zip(counts, groups.values(), strict=True):
        assert values["num_images"] == 1
        assert {key: values[key] for key in ("iou", "dice", "precision", "recall")} == scores(row)
    assert read(evaluated)["iou"] == scores(counts.sum(0))["iou"]
    assert len(classes) == 3


def test_the_confusion_matrix_is_that_of_the_masks_that_infer_would_write(evaluated, crafts):
    loaded = load_model(evaluated / "best.pth")
    split = spark.build(loaded.settings.data.config).splits["valid"]
    matrix = np.zeros((3, 3), int)
    for index in range(len(split)):
        image, truth = split.image(index), split.mask(index)
        found = loaded.predictor.ids(network_logits(loaded, image), truth.shape)
        np.add.at(matrix, (truth.ravel(), found.ravel()), 1)
    with (evaluated / "evaluation/confusion_valid.csv").open() as file:
        head, *lines = csv.reader(file)
    assert head == ["true class", *loaded.classes]
    np.testing.assert_array_equal(np.array([line[1:] for line in lines], int), matrix)
    assert (evaluated / "evaluation/confusion_valid.png").read_bytes().startswith(b"\x89PNG")


def test_scores_lie_in_intervals_and_the_page_shows_both_and_the_worst_images(evaluated):
    metrics = read(evaluated)
    low, high = metrics["ci95"]["iou"]
    assert low <= metrics["iou"] <= high
    assert set(metrics["ci95"]["per_class_iou"]) == set(metrics["per_class"])
    page = (evaluated / "evaluation/evaluation_valid.html").read_text()
    for text in ("Worst samples", "image_00001_img.jpg", "XMM Newton", "solar panels", f"{low:.4g} to {high:.4g}"):
        assert text in page


def test_without_pictures_there_is_no_page(evaluated, tmp_path):
    segwright.evaluate(evaluated / "best.pth", split="valid", output=tmp_path, pictures=False)
    assert {path.name for path in tmp_path.iterdir()} == {
        "metrics_valid.json",
        "per_image_valid.csv",
        "confusion_valid.csv",
    }


def test_the_confusion_matrix_counts_no_ignored_pixel():
    counts = Counts(2)
    counts.add(np.array([[0, 1, 1]]), np.array([[0, 0, IGNORE]]))
    counts.add(np.array([[1, 1, 0]]), np.array([[1, 1, 1]]))
    np.testing.assert_array_equal(counts.confusion, [[1, 1], [1, 2]])


def test_a_binary_task_has_intervals_and_a_matrix_of_two(finished, tmp_path):
    metrics = segwright.evaluate(finished / "best.pth", output=tmp_path)
    low, high = metrics["ci95"]["iou"]
    assert low <= metrics["iou"] <= high
    assert (tmp_path / "confusion_test.csv").read_text().splitlines()[0] == "true class,other,crack"
    assert "per_group" not in metrics


def test_only_single_scores_are_shown_with_their_intervals(evaluated):
    metrics = read(evaluated)
    shown = details.with_intervals(metrics)
    assert shown["iou"] == (metrics["iou"], *metrics["ci95"]["iou"])
    assert shown["precision"] == metrics["precision"]
    assert not shown.keys() & {"ci95", "evaluated_with", "per_class", "per_group", "weights", "num_images"}


def test_a_sample_keeps_its_group_through_class_mapping_division_and_preloading(crafts, tmp_path):
    source = spark.build(spark.Config(root=str(crafts)))
    named = mapped(source, ClassesConfig(merge={"craft": ["spacecraft body", "solar panels"]}))
    again = divided(Source(named.classes, {"train": named.splits["train"]}), crafts, SplitConfig(near_duplicates=False))
    for one in (source, named, again):
        for split in one.splits.values():
            for index in range(len(split)):
                assert group_of(split, index) in split.path(index).parts
    config = InputConfig(size=32, preload="disk", cache=str(tmp_path))
    block = preloaded(config, named.splits["train"], {})
    assert group_of(block, 0) == "VenusExpress"


ABSENT = dict.fromkeys(("iou", "dice", "precision", "recall"))


def test_a_class_that_is_nowhere_has_no_scores_of_its_own(tmp_path):
    source = folder.build(folder.Config(root=str(folder.example(tmp_path / "f"))))
    tally = Tally(3, thorough=True)
    tally.counts.add(np.array([[0, 1]]), np.array([[0, 0]]))
    metrics = details.summarise(tally, source.splits["train"], ["a", "b", "c"], None)
    assert metrics["per_class"]["c"] == ABSENT
    assert metrics["per_class"]["b"]["iou"] == 0
    named = replace(source, classes=["a", "b", "c"])
    assert split_metrics(tally, named)["per class"]["c"] == ABSENT


def test_a_class_of_an_upper_level_that_is_nowhere_has_no_scores_of_its_own():
    tally = TreeTally(read_tree({"x": {"a": 0, "b": 1}, "y": {"c": 2, "d": 3}}, ["a", "b", "c", "d"]))
    levels = np.array([[[0, 0]], [[0, 1]]])
    tally.add(levels, levels, np.array([[0, 1]]))
    (level,) = tally.per_level().values()
    assert (level["per_class"]["x"]["iou"], level["per_class"]["y"]) == (1.0, ABSENT)


def test_readers_without_groups_have_none(tmp_path):
    source = folder.build(folder.Config(root=str(folder.example(tmp_path / "f"))))
    assert group_of(source.splits["train"], 0) == ""


def test_a_table_that_is_none_is_told_with_what_makes_it(tmp_path):
    (tmp_path / "per_image_test.csv").write_text("image,iou\na.png,0.5\n")
    with pytest.raises(DataError, match="segwright evaluate"):
        details.read_counts(tmp_path / "per_image_test.csv")


def test_a_matrix_with_an_absent_class_and_many_classes_is_drawn():
    for size in (2, 21):
        pixels = np.arange(size * size).reshape(size, size)
        pixels[1] = 0
        assert confusion_png(pixels, [f"class {i}" for i in range(size)]).startswith(b"\x89PNG")
