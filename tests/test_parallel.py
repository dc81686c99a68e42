"""Several processes on one machine by Gloo: the same weights as one, a death that costs nothing, liars found out."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import segwright
from conftest import absent
from runs import read_csv, small, weights_of
from segwright.painting import write_dataset
from slurm_cluster import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.alone]

DRIVER = Path(__file__).with_name("parallel_driver.py")
REPO = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
LAUNCHER_WORDS = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "SLURM_", "ACCELERATE_", "TORCHELASTIC")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHER_WORDS)}
    return kept | {"OMP_NUM_THREADS": "1"} | more


def run(*command: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    words = [str(word) for word in command]
    return subprocess.run(words, env=environment(**variables), capture_output=True, text=True, timeout=600)


def torchrun(*command: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Two processes."""
    words = ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_ports(1)[0]}")
    return run(sys.executable, *words, *command, **variables)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return painted_for_two(tmp_path_factory.mktemp("parallel"))


def painted_for_two(folder: Path) -> Path:
    return write_dataset(folder / "data", train=8, valid=3, test=3, size=(64, 96), seed=3)


def config(data: Path, folder: Path, kind: str, processes: int, **sections) -> Path:
    """Ten epochs of two steps of four images, the encoder frozen in the first. No crop reaches beyond its image and no
    Dice is taken, so that the mean over the processes is the mean over the images."""
    folder.mkdir(parents=True)
    train = {"epochs": 10, "batch_size": 4 // processes, "freeze_epochs": 1, "amp": False, "distributed": kind}
    base = {
        "train": train | {"seed": 5, "processes": processes} | sections.pop("train", {}),
        "augment": {"scale": [1.0, 1.0]},
        "loss": {"dice_weight": 0.0},
        "schedule": {"name": "onecycle"},
        "test": {"still": True},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(small(data, folder / "run", **base | sections)))
    return path


def by_one(data: Path, folder: Path) -> Path:
    """The run of one process."""
    path = config(data, folder / "x", "none", 1)
    done = run(sys.executable, DRIVER, path)
    assert done.returncode == 0, done.stderr
    return path.parent / "run"


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> Path:
    return by_one(data, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def shared(data, tmp_path_factory) -> dict[str, Path]:
    """Runs of two processes, by kind; made when they are asked for."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        needs_deepspeed(kind)
        if kind not in made:
            path = config(data, tmp_path_factory.mktemp(kind) / "x", kind, 2)
            done = torchrun(DRIVER, path)
            assert done.returncode == 0, done.stderr
            made[kind] = path.parent / "run"
        return made[kind]

    return make


def needs_deepspeed(kind: str) -> None:
    if kind.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        absent("deepspeed is not installed; pip install 'segwright[deepspeed]'")


def difference(one: Path, other: Path, name: str = "last.pth") -> float:
    """The largest of any weight or statistic."""
    a, b = weights_of(one, name), weights_of(other, name)
    assert a.keys() == b.keys()
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a)


def took_the_same_course(alone: Path, folder: Path, kind: str) -> None:
    """Two processes of that kind ended with the weights, the scores and the log of one."""
    assert f"2 processes ({kind})" in (folder / "train.log").read_text()
    for rank in range(2):
        told = json.loads((folder.parent / f"left{rank}").read_text())
        assert told["left"]
        assert kind != "ddp" or told["threads"] == 0, "one that wakes while Python ends aborts the process"
    assert (folder / "last.engine").is_dir() == kind.startswith("zero")
    assert difference(alone, folder) < 1e-5
    ours, theirs = read_csv(folder), read_csv(alone)
    assert len(ours) == len(theirs) == 10, "each epoch is logged once"
    assert max(float(row["valid_iou"]) for row in theirs) > 0.01
    for row, other in zip(ours, theirs, strict=True):
        assert float(row["valid_iou"]) == pytest.approx(float(other["valid_iou"]), abs=1e-4)
        assert float(row["valid_loss"]) == pytest.approx(float(other["valid_loss"]), abs=1e-4)
        assert float(row["train_loss"]) == pytest.approx(float(other["train_loss"]), abs=1e-4)


@pytest.mark.parametrize("kind", ["ddp", "zero1", "zero2"])
def test_two_processes_end_with_the_weights_and_scores_of_one(alone, shared, kind):
    run_folder = shared(kind)
    took_the_same_course(alone, run_folder, kind)


def test_zero_with_one_process_is_deepspeeds_too(alone, data, tmp_path):
    needs_deepspeed("zero2")
    done = run(sys.executable, DRIVER, config(data, tmp_path / "x", "zero2", 1))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x/run/last.engine").is_dir()
    assert difference(alone, tmp_path / "x/run") < 1e-5


def test_a_checkpoint_made_under_zero_is_evaluated_by_one_process(shared, data, tmp_path):
    run_folder = shared("zero2")
    metrics = segwright.evaluate(run_folder / "best.pth", split="valid", output=tmp_path, pictures=False)
    best = max(read_csv(run_folder), key=lambda row: float(row["valid_iou"]))
    assert metrics["iou"] == pytest.approx(float(best["valid_iou"]), abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "how", "said"),
    [
        ("ddp", "error", "process 1 of 2 ended: a spoiled image"),
        ("zero1", "kill", "another process of this run died without a word"),
    ],
)
def test_a_process_that_dies_ends_the_others_and_costs_nothing(data, shared, tmp_path, kind, how, said):
    """Process 1 ends before the first step of the sixth epoch."""
    whole = shared(kind)
    path = config(data, tmp_path / "x", kind, 2, test={"still": True, "ends": [1, 11, how]})
    done = torchrun(DRIVER, path)
    assert done.returncode != 0
    assert time.time() - float((tmp_path / "x/died").read_text()) < 60
    assert f"[rank0]: segwright.errors.TrainingError: {said}" in done.stderr, done.stderr
    assert len(read_csv(tmp_path / "x/run")) == 5
    weights_of(tmp_path / "x/run")
    resumed = torchrun(DRIVER, path, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert difference(whole, tmp_path / "x/run") < 1e-6
    assert difference(whole, tmp_path / "x/run", "best.pth") < 1e-6
    assert len(read_csv(tmp_path / "x/run")) == 10


@pytest.mark.parametrize("kind", ["ddp", "zero2"])
def test_a_loss_that_is_not_finite_on_one_process_skips_the_step_on_all(data, tmp_path, kind):
    """Of eight steps the third; had the others taken it, the processes would part, and ZeRO would never end."""
    needs_deepspeed(kind)
    odd = {"test": {"still": True, "poisoned": [1, 3]}, "train": {"epochs": 4, "freeze_epochs": 0, "on_nan": "skip"}}
    done = torchrun(DRIVER, config(data, tmp_path / "x", kind, 2, **odd))
    assert done.returncode == 0, done.stderr
    assert [row["skipped"] for row in read_csv(tmp_path / "x/run")] == ["0", "1", "0", "0"]


def test_batch_norms_statistics_are_the_main_processs_everywhere(data, tmp_path):
    """With live batch norms two processes see other statistics than one; but a resumed run goes on exactly."""
    live = {"test": {}, "train": {"epochs": 4, "freeze_epochs": 0}}
    whole, cut = (config(data, tmp_path / name, "ddp", 2, **live) for name in ("whole", "cut"))
    cut.write_text(json.dumps(json.loads(cut.read_text()) | {"test": {"ends": [1, 6, "error"]}}))
    assert torchrun(DRIVER, whole).returncode == 0
    assert torchrun(DRIVER, cut).returncode != 0
    resumed = torchrun(DRIVER, cut, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert difference(tmp_path / "whole/run", tmp_path / "cut/run") < 1e-6


def test_accelerate_launch_with_deepspeed_trains_as_torchrun_does(data, alone, tmp_path):
    needs_deepspeed("zero2")
    path = config(data, tmp_path / "x", "auto", 2)
    words = ("--use_deepspeed", "--zero_stage=2", "--num_processes=2", "--num_machines=1", "--mixed_precision=no")
    done = run(BIN / "accelerate", "launch", *words, f"--main_process_port={free_ports(1)[0]}", DRIVER, path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 processes (zero2)" in (tmp_path / "x/run/train.log").read_text()
    assert difference(alone, tmp_path / "x/run") < 1e-5


def test_deepspeeds_launcher_trains_by_the_command(data, tmp_path):
    needs_deepspeed("zero1")
    settings = json.loads(config(data, tmp_path / "x", "auto_zero1", 2, train={"epochs": 4}).read_text())
    del settings["test"]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    words = ("--num_gpus=2", f"--master_port={free_ports(1)[0]}", REPO / "recipes/crack/train.py")
    done = run(BIN / "deepspeed", *words, "--config", tmp_path / "c.yaml", PATH=f"{BIN}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert "2 processes (zero1)" in (tmp_path / "x/run/train.log").read_text()
    assert len(read_csv(tmp_path / "x/run")) == 4


def test_accelerate_launch_that_starts_one_of_two_is_found_out(data, tmp_path):
    """`--cpu --num_processes 2` starts one process and says nothing."""
    path = config(data, tmp_path / "x", "auto", 2)
    done = run(BIN / "accelerate", "launch", "--cpu", "--num_processes=2", "--num_machines=1", DRIVER, path)
    assert done.returncode != 0
    assert "train.processes is 2, but 1 take part" in done.stderr
    assert not (tmp_path / "x/run").exists()


def test_processes_that_were_never_started_are_missed(data, tmp_path):
    path = config(data, tmp_path / "x", "ddp", 2)
    liar = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "SEGWRIGHT_MEETING_S": "3"}
    done = run(sys.executable, DRIVER, path, **liar, MASTER_PORT=str(free_ports(1)[0]))
    assert done.returncode != 0
    assert "process 0 of 2 did not meet the others" in done.stderr
    assert not (tmp_path / "x/run").exists()


def test_evaluate_by_two_processes_is_refused(shared, tmp_path):
    done = torchrun(REPO / "recipes/crack/evaluate.py", "--weights", shared("ddp") / "best.pth", "--output", tmp_path)
    assert done.returncode != 0
    assert "each would do all of it" in done.stderr
