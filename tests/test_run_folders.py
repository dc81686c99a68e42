"""What --overwrite and --resume keep of a run's folder, and how its times add up."""

import json
import os
import shutil

import pytest
import yaml

import segwright
from runs import ending_at, small
from segwright import checkpoint
from segwright.errors import SegwrightError
from segwright.training import loop
from segwright.verbs.folder import aside, set_aside, settle, warn_of_younger
from segwright.verbs.identity import changed_config
from segwright.verbs.run_files import remove_run
from segwright.verbs.settings import gather

BRIEF = {"train": {"epochs": 1, "freeze_epochs": 0}}


def overwriting(painted, folder, **sections):
    return small(painted, folder, **{**BRIEF, "run": {"output": str(folder), "overwrite": True}, **sections})


def a_run(folder, mark):
    """What is left of a run, and which one it was."""
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(gather({"data": {"root": mark}}).dump()))
    (folder / "train.log").write_text("")
    return folder


def which(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())["data"]["root"]


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("bad image"), KeyboardInterrupt()])
def test_an_overwriting_run_that_fails_before_its_first_checkpoint_gives_the_old_one_back(
    painted, tmp_path, monkeypatch, error
):
    old = a_run(tmp_path / "r", "old")
    (old / "last.pth").write_text("weights")
    seen = []

    def failing(*_):
        seen.append((listing(old), aside(old).is_dir()))
        raise error

    monkeypatch.setattr(loop, "train_step", failing)
    with pytest.raises(type(error)):
        segwright.train(overwriting(painted, old))
    assert listing(tmp_path) == ["r"]
    assert listing(old) == ["config.yaml", "last.pth", "train.log"]
    assert which(old) == "old"
    names, waits = seen[0]
    assert "last.pth" not in names
    assert waits, "the old run was gone before the new one had anything"


@pytest.mark.slow
def test_an_overwriting_run_that_fails_later_keeps_its_own_checkpoint(painted, tmp_path):
    old = a_run(tmp_path / "r", "old")
    with ending_at(4, RuntimeError):  # the first step of the second epoch
        segwright.train(overwriting(painted, old, train={"epochs": 3, "freeze_epochs": 0, "seed": 9}))
    assert checkpoint.load(old / "last.pth")["config"]["train"]["seed"] == 9
    assert listing(tmp_path) == ["r"]


def test_after_a_kill_the_run_that_has_weights_is_kept(tmp_path):
    """Killed before its first checkpoint, the new run is given up; killed after its first epoch, the old one; between
    the two, when a save of the first epoch may be gone on from, neither."""
    folder = a_run(tmp_path / "r", "old")
    set_aside(folder)
    a_run(folder, "new")
    settle(folder)
    assert which(folder) == "old"
    set_aside(folder)
    a_run(folder, "new")
    (folder / "last.pth").write_text("")
    settle(folder)
    assert listing(tmp_path) == ["r", "r.replaced"]
    (folder / "best.pth").write_text("")
    settle(folder)
    assert which(folder) == "new"
    assert listing(tmp_path) == ["r"]


def test_a_second_overwrite_after_a_kill_loses_no_weights(tmp_path):
    folder = a_run(tmp_path / "r", "old")
    set_aside(folder)
    a_run(folder, "killed at once")
    set_aside(folder)
    assert which(aside(folder)) == "old"
    a_run(folder, "killed in its first epoch")
    (folder / "last.pth").write_text("")
    set_aside(folder)
    assert which(aside(folder)) == "old"
    assert not folder.exists()


def test_a_folder_with_more_than_a_run_is_not_moved(tmp_path):
    folder = a_run(tmp_path / "r", "old")
    (folder / "thesis.txt").write_text("x")
    with pytest.raises(SegwrightError, match=r"holds what no run writes \(thesis.txt\)"):
        set_aside(folder)
    assert listing(tmp_path) == ["r"]


def files_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "config", ["my: notes", "just text", "[", "model: {name: segformer_b0}\ndata: {root: x}\ntrain: {epochs: 3}"]
)
def test_a_folder_with_a_runs_names_in_it_is_no_run(tmp_path, config):
    folder = tmp_path / "project"
    (folder / "samples").mkdir(parents=True)
    for name in ("config.yaml", "report.html", "best.pth", "samples/best_1_photo.png"):
        (folder / name).write_text(config)
    before = files_below(folder)
    with pytest.raises(SegwrightError, match=r"holds best.pth, config.yaml, report.html, samples, but no run"):
        set_aside(folder)
    assert listing(tmp_path) == ["project"]
    assert files_below(folder) == before


@pytest.mark.parametrize(
    "mine",
    [
        "samples/photo.jpg",
        "samples/best/best_1_a.png",
        "evaluation/table.csv",
        "tensorboard/notes.txt",
        "last.engine/1/x",
        "wandb/paper.pdf",
        "report.html/a",
    ],
)
def test_a_file_of_mine_in_a_runs_own_folders_stops_overwriting_and_outlives_removing(tmp_path, mine):
    folder = a_run(tmp_path / "r", "old")
    (folder / mine).parent.mkdir(parents=True)
    (folder / mine).write_text("precious")
    before = files_below(folder)
    with pytest.raises(SegwrightError, match=f"holds what no run writes .({mine}|{mine.split('/')[0]})"):
        set_aside(folder)
    assert files_below(folder) == before
    remove_run(folder)
    assert files_below(folder) == {mine: "precious"}


def test_all_that_a_run_and_its_evaluation_write_can_be_replaced(tmp_path):
    folder = a_run(tmp_path / "r", "old")
    for name in (
        "samples/worst_2_a.b-c_d.png",
        "tensorboard/events.out.tfevents.1795831418.vm.12218.0",
        "last.engine/12/part-3.pth",
        "last.engine/12/.part-3.pth.77.tmp",
        "wandb/run-20261128_024426-abc/files/config.yaml",
        "wandb/debug-internal.log",
        "evaluation/per_image_test.csv",
        "evaluation/evaluation_test.html",
        ".last.pth.77.tmp",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "wandb" / "latest-run").symlink_to("run-20261128_024426-abc", target_is_directory=True)
    set_aside(folder)
    remove_run(aside(folder))
    assert listing(tmp_path) == []


@pytest.mark.slow
def test_the_time_of_a_resumed_run_counts_the_epochs_before(finished, painted, tmp_path):
    """Three epochs that are done took 1000 s each by the log; the fourth takes some seconds."""
    short = json.loads((finished / "training_params.json").read_text())["result"]["seconds"]
    folder = shutil.copytree(finished, tmp_path / "r")
    payload = checkpoint.load(folder / "last.pth")
    assert sum(row["seconds"] for row in payload["rows"]) <= short < 500
    payload["rows"] = [row | {"seconds": 1000.0} for row in payload["rows"][:3]]
    checkpoint.save(folder / "last.pth", payload | {"epoch": 3, "best_epoch": 1})
    segwright.train(small(painted, folder), resume=True)
    assert 3000 < json.loads((folder / "training_params.json").read_text())["result"]["seconds"] < 3500


def test_a_run_that_began_before_a_key_was_there_may_go_on_with_its_default(painted, tmp_path):
    settings = gather(small(painted, tmp_path / "r"))
    old = settings.dump()
    del old["lora"], old["train"]["on_nan"]
    assert changed_config(old, settings) == []
    other = gather(small(painted, tmp_path / "r", train={"seed": 6}))
    assert changed_config(old, other) == ["train.seed: 5 -> 6"]


def test_a_younger_run_under_the_next_name_is_pointed_at(tmp_path, caplog):
    """`--output run` with a run there went to run.2: `--resume` with the same words would go on with the old one."""
    for age, name in enumerate(("run.2", "run", "run.3", "run.old", "runner.2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.pth").write_bytes(b"")
        os.utime(tmp_path / name / "last.pth", (1000 + age, 1000 + age))
    warn_of_younger(tmp_path / "run")
    assert f"there is younger: {tmp_path / 'run.3'}." in caplog.text
    caplog.clear()
    warn_of_younger(tmp_path / "run.3")
    assert caplog.text == ""
