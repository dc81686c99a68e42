"""Splits made by us: what belongs together stays together, the same seed gives the same, and it can be done again."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import segwright
from runs import small
from segwright import checkpoint
from segwright.checks.measure import entries, labels, measure
from segwright.datasets import folder
from segwright.datasets.base import Source, Split
from segwright.datasets.folder import Config as FolderConfig
from segwright.datasets.writing import each
from segwright.errors import ConfigError, DataError
from segwright.painting import write_dataset
from segwright.png import write_png
from segwright.splitting import Config, as_json, deal, divided, joined, read_record, record
from segwright.splitting.groups import look
from segwright.verbs.loading import load_model
from segwright.verbs.settings import gather
from segwright.verbs.source import read_source


def scene(seed: int, size: int = 96) -> np.ndarray:
    """A picture with details of its own, (size, size, 3) uint8."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def mask_of(seed: int, size: int = 96) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[: 10 + seed % 40, :30] = 1 + seed % 2
    return mask


@dataclass
class Watched:
    """A split that notes how many of its images and masks are being read at a time."""

    split: Split
    now: int = 0
    most: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.split, name)

    def __len__(self) -> int:
        return len(self.split)

    def _read(self, what: Callable[[int], np.ndarray], index: int) -> np.ndarray:
        self.now += 1
        time.sleep(0.02)  # so that another thread that may go on does
        self.most = max(self.most, self.now)
        self.now -= 1
        return what(index)

    def image(self, index: int) -> np.ndarray:
        return self._read(self.split.image, index)

    def mask(self, index: int) -> np.ndarray:
        return self._read(self.split.mask, index)


def test_large_images_are_read_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("segwright.large.LARGE_PX", 96 * 96 - 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    root = write(tmp_path / "d", {f"{seed}": scene(seed) for seed in range(6)})
    (split,) = folder.scan(FolderConfig(root=str(root))).splits.values()
    dividing, checking, converting = Watched(split), Watched(split), Watched(split)
    assert len(look(dividing, root, with_images=True)) == 6
    assert len(list(measure(entries(Source(["a"], {"train": checking})), labels))) == 6
    assert len(each(converting, converting.image, lambda: None)) == 6
    assert [watched.most for watched in (dividing, checking, converting)] == [1, 1, 1]


def write(root: Path, pictures: dict[str, np.ndarray]) -> Path:
    """A flat data set; masks differ with the names' order."""
    for number, (name, picture) in enumerate(pictures.items()):
        write_png(root / "images" / f"{name}.png", picture)
        write_png(root / "masks" / f"{name}.png", mask_of(number, len(picture)))
    (root / "classes.txt").write_text("ground\nred\nblue\n")
    return root


def with_copies(root: Path) -> Path:
    """24 scenes, and of every third one a darker, cropped copy under a name far from it."""
    pictures = {f"a{number:02d}": scene(number) for number in range(24)}
    for number in range(0, 24, 3):
        copy = Image.fromarray(scene(number)[2:94, 3:95]).resize((96, 96), Image.Resampling.BILINEAR)
        pictures[f"z{number:02d}"] = (np.asarray(copy) * 0.8).astype(np.uint8)
    return write(root, pictures)


def made(root: Path, **config) -> Source:
    return divided(folder.build(FolderConfig(root=str(root))), root, Config(**config))


def sides(source: Source) -> dict[str, list[str]]:
    return {name: [split.path(i).stem for i in range(len(split))] for name, split in source.splits.items()}


def side_of(source: Source) -> dict[str, str]:
    return {stem: name for name, stems in sides(source).items() for stem in stems}


def codes(source: Source) -> dict[str, str]:
    return {finding.code: finding.message for finding in source.findings}


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Path:
    return with_copies(tmp_path_factory.mktemp("copies"))


# what stays together


@pytest.mark.parametrize("seed", range(4))
def test_near_duplicates_never_straddle(copies, seed):
    source = made(copies, seed=seed)
    where = side_of(source)
    assert len(where) == 32
    assert len(source.splits["valid"]) in (5, 6, 7), "a fifth of 32, as nearly as pairs allow"
    assert [number for number in range(0, 24, 3) if where[f"a{number:02d}"] != where[f"z{number:02d}"]] == []
    assert "16 images are in groups that stay together" in codes(source)["split-made"]


def test_without_looking_they_do_straddle(copies):
    """The test above can fail."""
    straddling = 0
    for seed in range(4):
        where = side_of(made(copies, seed=seed, near_duplicates=False))
        straddling += sum(where[f"a{number:02d}"] != where[f"z{number:02d}"] for number in range(0, 24, 3))
    assert straddling > 0


def test_siblings_of_roboflow_stay_together(tmp_path):
    names = [f"photo{n}_jpg.rf.{copy * 7919 + n:08x}" for n in range(10) for copy in range(3)]
    root = write(tmp_path, {name: scene(seed) for seed, name in enumerate(names)})
    where: dict[str, set[str]] = {}
    for name, side in side_of(made(root, near_duplicates=False)).items():
        where.setdefault(name.split("_jpg")[0], set()).add(side)
    assert len(where) == 10
    assert [name for name, found in where.items() if len(found) > 1] == []
    assert {side for found in where.values() for side in found} == {"train", "valid"}


def test_groups_of_a_pattern_stay_together_and_strangers_are_named(tmp_path):
    names = [f"patient{n}_{eye}" for n in range(10) for eye in "LR"] + ["odd"]
    root = write(tmp_path, {name: scene(seed) for seed, name in enumerate(names)})
    source = made(root, group=r"(?P<group>patient\d+)", near_duplicates=False)
    where = side_of(source)
    assert [n for n in range(10) if where[f"patient{n}_L"] != where[f"patient{n}_R"]] == []
    assert "images/odd.png" in codes(source)["no-group"]


def test_data_that_all_belong_together_are_refused_with_a_reason(tmp_path):
    root = write(tmp_path, {f"s_{n}": scene(n) for n in range(4)})
    source = made(root, group="(?P<group>s)_", near_duplicates=False)
    assert "4 images in 1 group" in codes(source)["cannot-split"]
    assert source.splits.keys() == {"train"}
    with pytest.raises(DataError, match="all of them belong together"):
        read_source(gather({"data": {"root": str(root)}, "split": {"group": "(?P<group>s)_"}}))


def test_a_side_that_groups_make_too_large_is_said(tmp_path):
    root = write(tmp_path, {f"{'big' if n < 8 else 'small'}_{n}": scene(n) for n in range(10)})
    source = made(root, group="(?P<group>big|small)", val_fraction=0.5, near_duplicates=False)
    assert "split-uneven" in codes(source)


# how it is dealt


def test_the_order_of_files_does_not_matter(copies, monkeypatch):
    expected = sides(made(copies, seed=3))
    walk = os.walk

    def backwards(*args, **kwargs):
        for parent, folders, names in walk(*args, **kwargs):
            folders.reverse()
            yield parent, folders, sorted(names, reverse=True)

    source = folder.build(FolderConfig(root=str(copies)))
    shuffled = Source(source.classes, {"train": Reversed(source.splits["train"])})
    assert sides(divided(shuffled, copies, Config(seed=3))).keys() == expected.keys()
    again = sides(divided(shuffled, copies, Config(seed=3)))
    assert {name: sorted(stems) for name, stems in again.items()} == {name: sorted(s) for name, s in expected.items()}
    monkeypatch.setattr(os, "walk", backwards)
    assert sides(made(copies, seed=3)) == expected
    assert sides(made(copies, seed=4)) != expected


class Reversed:
    """A split from its end."""

    name = "train"

    def __init__(self, split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getattr__(self, what: str):
        return lambda index: getattr(self.split, what)(len(self.split) - 1 - index)


def test_where_the_data_lie_does_not_matter(copies, tmp_path):
    (tmp_path / "elsewhere").symlink_to(copies)
    assert sides(made(tmp_path / "elsewhere")) == sides(made(copies))


@st.composite
def data_sets(draw):
    sizes = draw(st.lists(st.integers(1, 5), min_size=4, max_size=40))
    count = sum(sizes)
    starts = [0, *np.cumsum(sizes).tolist()]
    classes = draw(st.lists(st.frozensets(st.integers(0, 4)), min_size=count, max_size=count))
    return [list(range(a, b)) for a, b in pairwise(starts)], classes


@given(data_sets(), st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.integers(0, 99), st.randoms())
@settings(max_examples=60, deadline=None)
def test_groups_are_whole_sides_are_near_their_share_and_order_is_no_matter(data, valid, test, seed, random):
    groups, classes = data
    names = [f"{place:03d}" for place in range(len(classes))]
    wanted = {"valid": valid, "test": test}
    dealt = deal(groups, classes, wanted, names, seed)
    assert sorted(place for places in dealt.values() for place in places) == list(range(len(classes)))
    side = {place: name for name, places in dealt.items() for place in places}
    assert all(len({side[place] for place in group}) == 1 for group in groups)
    largest = max(map(len, groups))
    for name in wanted:
        assert 1 <= len(dealt[name]) <= max(wanted[name] * len(classes) + largest, largest)
    shuffled = random.sample(groups, len(groups))
    assert {n: set(p) for n, p in deal(shuffled, classes, wanted, names, seed).items()} == {
        n: set(p) for n, p in dealt.items()
    }


def test_rare_classes_come_to_both_sides():
    """100 images, 10 of them with the rare class 2: two of these belong into a fifth."""
    classes = [frozenset({0, 2}) if place % 10 == 0 else frozenset({0, 1}) for place in range(100)]
    for seed in range(20):
        dealt = deal([[place] for place in range(100)], classes, {"valid": 0.2}, list(map(str, range(100))), seed)
        assert sum(place % 10 == 0 for place in dealt["valid"]) == 2
        assert len(dealt["valid"]) == 20


def test_an_image_that_comes_leaves_the_others_where_they_are():
    names = [f"{place:03d}" for place in range(100)]
    plain = [frozenset({0})] * 101
    before = deal([[place] for place in range(100)], plain[:100], {"valid": 0.2}, names, 0)
    after = deal([[place] for place in range(101)], plain, {"valid": 0.2}, ["!first", *names], 0)
    assert len({place + 1 for place in before["valid"]} ^ set(after["valid"])) <= 2


def test_sets_that_share_a_member_are_joined():
    assert joined(6, [[0, 3], [4, 5], [3, 5]]) == [[0, 3, 4, 5], [1], [2]]


# when it is made


def test_a_given_validation_split_stays(tmp_path):
    folder.example(tmp_path)
    source = folder.build(FolderConfig(root=str(tmp_path)))
    assert divided(source, tmp_path, Config()) is source
    assert record(source, tmp_path) is None


def test_a_test_split_is_made_on_request_and_a_given_one_stays(copies, tmp_path):
    source = made(copies, val_fraction=0.25, test_fraction=0.25)
    assert {name: len(split) for name, split in source.splits.items()} == pytest.approx(
        {"train": 16, "valid": 8, "test": 8}, abs=1
    )
    folder.example(tmp_path)
    (tmp_path / "val").rename(tmp_path / "train2")
    for kind in ("images", "masks"):
        (tmp_path / "train2" / kind / "edge.png").rename(tmp_path / "train" / kind / "edge.png")
    given = made(tmp_path, test_fraction=0.3)
    assert sides(given)["test"] == ["plant"]
    assert {name: len(split) for name, split in given.splits.items()} == {"train": 2, "valid": 1, "test": 1}


def test_no_fraction_makes_none(copies):
    assert made(copies, val_fraction=0).splits.keys() == {"train"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"group": "(x)"}, r"\(\?P<group>"),
        ({"group": "(?P<group>"}, r"must be a regular expression"),
    ],
)
def test_configs_that_cannot_work_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        Config(**config)


# doing it again


def test_a_written_division_is_done_again(copies, tmp_path):
    first = made(copies, seed=5, test_fraction=0.1)
    lists = record(first, copies)
    assert lists is not None
    (tmp_path / "split.json").write_text(as_json(lists, Config(seed=5)))
    assert read_record(tmp_path / "split.json") == lists
    assert sides(made(copies, file=str(tmp_path / "split.json"))) == sides(first)


def test_images_that_came_or_went_are_named(copies, tmp_path):
    lists = record(made(copies), copies)
    assert lists is not None
    moved = lists["valid"].pop()
    lists["train"].append("images/gone.png")
    (tmp_path / "s.json").write_text(json.dumps(lists))
    source = made(copies, file=str(tmp_path / "s.json"))
    assert moved in codes(source)["not-in-split"]
    assert "images/gone.png" in codes(source)["split-missing"]
    assert Path(moved).stem not in side_of(source)


@pytest.mark.parametrize(
    "content", ["no json", "[]", '{"train": [3]}', '{"other": []}', '{"train": ["a"], "valid": ["a"]}']
)
def test_files_that_are_no_division_are_refused(content, tmp_path):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(ConfigError, match=r"s\.json (cannot be used|lists a twice)"):
        read_record(tmp_path / "s.json")


def test_a_division_given_by_hand_may_leave_test_alone(tmp_path):
    folder.example(tmp_path)
    (tmp_path / "s.json").write_text(json.dumps({"train": ["val/images/edge.png"], "valid": ["train/images/both.png"]}))
    source = made(tmp_path, file=str(tmp_path / "s.json"))
    assert sides(source) == {"train": ["edge"], "valid": ["both"], "test": ["plant"]}
    assert "train/images/crack.png" in codes(source)["not-in-split"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> segwright.Run:
    """A run of one epoch on painted cracks that lie in one folder without splits."""
    folder = tmp_path_factory.mktemp("undivided")
    data = write_dataset(folder / "painted", train=10, valid=1, test=1, size=(64, 96), seed=3)
    for name in ("valid", "test"):
        shutil.rmtree(data / name)
    return segwright.train(once(data, folder / "run"))


def once(data: Path, folder: Path, **sections) -> dict:
    return small(data, folder, train={"epochs": 1, "freeze_epochs": 0}, **sections)


def data_of(run: segwright.Run) -> Path:
    return run.folder.parent / "painted"


def lists_of(run: segwright.Run) -> dict[str, list[str]]:
    return read_record(run.folder / "split.json")


@pytest.mark.slow
def test_a_run_writes_its_division(run):
    assert {name: len(names) for name, names in lists_of(run).items()} == {"train": 8, "valid": 2}
    assert json.loads((run.folder / "split.json").read_text())["made"]["val_fraction"] == 0.2
    assert checkpoint.load(run.best)["split"] == lists_of(run)


def test_evaluation_takes_the_runs_division_also_when_an_image_came(run, tmp_path):
    data = shutil.copytree(data_of(run), tmp_path / "moved")
    write_png(data / "train/extra.png", scene(1))
    table = json.loads((data / "train/_annotations.coco.json").read_text())
    table["images"].append({"id": 999, "file_name": "extra.png", "height": 96, "width": 96})
    (data / "train/_annotations.coco.json").write_text(json.dumps(table))
    loaded = load_model(run.best, overrides=[f"data.root={data}"])
    source = read_source(loaded.settings, recorded=loaded.division)
    assert record(source, data) == lists_of(run)
    assert "train/extra.png" in codes(source)["not-in-split"]


def test_evaluation_scores_the_images_that_the_checkpoint_names(run, tmp_path):
    payload = checkpoint.load(run.best)
    payload["split"]["valid"].append(payload["split"]["train"].pop())
    checkpoint.save(tmp_path / "changed.pth", payload)
    metrics = segwright.evaluate(tmp_path / "changed.pth", split="valid", output=tmp_path / "out")
    assert metrics["num_images"] == 3, "the seed's division has two"


def test_evaluation_divides_anew_when_asked(run):
    other = load_model(run.best, overrides=["split.seed=9"])
    assert record(read_source(other.settings, recorded=other.division), data_of(run)) != lists_of(run)


@pytest.mark.slow
def test_going_on_and_another_run_take_the_runs_division(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    values = json.loads((folder / "split.json").read_text())
    train, valid = values["train"], values["valid"]
    train[0], valid[0] = valid[0], train[0]  # another one than the seed's
    (folder / "split.json").write_text(json.dumps(values))
    segwright.train(once(data_of(run), folder), resume_anyway=True)
    assert read_record(folder / "split.json") == {"train": sorted(train), "valid": sorted(valid)}
    again = segwright.train(once(data_of(run), tmp_path / "again", split={"file": str(folder / "split.json")}))
    assert checkpoint.load(again.best)["split"] == {"train": sorted(train), "valid": sorted(valid)}


@pytest.mark.parametrize("move", ["above", "below"])
def test_the_runs_division_holds_from_a_root_above_and_below(run, tmp_path, move):
    """The same images, the root one folder up or down: none that was trained on may come into valid."""
    data = shutil.copytree(data_of(run), tmp_path / "set" / "painted")
    recorded = lists_of(run)
    of_then = {"above": lambda name: f"painted/{name}", "below": lambda name: name.removeprefix("train/")}[move]
    recorded = {label: [of_then(name) for name in names] for label, names in lists_of(run).items()}
    source = read_source(load_model(run.best, overrides=[f"data.root={data}"]).settings, recorded=recorded)
    assert record(source, data) == lists_of(run)


def test_images_that_were_trained_on_are_counted_where_another_division_is_asked_for(run, tmp_path, caplog):
    with caplog.at_level("WARNING", "segwright"):
        segwright.evaluate(run.best, split="valid", output=tmp_path / "own", pictures=False)
        assert "flattered" not in caplog.text
        segwright.evaluate(
            run.best, split="valid", output=tmp_path / "anew", pictures=False, overrides=["split.val_fraction=0.8"]
        )
    assert "The run trained on 6 of the 8 images of 'valid'" in caplog.text


def test_data_of_other_names_are_divided_anew_and_that_is_said(run, tmp_path, caplog):
    data = shutil.copytree(data_of(run), tmp_path / "other")
    table = json.loads((data / "train/_annotations.coco.json").read_text())
    for entry in table["images"]:
        (data / "train" / entry["file_name"]).rename(data / "train" / f"x{entry['file_name']}")
        entry["file_name"] = f"x{entry['file_name']}"
    (data / "train/_annotations.coco.json").write_text(json.dumps(table))
    with caplog.at_level("WARNING", "segwright"):
        segwright.evaluate(
            run.best, split="valid", output=tmp_path / "out", pictures=False, overrides=[f"data.root={data}"]
        )
    assert "they were divided anew" in caplog.text


def test_a_split_file_that_is_not_there_is_said():
    with pytest.raises(ConfigError, match=r"there is no split\.file nix\.json"):
        read_record("nix.json")
