"""The recipes' Slurm scripts on a real Slurm of two virtual nodes: stopped by the time limit, requeued, finished."""

import json
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from conftest import absent
from runs import read_csv
from segwright.datasets import spark
from segwright.png import write_png
from slurm_cluster import ENDED, Cluster, cluster, missing
from test_parallel import (
    DRIVER,
    by_one,
    config,
    difference,
    needs_deepspeed,
    painted_for_two,
    took_the_same_course,
    torchrun,
)

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.slurm, pytest.mark.timeout(2400)]

RECIPES = Path(__file__).parents[1] / "recipes"
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")
EPOCHS = 160
"""So many that a fast machine is still training when the time limit of a minute falls."""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Its own daemons, for these tests alone."""
    if lacking := missing():
        absent(f"no Slurm can be started here: {', '.join(lacking)} missing; apt-get install slurm-wlm munge, as root")
    with cluster(tmp_path_factory.mktemp("slurm")) as made:
        yield made


def submit(slurm: Cluster, script: Path, *words: str, cwd: Path, flags: tuple[str, ...] = (), **variables: str) -> str:
    own = {"SEGWRIGHT_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return slurm.submit(*flags, str(script), *words, cwd=cwd, **own, **variables)


def stop_by_time_limit(slurm: Cluster, number: str, checkpoint: Path) -> None:
    """Lets the job's time run out when it has saved an epoch; waits until it is back in the queue."""
    ends = time.monotonic() + 300
    while not checkpoint.exists():
        job = slurm.job(number)
        assert job["JobState"] not in ENDED, slurm.output(job)
        assert time.monotonic() < ends, slurm.output(job)
        time.sleep(0.2)
    slurm.run("scontrol", "update", f"JobId={number}", "TimeLimit=1")
    while (job := slurm.job(number))["Restarts"] == "0":
        assert job["JobState"] not in ENDED, f"{job['JobState']}: {slurm.output(job)}"
        assert time.monotonic() < ends, slurm.output(job)
        time.sleep(0.2)
    slurm.run("scontrol", "update", f"JobId={number}", "TimeLimit=30")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[Path, Path]:
    """Data, and a run of one process on them without Slurm."""
    home = tmp_path_factory.mktemp("alone")
    data = painted_for_two(home)
    return data, by_one(data, home)


@pytest.mark.parametrize("kind", ["ddp", "zero1", "zero2"])
def test_two_tasks_of_srun_end_with_the_weights_and_scores_of_one(slurm, alone, kind, tmp_path):
    needs_deepspeed(kind)
    data, run_of_one = alone
    command = f"srun {sys.executable} {DRIVER} {config(data, tmp_path / 'x', kind, 2)}"
    slurm.finish(slurm.submit(*TWO_NODES, "--wrap", command, cwd=tmp_path, OMP_NUM_THREADS="1"))
    took_the_same_course(run_of_one, tmp_path / "x/run", kind)


@pytest.fixture(scope="module")
def spark_run(slurm, tmp_path_factory):
    """SPARK's training on two nodes, ended by the time limit and gone on; beside it the same in one go, by torchrun."""
    needs_deepspeed("zero1")
    home = tmp_path_factory.mktemp("spark")
    data = spark.example(home / "data")
    words = {"data.root": data, "training.batch_size": 2, "training.epochs": EPOCHS, "model.pretrained": "false"}
    more = [f"{key}={value}" for key, value in {**words, "train.amp": "false", "train.save_every_steps": 1}.items()]
    script = RECIPES / "spark/scripts/segformer_train.sh"
    flags = (*TWO_NODES, "--time=30", "--signal=B:USR1@20")
    number = submit(slurm, script, *more, cwd=home, flags=flags, SEGFORMER_VARIANT="b0", IMAGE_SIZE="64")
    folder = home / "model_weights_segformer_b0"
    stop_by_time_limit(slurm, number, folder / "last.pth")
    stopped_after = len(read_csv(folder))
    job = slurm.finish(number)
    train = RECIPES / "spark/train_segformer.py"
    config = RECIPES / "spark/config_segformer.yaml"
    once = ("model.variant=b0", "training.image_size=64", f"save_path={home / 'once'}")
    done = torchrun(train, "--config", config, *more, *once)
    assert done.returncode == 0, done.stderr
    return home, folder, slurm.output(job), stopped_after


def test_a_run_that_the_time_limit_ended_goes_on_and_ends_as_if_never_stopped(spark_run):
    home, folder, said, stopped_after = spark_run
    assert stopped_after < EPOCHS, "it was not stopped"
    assert "saved, and back into the queue" in said
    assert f"resumed model_weights_segformer_b0 after epoch {stopped_after}" in said
    assert "2 processes (zero1)" in (folder / "train.log").read_text()
    assert len(read_csv(folder)) == EPOCHS
    assert difference(home / "once", folder) < 1e-6
    assert difference(home / "once", folder, "best.pth") < 1e-6


def test_evaluation_and_submission_follow_the_training(slurm, spark_run):
    home, folder, _, _ = spark_run
    best = {"MODEL_PATH": str(folder / "segformer_best")}
    scripts = RECIPES / "spark/scripts"
    evaluated = submit(slurm, scripts / "segformer_eval.sh", "--no-pictures", cwd=home, flags=TWO_NODES, **best)
    slurm.finish(evaluated)
    assert json.loads((home / "outputs/metrics_valid.json").read_text())["num_images"] > 0
    images = str(home / "data/stream-1-test")
    inferred = submit(
        slurm, scripts / "segformer_inference.sh", "--own-data", "--input", images, cwd=home, flags=TWO_NODES, **best
    )
    assert "read back and right" in slurm.output(slurm.finish(inferred))
    with zipfile.ZipFile(home / "submission.zip") as archive:
        assert all(name.endswith("_layer.npz") for name in archive.namelist())


def damaged_art(folder: Path) -> Path:
    """Fourteen images of coarse random grey in ARTeFACT's layout, each with a scratch on what is else clean."""
    random, rows = np.random.default_rng(4), ["id,material,content"]
    for number in range(14):
        grey = np.kron(random.integers(0, 255, (6, 8)), np.ones((8, 8))).astype(np.uint8)
        ids = np.zeros_like(grey)
        top = int(random.integers(4, 40))
        ids[top : top + 4], grey[top : top + 4] = 4, 255
        write_png(folder / "image" / f"{number}.png", np.repeat(grey[:, :, None], 3, axis=2))
        write_png(folder / "annotation" / f"{number}.png", ids)
        rows.append(f"{number},Paper,Photograph")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_runs_are_tested_trained_evaluated_and_compared(slurm, tmp_path):
    data, scripts, configs = damaged_art(tmp_path / "data"), RECIPES / "artefact/scripts", RECIPES / "artefact/configs"
    small = [
        "input.size=64",
        "input.workers=0",
        f"input.cache={tmp_path / 'cache'}",
        "training.batch_size=1",
        "encoder.pretrained=false",
        "train.amp=false",
    ]
    words = ["--data", str(data), "encoder.name=test_resnet", "head.width=8", "split.val_fraction=0.3", *small]
    runs = ("convnext_tiny", "segformer_b3")
    tested = submit(slurm, scripts / "slurm_test.sh", str(configs / "convnext_tiny.yaml"), *words, cwd=tmp_path)
    slurm.finish(tested)
    assert len(read_csv(tmp_path / "logs/test_convnext_tiny")) == 1
    for name in runs:
        train = submit(
            slurm, scripts / "slurm_train.sh", str(configs / f"{name}.yaml"), *words, "training.epochs=4",
            cwd=tmp_path, flags=TWO_NODES,
        )  # fmt: skip
        slurm.finish(train)
        assert "2 processes (ddp)" in (tmp_path / "logs" / name / "train.log").read_text()
    slurm.finish(submit(slurm, scripts / "evaluate_all.sh", cwd=tmp_path, flags=TWO_NODES))
    evaluated = {path.parent.parent.name for path in (tmp_path / "logs").glob("*/evaluation/metrics_valid.json")}
    assert evaluated == set(runs)
    assert list((tmp_path / "logs/comparison").iterdir())


def test_a_job_of_two_tasks_without_srun_is_refused(slurm, tmp_path):
    """And nothing of a finished or failed job goes back into the queue."""
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\n{sys.executable} {DRIVER} {tmp_path}/c.json\n")
    (tmp_path / "c.json").write_text(json.dumps({"data": {"root": "data"}}))
    number = submit(slurm, script, cwd=tmp_path, flags=TWO_NODES)
    job = slurm.wait(number, {"FAILED", "COMPLETED"})
    assert job["JobState"] == "FAILED"
    assert "Put srun before the command" in slurm.output(job)
