"""Runs on painted cracks: freezing, groups, resume, records, what a run leaves behind."""

import json
import logging
import shutil

import pytest
import torch
import yaml

import segwright
from runs import ending_at, read_csv, same, small, weights_of
from segwright import checkpoint
from segwright.errors import ConfigError, DataError, SegwrightError, TrainingError
from segwright.model import SegFormerLite, is_encoder
from segwright.training import loop
from segwright.training.freeze import begin_epoch
from segwright.training.optim import Config as OptimConfig
from segwright.training.optim import build_optimizer
from segwright.verbs.settings import gather


def test_the_groups_are_head_then_encoder_with_their_own_rates():
    model = SegFormerLite("test_resnet", pretrained=False)
    optimizer = build_optimizer(model, OptimConfig(lr=0.01, lr_encoder=0.002, weight_decay=0.03))
    head, encoder = optimizer.param_groups
    assert (head["name"], head["lr"], head["weight_decay"]) == ("head", 0.01, 0.03)
    assert (encoder["name"], encoder["lr"], encoder["weight_decay"]) == ("encoder", 0.002, 0.03)
    own = {id(p) for p in model.encoder.parameters()}
    assert {id(p) for p in encoder["params"]} == own
    assert len(head["params"]) + len(encoder["params"]) == len(list(model.parameters()))


def test_is_encoder_knows_wrapped_names():
    assert is_encoder("encoder.body.conv1.weight")
    assert is_encoder("module._orig_mod.encoder.x")
    assert not is_encoder("head.encoder.weight")
    assert not is_encoder("detail.full.0.weight")


def test_freezing_toggles_requires_grad_and_norms_and_is_logged(caplog):
    model = SegFormerLite("test_resnet", pretrained=False)
    with caplog.at_level(logging.INFO, "segwright"):
        assert begin_epoch(model, 0, 2)
        assert not any(p.requires_grad for p in model.encoder.parameters())
        assert all(p.requires_grad for p in model.head.parameters())
        assert not any(m.training for m in model.encoder.modules())
        assert model.head.training
        assert begin_epoch(model, 1, 2)
        assert not begin_epoch(model, 2, 2)
    assert all(p.requires_grad for p in model.encoder.parameters())
    assert all(m.training for m in model.modules())
    messages = [record.message for record in caplog.records]
    assert [m.split(",")[0] for m in messages] == ["epoch 1: encoder frozen", "epoch 3: encoder unfrozen"]


@pytest.mark.slow
def test_a_frozen_encoder_stays_as_it_is_and_thawed_it_moves(finished, painted, tmp_path, monkeypatch):
    seen = []
    begin = loop.begin_epoch

    def watched(model, epoch, freeze_epochs):
        seen.append({key: value.clone() for key, value in model.state_dict().items()})
        return begin(model, epoch, freeze_epochs)

    monkeypatch.setattr(loop, "begin_epoch", watched)
    run = segwright.train(small(painted, tmp_path / "a", train={"epochs": 3, "freeze_epochs": 2}))
    start, _, thawing = seen
    end = weights_of(run.folder)
    body = [key for key in start if key.startswith("encoder.")]
    assert all(torch.equal(start[key], thawing[key]) for key in body), "two frozen epochs moved the encoder"
    assert not all(torch.equal(start[key], thawing[key]) for key in start), "the head did not learn"
    moved = [key for key in body if not torch.equal(thawing[key], end[key])]
    assert len(moved) > len(body) / 2
    assert [row["frozen"] for row in run.rows] == [1, 1, 0]


def test_a_run_leaves_all_its_records(finished, painted):
    names = {path.name for path in finished.iterdir()}
    assert {
        "best.pth",
        "last.pth",
        "config.yaml",
        "training_params.yaml",
        "training_params.json",
        "log.csv",
        "curves.png",
        "report.html",
        "samples",
        "tensorboard",
        "train.log",
    } <= names
    assert not [name for name in names if name.endswith(".tmp")]
    rows = read_csv(finished)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert {"train_loss", "valid_loss", "valid_iou", "lr_head", "lr_encoder", "frozen"} <= rows[0].keys()
    params = json.loads((finished / "training_params.json").read_text())
    assert params == yaml.safe_load((finished / "training_params.yaml").read_text())
    assert params["config"]["train"]["seed"] == 5
    assert torch.__version__.startswith(params["environment"]["packages"]["torch"].split("+")[0])
    assert "encoder unfrozen" in (finished / "train.log").read_text()
    assert list((finished / "samples").glob("best_1_*.png"))


def test_best_is_the_epoch_with_the_highest_validation_iou(finished):
    rows = checkpoint.load(finished / "last.pth")["rows"]
    best = checkpoint.load(finished / "best.pth")
    values = [row["valid_iou"] for row in rows]
    assert best["best_iou"] == max(values)
    assert best["epoch"] == values.index(max(values)) + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"schedule": {"name": "onecycle"}},
        {"encoder": {"name": "mit_b0"}},
        {"model": {"detail": 4}},
    ],
    ids=["plateau", "onecycle", "mit-with-stochastic-depth", "detail"],
)
def test_a_run_that_was_stopped_in_mid_epoch_ends_with_the_same_weights(painted, tmp_path, sections):
    whole = segwright.train(small(painted, tmp_path / "whole", **sections))
    with ending_at(8):  # the second step of the third epoch
        segwright.train(small(painted, tmp_path / "cut", **sections))
    assert checkpoint.load(tmp_path / "cut" / "last.pth")["epoch"] == 2
    resumed = segwright.train(small(painted, tmp_path / "cut", **sections), resume=True)
    assert same(weights_of(whole.folder), weights_of(resumed.folder))
    assert same(weights_of(whole.folder, "best.pth"), weights_of(resumed.folder, "best.pth"))
    keep = ("epoch", "train_loss", "valid_loss", "valid_iou", "lr_head", "lr_encoder", "frozen")
    assert [[r[k] for k in keep] for r in whole.rows] == [[r[k] for k in keep] for r in resumed.rows]
    assert len(read_csv(resumed.folder)) == 4


@pytest.mark.slow
def test_workers_change_nothing(finished, painted, tmp_path):
    two = segwright.train(small(painted, tmp_path / "two", input={"size": [64, 96], "workers": 2}))
    assert same(weights_of(finished), weights_of(two.folder))


@pytest.mark.slow
def test_another_seed_gives_another_run_and_the_same_seed_the_same(finished, painted, tmp_path):
    other = segwright.train(small(painted, tmp_path / "x", train={"seed": 6}))
    again = segwright.train(small(painted, tmp_path / "y"))
    assert not same(weights_of(finished), weights_of(other.folder))
    assert same(weights_of(finished), weights_of(again.folder))


def test_resume_refuses_another_config_and_says_what_changed(finished, painted):
    with pytest.raises(ConfigError, match=r"optim.lr: 0.01 -> 0.5"):
        segwright.train(small(painted, finished, optim={"lr": 0.5}), resume=True)
    with pytest.raises(SegwrightError, match="there is no run to go on with"):
        segwright.train(small(painted, finished.parent / "none"), resume=True)


@pytest.mark.slow
def test_a_run_stopped_before_its_first_checkpoint_begins_anew_in_its_folder(finished, painted, tmp_path):
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / ".last.pth.1.tmp").write_text("")
    settings = gather(small(painted, folder)).dump()
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    run = segwright.train(small(painted, folder), resume=True)
    assert run.folder == folder
    assert not (folder / ".last.pth.1.tmp").exists()
    assert same(weights_of(finished), weights_of(folder))
    (folder / "last.pth").unlink()
    with pytest.raises(SegwrightError, match="there is no run to go on with"):
        segwright.train(small(painted, folder), resume=True)
    assert (folder / "best.pth").exists()


def test_overwrite_removes_a_run_and_nothing_else(painted, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("config.yaml", "thesis.txt"):
        (folder / name).write_text("x: 1")
    with pytest.raises(SegwrightError, match=r"holds what no run writes \(thesis.txt\)"):
        segwright.train(small(painted, folder, run={"output": str(folder), "overwrite": True}))
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "thesis.txt"]


@pytest.mark.slow
def test_a_config_that_cannot_be_built_costs_no_run_and_leaves_no_folder(painted, tmp_path):
    folder = tmp_path / "r"
    first = segwright.train(small(painted, folder, train={"epochs": 1, "freeze_epochs": 0}))
    before = (first.folder / "last.pth").read_bytes()
    bad = {"encoder": {"name": "segformer_bo", "pretrained": False}}
    with pytest.raises(ConfigError, match="Did you mean"):
        segwright.train(small(painted, folder, run={"output": str(folder), "overwrite": True}, **bad))
    assert (folder / "last.pth").read_bytes() == before
    with pytest.raises(ConfigError):
        segwright.train(small(painted, tmp_path / "new", **bad))
    assert not (tmp_path / "new").exists()


def test_an_image_that_breaks_the_first_epoch_leaves_no_folder(painted, tmp_path):
    data = shutil.copytree(painted, tmp_path / "data")
    picture = next((data / "train").glob("*.jpg"))
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
    with pytest.raises(DataError, match=picture.name):
        segwright.train(small(data, tmp_path / "r"))
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_run_is_never_overwritten_unless_asked(painted, tmp_path):
    brief = {"train": {"epochs": 1, "freeze_epochs": 0}}
    first = segwright.train(small(painted, tmp_path / "r", **brief))
    before = (first.folder / "last.pth").read_bytes()
    second = segwright.train(small(painted, tmp_path / "r", **brief))
    assert second.folder == tmp_path / "r.2"
    assert (first.folder / "last.pth").read_bytes() == before
    third = segwright.train(
        small(painted, tmp_path / "r", run={"output": str(tmp_path / "r"), "overwrite": True}, **brief)
    )
    assert third.folder == tmp_path / "r"


@pytest.mark.slow
def test_early_stopping_counts_from_the_end_of_the_frozen_phase(painted, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "update_state", lambda state, epoch, row: _stale(state, epoch, row))
    run = segwright.train(small(painted, tmp_path / "r", train={"epochs": 9, "early_stopping": 2, "freeze_epochs": 3}))
    assert run.epochs == 5


def _stale(state, epoch, row):
    best = epoch == 0
    state.epoch, state.stale = epoch + 1, 0 if best else state.stale + 1
    state.rows.append(row)
    state.best_iou, state.best_epoch = 0.1, 1
    return best


def test_a_loss_that_is_not_finite_stops_with_the_files_names(painted, tmp_path, monkeypatch):
    monkeypatch.setattr("segwright.losses.bce_dice.BceDiceLoss.forward", lambda self, x, y: x.sum() * float("nan"))
    with pytest.raises(TrainingError, match=r"on these images: \S+\.jpg, \S+\.jpg"):
        segwright.train(small(painted, tmp_path / "stop"))


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(painted, tmp_path, monkeypatch):
    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.shape = x.shape
            return x.sum()

        @staticmethod
        def backward(ctx, gradient):
            return torch.full(ctx.shape, float("nan"))

    monkeypatch.setattr("segwright.losses.bce_dice.BceDiceLoss.forward", lambda self, x, y: Poison.apply(x))
    with pytest.raises(TrainingError, match="the gradient's norm is nan"):
        segwright.train(small(painted, tmp_path / "stop", train={"grad_clip": 0.0}))
    skipping = {"on_nan": "skip", "epochs": 1, "freeze_epochs": 0}
    with pytest.raises(TrainingError, match="no step of epoch 1"):
        segwright.train(small(painted, tmp_path / "skip", train=skipping))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_can_be_skipped_and_counted(painted, tmp_path, monkeypatch, caplog):
    real, calls = loop.train_step, [0]

    def once(t, batch):
        calls[0] += 1
        if calls[0] == 1:
            t.loss.forward, keep = (lambda x, y: x.sum() * float("inf")), t.loss.forward
            try:
                return real(t, batch)
            finally:
                t.loss.forward = keep
        return real(t, batch)

    monkeypatch.setattr(loop, "train_step", once)
    run = segwright.train(small(painted, tmp_path / "skip", train={"epochs": 1, "freeze_epochs": 0, "on_nan": "skip"}))
    assert run.rows[0]["skipped"] == 1
    assert all(torch.isfinite(w).all() for w in weights_of(run.folder).values())
    assert "step skipped" in caplog.text


@pytest.mark.slow
def test_amp_computes_in_bfloat16_where_the_processor_has_it_and_says_so(painted, tmp_path, caplog, monkeypatch):
    brief = {"amp": True, "epochs": 1, "freeze_epochs": 0, "device": "cpu"}
    for has, word, kind in ((True, "in bf16", torch.bfloat16), (False, "in float32", torch.float32)):
        monkeypatch.setattr("segwright.engine.precision.cpu_has_bf16", lambda has=has: has)
        kinds = set()
        hook = torch.nn.modules.module.register_module_forward_hook(
            lambda module, _, out, kinds=kinds: kinds.add(out.dtype) if isinstance(module, torch.nn.Conv2d) else None
        )
        with caplog.at_level(logging.INFO, "segwright"):
            run = segwright.train(small(painted, tmp_path / word, train=brief))
        hook.remove()
        assert kinds == {kind}
        assert word in caplog.text
        assert all(torch.isfinite(w).all() for w in weights_of(run.folder).values())
        assert all(w.dtype != torch.bfloat16 for w in weights_of(run.folder).values())


@pytest.mark.slow
def test_a_frozen_random_encoder_is_warned_of(painted, tmp_path, caplog):
    segwright.train(small(painted, tmp_path / "w", train={"epochs": 2}))
    assert "a frozen random encoder teaches the head little" in caplog.text


def test_an_output_that_cannot_be_written_stops_before_training(painted, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SegwrightError, match=r"file is a file, where a folder is needed for .*run"):
        segwright.train(small(painted, tmp_path / "file" / "run"))


def test_no_data_no_run_folder(tmp_path):
    with pytest.raises(DataError):
        segwright.train({"data": {"root": str(tmp_path / "none")}, "run": {"output": str(tmp_path / "run")}})
    assert not (tmp_path / "run").exists()
