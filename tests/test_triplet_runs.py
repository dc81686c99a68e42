"""Tree-triplet in a run: beside any head, by the run's steps, alike after a stop, and nowhere unless asked for."""

import logging

import pytest
import torch
import yaml

import segwright
from runs import ending_at, same, weights_of
from segwright import checkpoint
from segwright.config.resolve import Choice
from segwright.datasets.seghiero_example import example
from segwright.errors import ConfigError
from segwright.heads import HEADS
from segwright.losses.tree import Config, TreeLoss, build
from segwright.losses.tree_triplet import ramp
from segwright.model import Config as ModelConfig
from segwright.model import EncoderConfig, build_model
from segwright.verbs.loading import load_model
from segwright.verbs.settings import gather
from test_tree_loss import EMBEDDING, THREE, TWO, Z2, Y

pytestmark = pytest.mark.slow


def values(root, **sections):
    """Three epochs of two steps on the example of SegHiero's layout, four classes in three groups of two levels."""
    given = {
        "data": {"root": str(root)},
        "hierarchy": {"classes": {"ground": {"road": 0, "pavement": 1}, "vehicle": {"car": 2, "bicycle": 3}}},
        "encoder": {"name": "test_resnet", "pretrained": False},
        "head": {"name": "segformer", "width": 16},
        "model": {"name": None},
        "input": {"size": [64, 96], "workers": 0},
        "loss": {"triplet_weight": 1.0},
        "optim": {"lr": 1e-2},
        "train": {"epochs": 3, "batch_size": 1, "amp": False, "device": "cpu"},
        "run": {"output": str(root.parent / "run")},
    }
    return {key: {**given.get(key, {}), **sections.get(key, {})} for key in given.keys() | sections.keys()}


@pytest.fixture
def root(tmp_path):
    return example(tmp_path / "data")


def test_the_loss_rises_with_the_steps_of_the_run_and_not_with_its_epochs(root, monkeypatch):
    """Two epochs of two steps: 0 to 3 of 4."""
    seen = []
    forward = TreeLoss.forward

    def spied(self, logits, mask, embedding=None, step=0, steps=1):
        seen.append(embedding is not None and (step, steps, tuple(embedding.shape[:2])))
        return forward(self, logits, mask, embedding, step, steps)

    monkeypatch.setattr(TreeLoss, "forward", spied)
    run = segwright.train(values(root, train={"epochs": 2}))
    trained = [(step, 4, (1, 256)) for step in range(4)]
    assert [call for call in seen if call] == trained
    assert seen.count(False) == 2, "validation is without it"
    payload = checkpoint.load(run.best)
    assert payload["config"]["model"]["embedding"] == 256
    assert any(name.startswith("embedding.") for name in payload["model"])
    assert load_model(run.best).predictor.tree is not None


def test_a_run_stopped_in_mid_epoch_ends_with_the_weights_of_one_that_was_not(root):
    whole = segwright.train(values(root))
    part = values(root, run={"output": str(root.parent / "part")}, train={"save_every_steps": 1})
    with ending_at(4):  # the second step of the second epoch
        segwright.train(part)
    assert checkpoint.load(root.parent / "part/last.pth")["epoch"] == 1
    resumed = segwright.train(part, resume=True)
    assert same(weights_of(whole.folder), weights_of(resumed.folder))


def with_triplet(tree, **config):
    return build(Config(triplet_weight=1.0, **config), tree.num_nodes, None, tree)


def test_of_a_step_the_value_is_that_of_its_number_alone():
    loss = with_triplet(TWO)
    first = loss(Z2, Y, embedding=EMBEDDING, step=7, steps=10)
    torch.manual_seed(123)
    assert loss(Z2, Y, embedding=EMBEDDING, step=7, steps=10) == first
    assert loss(Z2, Y, embedding=EMBEDDING, step=8, steps=10) != first
    assert loss(Z2, Y) == loss(Z2, Y, embedding=EMBEDDING, step=0, steps=10), "the rise begins at nothing"


def test_its_factor_is_half_at_the_end_of_the_rise_whatever_the_runs_length():
    part = [with_triplet(TWO, triplet_steps=n)(Z2, Y, embedding=EMBEDDING, step=5, steps=99) for n in (0, 20, 5)]
    plain = with_triplet(TWO)(Z2, Y)
    full, rising, reached = (float(value - plain) for value in part)
    assert full == reached
    assert rising == pytest.approx(full * ramp(5, 20) / 0.5, rel=1e-4)
    assert full > 0


def test_at_any_depth_it_pulls_at_the_embedding_alone():
    embedding = EMBEDDING.clone().requires_grad_()
    logits = torch.zeros(2, THREE.num_nodes, 6, 8, requires_grad=True)
    loss = with_triplet(THREE)
    with_it = loss(logits, Y, embedding=embedding, step=9, steps=10)
    (pull,) = torch.autograd.grad(with_it, embedding, retain_graph=True)
    assert pull.abs().max() > 0
    of_logits = torch.autograd.grad(with_it, logits)[0]
    assert torch.equal(of_logits, torch.autograd.grad(loss(logits, Y), logits)[0])


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_has_an_embedding_beside_where_it_is_asked_for_and_else_nothing(head):
    image = torch.zeros(2, 3, 64, 96)
    for width in (0, 24):
        part = Choice(head, HEADS[head].Config(width=16))
        model = build_model(ModelConfig(embedding=width), EncoderConfig(name="test_resnet", pretrained=False), part, 5)
        assert any(name.startswith("embedding") for name in model.state_dict()) == bool(width)
        given = model(image, resize=False, embedded=True)
        logits, embedding = given if width else (given, None)
        assert logits.shape[:2] == (2, 5)
        assert torch.is_tensor(model(image))
        if embedding is not None:
            assert embedding.shape[:2] == (2, 24)
            torch.testing.assert_close(embedding.norm(dim=1), torch.ones(embedding[:, 0].shape))
            (embedding[:, 0].sum() + logits.sum()).backward()
            assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_what_cannot_work_is_refused(tmp_path):
    root = tmp_path / "x"
    with pytest.raises(ConfigError, match=r"model\.embedding is 0, which is none"):
        gather(values(root, model={"embedding": 0}))
    with pytest.raises(ConfigError, match=r"model\.embedding is 64, but nothing would train it"):
        gather(values(root, model={"embedding": 64}, loss={"triplet_weight": 0.0}))
    with pytest.raises(ConfigError, match=r"loss\.triplet_samples is 0"):
        gather(values(root, loss={"triplet_samples": 0}))
    settings = gather(values(root, model={"embedding": 64}))
    assert gather(settings.dump()) == settings
    assert gather(values(root, loss={"triplet_weight": 0.0})).model.embedding is None


TRIPLET = {
    "margin": 0.6, "max_samples": 50, "schedule_warmup_steps": 300, "schedule_min_factor": 0.25,
    "schedule_max_factor": 0.5, "schedule_warmup_steps_3level": {"small": 60000, "large": 160000},
}  # fmt: skip


def test_seghieros_own_sections_switch_it_on(caplog):
    words = "hierarchy: {classes: {g: {a: 0, b: 1}, c: 2}}\ndata: {root: x}\nhead: {type: aspp}"
    given = yaml.safe_load(words) | {"model": {"projection_dim": 32, "projection_type": "convmlp"}}
    with caplog.at_level(logging.INFO, "segwright"):
        settings = gather({**given, "training": {"triplet": TRIPLET}})
        assert gather(given).model.embedding is None
    loss = settings.loss.config
    assert (loss.triplet_weight, loss.triplet_samples, loss.triplet_steps) == (1.0, 50, 300)
    assert settings.model.embedding == 32
    assert "training.triplet.margin is not used: the tree decides it" in caplog.text
    assert "model.projection_dim is not used" in caplog.text
    with pytest.raises(ConfigError, match=r"training\.triplet\.max_sample\. Did you mean 'max_samples'"):
        gather({**given, "training": {"triplet": {"max_sample": 3}}})
    with pytest.raises(ConfigError, match=r"training\.triplet is True"):
        gather({**given, "training": {"triplet": True}})
