"""A step: accumulated gradients, the moving average of the weights, what is not finite."""

import copy
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from segwright.engine import Engine
from segwright.errors import ConfigError, TrainingError
from segwright.training.config import Config
from segwright.training.ema import Average
from segwright.training.loop import in_steps
from segwright.training.step import train_step


class Tiny(nn.Module):
    """As a `Segmenter` is called; no norm, whose statistics would tell one batch of four from two of two."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 2, 3, padding=1)
        self.encoder.mean, self.encoder.std = (0.5,) * 3, (0.25,) * 3

    def forward(self, image, resize=True):
        return self.encoder(image)


def training(model, accumulate=1, **changed):
    config = Config(accumulate=accumulate, grad_clip=0.0, **changed)
    engine = Engine(amp=False, device="cpu", accumulate=accumulate)
    wrapped, optimizer = engine.prepare(model, torch.optim.SGD(model.parameters(), lr=0.5))
    schedule = SimpleNamespace(per_step=False)
    return SimpleNamespace(
        config=config, engine=engine, bare=model, model=wrapped, optimizer=optimizer, schedule=schedule, average=None,
        loss=nn.CrossEntropyLoss(), image_names=lambda rows: [f"{row}.jpg" for row in rows],
    )  # fmt: skip


def batch(first, last):
    """The same eight images and masks in every test, cut."""
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (8, 3, 6, 6), generator=generator, dtype=torch.uint8)
    mask = torch.randint(0, 2, (8, 6, 6), generator=generator, dtype=torch.uint8)
    return {"image": image[first:last], "mask": mask[first:last], "index": torch.arange(first, last)}


@pytest.mark.parametrize("cuts", [(0, 4, 8), (0, 2, 4, 6, 8)])
def test_accumulated_batches_make_the_step_of_one_large_batch(cuts):
    torch.manual_seed(0)
    one = Tiny()
    several = copy.deepcopy(one)
    before = one.encoder.weight.detach().clone()
    parts = [batch(a, b) for a, b in pairwise(cuts)]
    whole = train_step(training(one), [batch(0, 8)])
    assert train_step(training(several, len(parts)), parts) == pytest.approx(whole, rel=1e-6)
    assert torch.allclose(one.encoder.weight, several.encoder.weight, atol=1e-6)
    assert not torch.allclose(one.encoder.weight, before, atol=1e-3)


def test_batches_come_in_steps():
    assert list(in_steps(range(5), 2)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("bad", [0, 1])
def test_one_batch_that_is_not_finite_spoils_its_step_and_nothing_else(bad, caplog):
    """Which of the two it is makes no difference: weights and what they have accumulated stay as they are."""
    torch.manual_seed(0)
    model = Tiny()
    t = training(model, 2, on_nan="skip")
    before = copy.deepcopy(model.state_dict())
    losses = iter([nn.CrossEntropyLoss(), lambda x, y: x.sum() * math.nan][:: 1 - 2 * (1 - bad)])
    t.loss = lambda x, y: next(losses)(x, y)
    assert train_step(t, [batch(0, 2), batch(2, 4)]) is None
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert "0.jpg, 1.jpg, 2.jpg, 3.jpg" in caplog.text
    t.loss = nn.CrossEntropyLoss()
    fresh = Tiny()
    fresh.load_state_dict(before)
    after = train_step(t, [batch(4, 6), batch(6, 8)])
    assert after == train_step(training(fresh, 2), [batch(4, 6), batch(6, 8)])
    assert torch.equal(model.encoder.weight, fresh.encoder.weight), "gradients of the skipped step were left"


def test_where_another_process_met_it_this_one_stops_too(monkeypatch):
    t = training(Tiny())
    monkeypatch.setattr(t.engine, "any", lambda flag: True)
    with pytest.raises(TrainingError, match="not finite on another process"):
        train_step(t, [batch(0, 2)])


def test_the_average_by_hand():
    """Weights 1, then 2, then 5; decay 0.5. d = min(0.5, 1/10), then min(0.5, 2/11): 0.1*1 + 0.9*2 = 1.9;
    2/11*1.9 + 9/11*5 = 48.8/11."""
    model = nn.BatchNorm1d(1)
    average = Average(model, 0.5)
    for value in (2.0, 5.0):
        nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value - 1)
        model.num_batches_tracked += 1
        average.update(model)
    kept = average.weights(model)
    assert kept["weight"].item() == pytest.approx(48.8 / 11)
    assert kept["running_mean"].item() == pytest.approx(48.8 / 11 - 1)
    assert kept["num_batches_tracked"].item() == 2, "a count is no average"


def test_the_average_decays_as_asked_after_the_first_steps():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = Average(model, 0.9)
    average.updates = 10_000
    nn.init.ones_(model.weight)
    average.update(model)
    assert average.weights(model)["weight"].item() == pytest.approx(0.1)


def test_the_average_stands_in_for_the_weights_and_goes_again():
    model = nn.Linear(2, 2)
    own = copy.deepcopy(model.state_dict())
    average = Average(model, 0.9)
    nn.init.ones_(model.weight)
    with average.in_place_of(model):
        assert torch.equal(model.weight, own["weight"])
    assert torch.equal(model.weight, torch.ones(2, 2))
    assert torch.equal(average.weights(model)["weight"], own["weight"])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"ema": 1.0}, "share of itself"),
        ({"accumulate": 0}, "train.accumulate is 0"),
        ({"save_every_steps": -1}, "train.save_every_steps is -1"),
        ({"processes": 0}, "train.processes is 0"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys, said):
    with pytest.raises(ConfigError, match=said):
        Config(**keys)
