"""Comparing runs: the better first; a difference is called real where it is; only what can be compared is."""

import csv
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import segwright
from segwright.cli import main
from segwright.errors import DataError
from segwright.metrics import scores
from segwright.verbs import compare_pictures
from segwright.verbs.compare import compare
from segwright.verbs.compare_pictures import choose
from segwright.verbs.compare_report import by_class, differences, markdown, overall, verdict

CLASSES = ["clean", "crack, deep"]
RNG = np.random.default_rng(0)
TRUTH = RNG.integers(200, 400, (40, 2))
"""Pixels of each class on each of forty images."""


def counts(missed: np.ndarray) -> np.ndarray:
    """What a run counts that takes so many pixels (40, 2) of each class for the other."""
    return np.stack([TRUTH - missed, missed[:, ::-1], missed], -1)


MISSED = RNG.integers(40, 120, (40, 2))
GOOD, SAME, BAD = counts(MISSED), counts(MISSED + RNG.integers(-8, 9, (40, 2))), counts(MISSED + 4)
"""Four pixels more are a steady difference, small beside that between images; the noise of SAME is none on average."""
IMAGES = [f"test/{number:03d}.png" for number in range(40)]


def run(folder: Path, rows: np.ndarray, *, images=IMAGES, classes=CLASSES, place="evaluation", split="test", **params):
    """A run's folder as training and evaluating leave it."""
    (folder / place).mkdir(parents=True)
    config = {"encoder": {"name": folder.name}, "head": {"name": "segformer"}}
    result = {"epochs": 2, "seconds": 61.5, "peak_memory_mb": 1234}
    (folder / "training_params.json").write_text(
        json.dumps({"config": config, "parameters": 28_455_024, "result": result} | params)
    )
    (folder / "log.csv").write_text("epoch,images_per_s,valid_iou,seconds\n1,10.0,0.2,30\n2,14.0,0.3,30\n")
    metrics = {**scores(rows.sum(0)), "images_per_s": 33.0, "weights": str(folder / "best.pth")}
    (folder / place / f"metrics_{split}.json").write_text(json.dumps(metrics))
    with (folder / place / f"per_image_{split}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "group", "iou", "dice", *(f"{k}:{c}" for c in classes for k in ("tp", "fp", "fn"))])
        writer.writerows([name, "", 0, 0, *row.ravel()] for name, row in zip(images, rows, strict=True))
    return folder


@pytest.fixture
def three(tmp_path):
    return [run(tmp_path / name, rows) for name, rows in (("bad", BAD), ("good", GOOD), ("same", SAME))]


def test_the_best_comes_first_and_a_steady_difference_is_real(three, tmp_path):
    result = compare(three, output=tmp_path / "out", pictures=False)
    assert result.runs[-1].name == "bad"
    assert {one.name: result.iou[one.name][0] for one in result.runs} == pytest.approx(
        {"good": scores(GOOD.sum(0))["iou"], "same": scores(SAME.sum(0))["iou"], "bad": scores(BAD.sum(0))["iou"]}
    )
    real = {frozenset((pair.better, pair.other)): pair.real for pair in result.pairs}
    assert real == {
        frozenset(("good", "bad")): True,
        frozenset(("same", "bad")): True,
        frozenset(("good", "same")): False,
    }
    for pair in result.pairs:
        assert pair.iou.value == pytest.approx(result.iou[pair.better][0] - result.iou[pair.other][0])
        low, high = pair.iou.between
        assert low <= pair.iou.value <= high
    told = verdict(result)
    assert "better than bad, and the difference is real" in told
    assert "40 images cannot tell them apart" in told


def test_the_order_of_images_in_the_files_does_not_matter(tmp_path):
    plain = [run(tmp_path / "a" / name, rows) for name, rows in (("good", GOOD), ("bad", BAD))]
    turned = [plain[0], run(tmp_path / "b/bad", BAD[::-1], images=IMAGES[::-1])]
    first, second = (compare(runs, output=tmp_path / "out", pictures=False) for runs in (plain, turned))
    assert first.pairs == second.pairs
    assert first.iou == second.iou


def test_tables_say_what_a_run_is_and_cost_and_each_class(three, tmp_path):
    result = compare(three, output=tmp_path / "out", pictures=False)
    head, *lines = overall(result)
    of_good = dict(zip(head, next(line for line in lines if line[0] == "good"), strict=True))
    assert of_good["IoU"] == f"{scores(GOOD.sum(0))['iou']:.4f}"
    assert of_good["encoder"] == "good"
    assert of_good["parameters"] == "28,455,024"
    assert (of_good["training images/s"], of_good["evaluation images/s"]) == ("12.0", "33.0")
    assert (of_good["memory MiB"], of_good["time s"]) == ("1,234", "61.5")
    assert "GPU memory MiB" not in head
    assert [line[0] for line in by_class(result)] == ["class", *CLASSES]
    assert len(differences(result)) == 4
    text = (tmp_path / "out/comparison.md").read_text()
    assert text == markdown(result)
    with (tmp_path / "out/comparison_per_class.csv").open(newline="") as file:
        assert list(csv.reader(file)) == by_class(result)
    with (tmp_path / "out/comparison.csv").open(newline="") as file:
        assert list(csv.reader(file)) == overall(result)
    page = (tmp_path / "out/comparison.html").read_text()
    for word in ("crack, deep", "Differences", "data:image/png", "corrected for the number of pairs"):
        assert word in page


def test_other_images_are_refused_and_named(three, tmp_path):
    other = run(tmp_path / "other", GOOD, images=["test/new.png", *IMAGES[1:]])
    with pytest.raises(DataError, match="different images") as caught:
        compare([three[0], other], output=tmp_path / "out")
    assert "1 only by bad (test/000.png)" in str(caught.value)
    assert "1 only by other (test/new.png)" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_other_masks_of_the_same_images_are_refused_and_named(three, tmp_path):
    changed = GOOD.copy()
    changed[7, 0, 2] += 1
    with pytest.raises(DataError, match=r"different masks of 1 images \(test/007\.png\)"):
        compare([three[0], run(tmp_path / "other", changed)], output=tmp_path / "out")


def test_other_classes_are_refused(three, tmp_path):
    with pytest.raises(DataError, match="the classes"):
        compare([three[0], run(tmp_path / "other", GOOD, classes=["a", "b"])], output=tmp_path / "out")


def test_runs_that_cannot_be_compared_say_what_to_do(three, tmp_path):
    with pytest.raises(DataError, match="two or more"):
        compare(three[:1])
    with pytest.raises(DataError, match=r"no run's folder.*training_params"):
        compare([three[0], tmp_path])
    shutil.rmtree(three[1] / "evaluation")
    with pytest.raises(DataError, match=r"segwright evaluate --weights .*good/best\.pth --split test --output"):
        compare(three[:2])


def test_the_split_is_test_unless_not_all_were_evaluated_on_it(three, tmp_path):
    valid = [
        run(tmp_path / "v" / name, GOOD, split="valid", place=place) for name, place in (("x", ""), ("y", "outputs"))
    ]
    assert compare(three, output=tmp_path / "out", pictures=False).split == "test"
    assert compare(valid, output=tmp_path / "out", pictures=False).split == "valid"
    with pytest.raises(DataError, match="has not been evaluated on test"):
        compare([three[0], valid[0]])


def test_an_evaluation_older_than_its_weights_and_a_run_not_finished_are_told(three, tmp_path, caplog):
    (three[0] / "best.pth").write_bytes(b"")
    strange = run(tmp_path / "strange", GOOD)
    metrics = json.loads((strange / "evaluation/metrics_test.json").read_text())
    (strange / "evaluation/metrics_test.json").write_text(json.dumps(metrics | {"weights": str(three[0] / "best.pth")}))
    unfinished = run(tmp_path / "going", GOOD)
    (unfinished / "training_params.json").write_text(json.dumps({"config": {}}))
    with caplog.at_level(logging.WARNING):
        compare([three[0], unfinished, strange], output=tmp_path / "out", pictures=False)
    assert "newer than its evaluation" in caplog.text
    assert "was not finished" in caplog.text
    assert "which is not this run's" in caplog.text


def test_equal_names_are_told_apart_by_their_folders(tmp_path):
    runs = [run(tmp_path / parent / "r", GOOD) for parent in ("a", "b")]
    assert {one.name for one in compare(runs, output=tmp_path / "out", pictures=False).runs} == set(map(str, runs))


def test_a_run_named_twice_is_refused(three, tmp_path):
    (tmp_path / "again").symlink_to(three[0])
    for other in (three[0], tmp_path / "again"):
        with pytest.raises(DataError, match=r"named twice \(.*bad"):
            compare([three[0], three[1], other], output=tmp_path / "out")


def test_five_images_are_too_few_for_a_real_difference(tmp_path):
    runs = [run(tmp_path / name, rows[:5], images=IMAGES[:5]) for name, rows in (("good", GOOD), ("bad", BAD))]
    (pair,) = compare(runs, output=tmp_path / "out", pictures=False).pairs
    assert (pair.better, pair.iou.p, pair.real) == ("good", 1 / 16, False)


def test_one_image_is_compared_without_intervals(tmp_path):
    runs = [run(tmp_path / name, rows[:1], images=IMAGES[:1]) for name, rows in (("good", GOOD), ("bad", BAD))]
    result = compare(runs, output=tmp_path / "out", pictures=False)
    assert (result.pairs[0].iou.p, differences(result)[1][3:]) == (1.0, ["-", "1", "no"])
    assert overall(result)[1][2] == "-"


def test_of_twelve_runs_the_one_that_is_better_is_really_better(tmp_path):
    """66 pairs: a p value of 2,000 draws is at least 2/2001, which times 66 is 0.066."""
    names = [f"bad{number}" for number in range(11)]
    runs = [run(tmp_path / "good", GOOD), *(run(tmp_path / name, BAD) for name in names)]
    result = compare(runs, output=tmp_path / "out", pictures=False)
    assert {pair.other for pair in result.pairs if pair.real} == set(names)


def test_runs_are_compared_over_the_classes_that_the_masks_have(tmp_path):
    """One stray pixel of a class that no mask has would halve a run's mean."""
    classes, nothing = [*CLASSES, "absent"], np.zeros((40, 1, 3), int)
    stray = nothing.copy()
    stray[3, 0, 1] = 1
    runs = [
        run(tmp_path / "good", np.concatenate([GOOD, stray], 1), classes=classes),
        run(tmp_path / "bad", np.concatenate([BAD, nothing], 1), classes=classes),
    ]
    result = compare(runs, output=tmp_path / "out", pictures=False)
    assert [one.name for one in result.runs] == ["good", "bad"]
    assert result.iou["good"][0] == pytest.approx(scores(GOOD.sum(0))["iou"])
    assert overall(result)[1][3] == f"{scores(GOOD.sum(0))['dice']:.4f}"
    assert result.iou["good"][1] == compare_two(tmp_path).iou["good"][1]
    assert result.per_class["absent"]["good"][0] == 0


def compare_two(folder: Path):
    runs = [run(folder / "plain" / name, rows) for name, rows in (("good", GOOD), ("bad", BAD))]
    return compare(runs, output=folder / "out", pictures=False)


def test_masks_that_hold_nothing_are_compared_all_the_same(tmp_path):
    stray = np.zeros((40, 1, 3), int)
    stray[3, 0, 1] = 1
    runs = [
        run(tmp_path / name, rows, classes=["crack"], images=IMAGES) for name, rows in (("a", stray), ("b", stray * 0))
    ]
    result = compare(runs, output=tmp_path / "out", pictures=False)
    assert [(one.name, result.iou[one.name][0]) for one in result.runs] == [("b", 1.0), ("a", 0.0)]
    assert not result.pairs[0].real


def evaluated_with(folder: Path, **values) -> Path:
    path = folder / "evaluation/metrics_test.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"evaluated_with": values}))
    return folder


def test_runs_evaluated_in_different_ways_are_told(three, tmp_path, caplog):
    ways = ({"predict.threshold": 0.4}, {"predict.threshold": 0.7}, {"predict.threshold": 0.4})
    for folder, way in zip(three, ways, strict=True):
        evaluated_with(folder, **way, **{"input.size": [64, 96]})
    with caplog.at_level(logging.WARNING):
        text = markdown(compare(three, output=tmp_path / "out", pictures=False))
    for told in (text, caplog.text, (tmp_path / "out/comparison.html").read_text()):
        assert "0.4 (same, bad)" in told
        assert "predict.threshold 0.7 (good)" in told
        assert "input.size" not in told
    for folder in three:
        evaluated_with(folder, **ways[0])
    assert "different ways" not in markdown(compare(three, output=tmp_path / "out", pictures=False))


def test_pictures_are_drawn_as_the_runs_were_evaluated(finished, tmp_path, monkeypatch):
    """The masks drawn are those that were counted, not those of the config's own threshold, flips and size."""
    asked = {"threshold": "0.7", "overrides": ["predict.flips=true", "input.size=[32, 64]"]}
    runs = [tmp_path / name for name in ("plain", "asked")]
    for folder, way in zip(runs, ({}, asked), strict=True):
        shutil.copytree(finished, folder)
        segwright.evaluate(folder / "best.pth", output=folder / "evaluation", pictures=False, **way)
    used = {}
    monkeypatch.setattr(
        compare_pictures, "predicted", lambda loaded, image: used.setdefault(id(loaded), loaded) and image[..., 0] * 0
    )
    compare_pictures.pictures_of(compare(runs, output=tmp_path / "out", pictures=False))
    ways = {(x.predictor.config.threshold, x.predictor.config.flips, x.settings.input.pixels()) for x in used.values()}
    assert ways == {(0.05, False, (64, 96)), (0.7, True, (32, 64))}


def test_the_images_drawn_are_those_on_which_runs_differ_most_and_then_the_worst_of_all():
    perfect, half = np.array([[10, 0, 0]]), np.array([[5, 0, 5]])
    first = np.stack([perfect] * 7 + [half])
    second = np.stack([half, perfect, half, perfect, half, perfect, half, half])
    assert choose([first, second]) == [0, 2, 4, 6, 7, 1]


@pytest.mark.slow
def test_real_runs_are_compared_with_pictures_of_their_masks(finished, tmp_path, monkeypatch, capsys):
    runs = [tmp_path / "best", tmp_path / "last"]
    for folder in runs:
        shutil.copytree(finished, folder)
        segwright.evaluate(folder / f"{folder.name}.pth", output=folder / "evaluation", pictures=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["compare", "best", "last"])
    assert left.value.code == 0
    assert "3 images of test" in capsys.readouterr().out
    page = (tmp_path / "comparison/comparison.html").read_text()
    assert page.count("data:image/jpeg") == 3


def test_a_page_without_the_data_has_tables_all_the_same(three, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        compare(three, output=tmp_path / "out")
    assert "no pictures of images" in caplog.text
    assert (tmp_path / "out/comparison.html").is_file()
