"""A run that is stopped by a signal, in the middle of an epoch, ends as if it had never stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import segwright
from conftest import absent
from runs import read_csv, same, small, weights_of
from segwright import checkpoint
from segwright.data import TrainingSet, training_batches
from segwright.errors import REQUEUE, Stopped
from segwright.training import loop
from segwright.training.stopping import StopRequest

LORA = {"encoder": {"name": "test_vit"}, "lora": {"enabled": True, "r": 2}}
CASES = {
    "plateau": {"schedule": {"patience": 0}},
    "onecycle": {"schedule": {"name": "onecycle", "max_lr": 0.02}},
    "poly": {"schedule": {"name": "poly", "warmup_epochs": 1}},
    "cosine-sgd": {"schedule": {"name": "cosine", "warmup_steps": 4}, "optim": {"name": "sgd", "nesterov": True}},
    "ema-layer-decay": {"train": {"ema": 0.9}, "optim": {"layer_decay": 0.7, "no_decay": True}},
    "lora": LORA,
    "lora-ema-accumulate": {**LORA, "train": {"ema": 0.9, "accumulate": 2, "batch_size": 1}},
    "freeze": {"train": {"freeze_epochs": 3}},
    "mosaic-preload-workers": {"augment": {"mosaic": 0.7, "rotate": 20.0}, "input": {"preload": "ram", "workers": 2}},
    "workers": {"augment": {"mosaic": 0.7}, "input": {"workers": 2}},
    "accumulate": {"train": {"batch_size": 1, "accumulate": 2}},
    "stochastic-depth-passes": {"encoder": {"name": "test_vit", "drop_path": 0.3}, "train": {"passes": 2}},
}
QUICK = "ema-layer-decay"
KEPT = ("epoch", "train_loss", "valid_loss", "valid_iou", "lr_head", "lr_encoder", "frozen", "skipped")


def cut_at(monkeypatch, steps, name="SIGTERM"):
    """Sends this process the signal before each of these steps, counted over all epochs, and takes the step."""
    step, calls = loop.train_step, [0]

    def stepping(*args):
        calls[0] += 1
        if calls[0] in steps:
            os.kill(os.getpid(), getattr(signal, name))
        return step(*args)

    monkeypatch.setattr(loop, "train_step", stepping)


def equal(one, two) -> bool:
    """Whether two states hold the same, each tensor bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


def stopped_and_resumed(config, monkeypatch, steps):
    """The run, stopped at these steps (counted without those that are done twice: there are none)."""
    cut_at(monkeypatch, steps)
    for number, _ in enumerate(steps):
        with pytest.raises(Stopped, match=r"Go on with --resume --output .*: it ends"):
            segwright.train(config, resume=number > 0)
    run = segwright.train(config, resume=True)
    monkeypatch.undo()
    return run


@pytest.mark.parametrize(
    "name", [case if case == QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_a_run_that_a_signal_stops_twice_ends_with_the_same_weights(name, painted, tmp_path, monkeypatch):
    sections = {**CASES[name]}
    sections["input"] = {"cache": str(tmp_path / "cache"), **sections.get("input", {})}
    sections["train"] = {"epochs": 3, "freeze_epochs": 1, **sections.get("train", {})}
    if sections["train"]["freeze_epochs"] == 3:
        sections["train"]["epochs"] = 4
    whole = segwright.train(small(painted, tmp_path / "whole", **sections))
    resumed = stopped_and_resumed(small(painted, tmp_path / "cut", **sections), monkeypatch, (2, 6))
    for file in ("last.pth", "best.pth"):
        assert same(weights_of(whole.folder, file), weights_of(resumed.folder, file))
    one, two = (checkpoint.load(run.folder / "last.pth") for run in (whole, resumed))
    assert one["schedule"] == two["schedule"]
    assert same(one.get("trained", {}), two.get("trained", {}))
    assert equal(one["optimizer"], two["optimizer"])
    assert [[row[k] for k in KEPT] for row in whole.rows] == [[row[k] for k in KEPT] for row in resumed.rows]
    assert len(read_csv(resumed.folder)) == sections["train"]["epochs"]


def test_ema_weights_are_those_that_were_validated(painted, tmp_path):
    """The best weights give the IoU that the log has of them; the trained ones beside them are others."""
    run = segwright.train(small(painted, tmp_path / "r", train={"ema": 0.8, "epochs": 2, "freeze_epochs": 0}))
    scores = segwright.evaluate(run.best, split="valid", output=tmp_path / "out", pictures=False)
    assert scores["iou"] == pytest.approx(run.best_iou, abs=1e-9)
    last = checkpoint.load(run.folder / "last.pth")
    assert not same(last["model"], last["trained"])
    assert last["model"].keys() == last["trained"].keys()
    assert last["ema_updates"] == 6


@pytest.mark.slow
def test_a_skipped_step_stays_skipped_when_the_run_goes_on(painted, tmp_path, monkeypatch):
    """The second step's loss is not a number, in the whole run and in the cut one, which is stopped after it."""
    sections = {"train": {"epochs": 2, "freeze_epochs": 0, "on_nan": "skip"}, "schedule": {"name": "cosine"}}
    forward = segwright.losses.bce_dice.BceDiceLoss.forward
    seed = loop.seed_step
    at = [None]
    monkeypatch.setattr(
        loop, "seed_step", lambda t, epoch, step: (at.__setitem__(0, (epoch, step)), seed(t, epoch, step))
    )
    monkeypatch.setattr(
        "segwright.losses.bce_dice.BceDiceLoss.forward",
        lambda self, x, y: forward(self, x, y) * (float("nan") if at[0] == (0, 1) and x.requires_grad else 1.0),
    )
    whole = segwright.train(small(painted, tmp_path / "whole", **sections))
    cut_at(monkeypatch, (3,))
    with pytest.raises(Stopped):
        segwright.train(small(painted, tmp_path / "cut", **sections))
    resumed = segwright.train(small(painted, tmp_path / "cut", **sections), resume=True)
    assert [row["skipped"] for row in resumed.rows] == [1, 0]
    assert same(weights_of(whole.folder), weights_of(resumed.folder))
    assert [row["train_loss"] for row in whole.rows] == [row["train_loss"] for row in resumed.rows]


@pytest.mark.slow
def test_a_signal_in_validation_ends_it_at_once_and_it_is_done_anew(painted, tmp_path, monkeypatch):
    config = small(painted, tmp_path / "r", train={"epochs": 1, "freeze_epochs": 0, "batch_size": 2, "ema": 0.5})
    seen = []
    monkeypatch.setattr(
        "segwright.verbs.train.validation",
        lambda predictor, batches, *_: seen.extend(_ask_after_the_first(batches)),
    )
    with pytest.raises(Stopped, match="after step 3 of 3 of epoch 1"):
        segwright.train(config)
    assert len(seen) == 0
    monkeypatch.undo()
    saved = checkpoint.load(tmp_path / "r" / "last.pth")
    assert (saved["epoch"], saved["under_way"]["steps"], saved["rows"]) == (0, 3, [])
    resumed = segwright.train(config, resume=True)
    whole = segwright.train(small(painted, tmp_path / "w", train=config["train"]))
    assert same(weights_of(whole.folder), weights_of(resumed.folder))
    assert resumed.rows[0]["valid_iou"] == whole.rows[0]["valid_iou"]


def _ask_after_the_first(batches):
    for number, _ in enumerate(batches):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert number == 0, "the second batch was validated although a signal had come"
    return ["validated to the end"]


def test_handlers_are_put_back_and_a_signal_is_noted_once():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        for number in (signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.asked == "SIGUSR1"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_worker_outlives_signals_but_not_its_parents():
    """A signal to the whole group leaves it alive: here one that `kill` sends. But at the end somebody must end it."""
    if not hasattr(signal, "sigwaitinfo"):
        absent("this system does not tell who sent a signal, so its workers end with their group (docs/training.md)")
    batches = training_batches(range(8), None, None, 2, 0, workers=1)[0]
    batches.dataset.__class__ = Slow
    one = iter(batches)
    next(one)
    worker = one._workers[0]
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    subprocess.run(["kill", "-USR1", str(worker.pid)], check=True)
    assert len(list(one)) == 3
    assert worker.is_alive()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0


class Slow(TrainingSet):
    """Takes its time, so that a signal meets it at work."""

    def __getitem__(self, key):
        time.sleep(0.05)
        return {"image": torch.zeros(3, 4, 4), "index": torch.tensor(key[1])}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_the_command_leaves_with_its_own_status_though_the_signal_reaches_its_workers(painted, tmp_path, name):
    """As a batch system sends it: to every process of the job. What it leaves behind goes on to the same weights."""
    sections = {"train": {"epochs": 12, "early_stopping": 0, "freeze_epochs": 0}, "input": {"workers": 2}}
    whole = segwright.train(small(painted, tmp_path / "whole", **sections))
    (tmp_path / "config.json").write_text(json.dumps(small(painted, tmp_path / "cut", **sections)))
    command = [sys.executable, "-m", "segwright.cli", "train", "--config", str(tmp_path / "config.json")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "cut" / "last.pth").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.killpg(process.pid, getattr(signal, name))
    said = process.communicate(timeout=120)[1]
    assert process.returncode == REQUEUE == 85, said
    assert f"{name} ended the run after step" in said
    assert checkpoint.load(tmp_path / "cut" / "last.pth")["epoch"] < 12
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert same(weights_of(whole.folder), weights_of(tmp_path / "cut"))
