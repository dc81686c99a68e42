"""Whether a run that goes on is still the same run; what it keeps where it is not; what it writes down of itself."""

import json
import resource
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import segwright
from runs import ending_at, small
from segwright import checkpoint
from segwright.errors import ConfigError, SegwrightError
from segwright.verbs.identity import FREE, changed_config
from segwright.verbs.settings import gather

pytestmark = pytest.mark.slow


@pytest.fixture
def begun(painted, tmp_path):
    """A copy of the data, and a run over it that was stopped in its second epoch: (data, folder, its config)."""
    data = shutil.copytree(painted, tmp_path / "data")
    config = small(data, tmp_path / "r", train={"epochs": 3, "freeze_epochs": 0, "save_every_steps": 2})
    with ending_at(6):
        segwright.train(config)
    return data, tmp_path / "r", config


def test_data_that_changed_are_named_and_the_run_does_not_go_on_unless_told(begun, caplog):
    data, folder, config = begun
    saved = checkpoint.load(folder / "last.pth")
    assert (saved["epoch"], saved["under_way"]["steps"]) == (1, 2), "save_every_steps=2 saves in mid-epoch"
    picture = sorted((data / "train").glob("*.jpg"))[0]
    with Image.open(picture) as image:
        image.save(picture, quality=30)
    with pytest.raises(ConfigError, match=rf"the images of train: 1 changed \(train/{picture.name}\)"):
        segwright.train(config, resume=True)
    assert (folder / "last.pth").exists()
    run = segwright.train(config, resume_anyway=True)
    assert run.epochs == 3
    assert "going on all the same, though it changed: the images of train" in caplog.text


def test_a_disk_that_is_full_costs_only_what_came_after_the_last_save(begun, caplog):
    """The kernel refuses to write more than 100 kB to a file; a checkpoint is larger, and the records are not."""
    _, folder, config = begun
    before = (folder / "last.pth").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(SegwrightError, match=r"last\.pth could not be written"):
            segwright.train(config, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / "last.pth").read_bytes() == before
    assert not list(folder.glob(".*.tmp"))
    assert segwright.train(config, resume=True).epochs == 3


def test_a_schedule_of_another_kind_and_other_groups_cannot_go_on_even_when_told_to(begun):
    _, folder, config = begun
    before = (folder / "last.pth").read_bytes()
    for other, said in (
        ({"schedule": {"name": "cosine"}}, "a schedule of another kind"),
        ({"optim": {**config["optim"], "no_decay": True}}, "the optimizer's state does not fit"),
    ):
        with pytest.raises(ConfigError, match=said):
            segwright.train({**config, **other}, resume_anyway=True)
    assert (folder / "last.pth").read_bytes() == before


def test_keys_that_may_change_do_and_others_do_not(painted, tmp_path):
    """Longer with a schedule that does not look at the end; not with one that does."""
    before = small(painted, tmp_path / "r", input={"preload": "ram"})
    old = gather(before).dump()

    def changes(**sections):
        merged = {key: {**before.get(key, {}), **sections.get(key, {})} for key in before.keys() | sections.keys()}
        return [change.split(":")[0] for change in changed_config(old, gather(merged))]

    assert changes(train={"epochs": 9, "early_stopping": 3, "device": "cpu", "on_nan": "skip"}) == []
    assert changes(input={"workers": 2, "preload": "disk", "cache": "elsewhere"}, run={"check": False}) == []
    assert changes(input={"preload": None}) == ["input.preload"]
    assert changes(train={"batch_size": 3, "ema": 0.9}, optim={"lr": 0.5}) == [
        "optim.lr",
        "train.batch_size",
        "train.ema",
    ]
    assert changes(loss={"name": "bce_dice"}) == [], "the run chose it when it knew the classes"
    before["schedule"], old = {"name": "cosine"}, gather({**before, "schedule": {"name": "cosine"}}).dump()
    assert changes(train={"epochs": 9}) == ["train.epochs"]
    known = {f"{section}.{key}" for section, values in old.items() for key in values} | {"run.*"}
    assert set(FREE) <= known


def test_another_number_of_images_a_step_is_another_run(begun):
    config = begun[2]
    with pytest.raises(ConfigError, match="the images a step takes: 2 -> 4"):
        segwright.train({**config, "train": {**config["train"], "accumulate": 2}}, resume=True)


def test_the_docs_have_the_table_of_what_may_change():
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    for key, why in FREE.items():
        assert f"| `{key}` | {why} |" in page


def test_a_missing_tracker_names_the_command_that_installs_it(painted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SegwrightError, match="pip install wandb"):
        segwright.train(small(painted, tmp_path / "r", run={"tracker": "wandb"}))
    assert not (tmp_path / "r").exists()


def test_parameters_tell_data_steps_and_what_it_took(finished):
    params = json.loads((finished / "training_params.json").read_text())
    assert params["data"]["train"]["images"] == 6
    assert len(params["data"]["train"]["hash"]) == 20
    assert (params["seed"], params["processes"], params["distributed"], params["precision"]) == (5, 1, "none", "no")
    assert (params["images_per_step"], params["steps_per_epoch"]) == (2, 3)
    assert params["weights"] == {"origin": "random", "licence": None}
    assert {"git", "packages", "gpus", "cores", "host"} <= params["environment"].keys()
    taken = params["result"]
    assert taken["images_per_s"] > 0
    assert taken["peak_memory_mb"] > 50
    assert 0 < taken["training_seconds"] <= taken["seconds"]
    assert ("peak_gpu_memory_mb" in taken) == torch.cuda.is_available()
    files = json.loads((finished / "data.json").read_text())["splits"]
    assert [len(files[split]) for split in ("train", "valid")] == [6, 3]
