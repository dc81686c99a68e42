"""Data that number the model's classes otherwise are scored by name; where names cannot tell, that is an error."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segwright
from runs import small
from segwright.errors import WeightsError
from segwright.png import write_png

NAMES = ("ground", "red", "blue")


def write(root: Path, names: tuple[str, ...]) -> Path:
    """Four pictures a split, whose masks number the classes in the order of `names`."""
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(4):
            truth = np.zeros((64, 96), np.uint8)
            truth[8 * number : 40, :50] = 1
            truth[30:, 60:] = 2
            picture = random.integers(0, 40, (64, 96, 3)) + np.array([[0, 0, 0], [200, 0, 0], [0, 0, 200]])[truth]
            ids = np.array(
                [names.index(name) if name in names else place for place, name in enumerate(NAMES)], np.uint8
            )
            write_png(root / split / "images" / f"{number}.png", picture.astype(np.uint8))
            write_png(root / split / "masks" / f"{number}.png", np.array(ids, np.uint8)[truth])
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> segwright.Run:
    folder = tmp_path_factory.mktemp("order")
    sections = {"train": {"epochs": 6, "freeze_epochs": 0}, "predict": {}}
    config = small(write(folder / "data", NAMES), folder / "run", **sections) | {"loss": {"name": "ce_dice"}}
    return segwright.train(config | {"data": {"name": "folder", "root": str(folder / "data")}, "predict": {}})


def scored(run: segwright.Run, data: Path, folder: Path) -> dict:
    return segwright.evaluate(run.best, output=folder, pictures=False, overrides=[f"data.root={data}"])


def test_scores_are_by_name_where_the_order_differs(run: segwright.Run, tmp_path: Path) -> None:
    own = scored(run, run.folder.parent / "data", tmp_path / "own")
    assert own["iou"] > 0.2, "a model that finds nothing would compare zeros"
    other = scored(run, write(tmp_path / "data", ("ground", "blue", "red")), tmp_path / "other")
    assert np.unique(np.asarray(Image.open(tmp_path / "data/test/masks/0.png"))).tolist() == [0, 1, 2]
    assert other["per_class"] == own["per_class"]
    assert other["iou"] == own["iou"]


def test_names_that_are_partly_others_at_other_places_are_refused(run: segwright.Run, tmp_path: Path) -> None:
    data = write(tmp_path / "data", ("red", "ground", "sky"))
    with pytest.raises(WeightsError, match="'ground' is number 0 there and number 1 here"):
        scored(run, data, tmp_path / "out")


def test_new_names_at_the_same_places_are_taken_by_their_order(
    run: segwright.Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write(tmp_path / "data", NAMES)
    (data / "classes.txt").write_text("ground\nred\nsea\n")
    assert scored(run, data, tmp_path / "out")["iou"] == scored(run, run.folder.parent / "data", tmp_path / "o")["iou"]
    assert "they are compared by their order" in caplog.text


def test_masks_of_several_classes_come_with_what_their_values_mean(run: segwright.Run, tmp_path: Path) -> None:
    photo = run.folder.parent / "data/test/images/1.png"
    segwright.infer(run.best, photo, tmp_path)
    said = json.loads((tmp_path / "mask_classes.json").read_text())["mask"]
    assert [(entry["id"], entry["name"]) for entry in said] == list(enumerate(NAMES))
    mask = Image.open(tmp_path / "1_mask.png")
    palette = np.array(mask.getpalette()).reshape(-1, 3)
    assert [entry["color"] for entry in said] == palette[:3].tolist()
