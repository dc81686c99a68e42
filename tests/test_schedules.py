"""Learning-rate schedules: their values by hand, their state, and what cannot fit into a run."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR, PolynomialLR

from segwright.errors import ConfigError
from segwright.training.schedules import SCHEDULES, cosine, onecycle, plateau, poly


def optimizer_of(*rates: float) -> torch.optim.SGD:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups)


def rates(optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def course(part, config, steps: int, epoch_steps: int, *peaks: float) -> list[list[float]]:
    """The rates at each of the run's steps."""
    optimizer = optimizer_of(*peaks)
    schedule, seen = part.build(config, optimizer, steps, epoch_steps), []
    for _ in range(steps):
        seen.append(rates(optimizer))
        schedule.step()
    return seen


def test_poly_by_hand():
    """8 steps, 2 of warm-up from 0.5, power 2, peaks 1 and 10.

    t=0: (1 - 0/8)^2 * 0.5 = 0.5; t=1: (7/8)^2 * 0.75; t=2: (6/8)^2; t=7: (1/8)^2.
    """
    seen = course(poly, poly.Config(power=2.0, warmup_steps=2, warmup_from=0.5), 8, 4, 1.0, 10.0)
    head = [row[0] for row in seen]
    assert head[:3] == pytest.approx([0.5, 0.765625 * 0.75, 0.5625])
    assert head[7] == pytest.approx(1 / 64)
    assert [row[1] for row in seen] == pytest.approx([10 * rate for rate in head])


def test_poly_without_warmup_is_torchs():
    theirs = optimizer_of(0.1)
    reference = PolynomialLR(theirs, total_iters=7, power=0.9)
    for mine in course(poly, poly.Config(power=0.9, warmup_steps=0), 7, 7, 0.1):
        assert mine == pytest.approx(rates(theirs))
        theirs.step()
        reference.step()


def test_poly_begins_as_published():
    """Segformer's configurations: 1500 steps of warm-up from a millionth of the rate, of 160000."""
    config, optimizer = poly.Config(), optimizer_of(6e-5)
    schedule = poly.build(config, optimizer, 160_000, 1000)
    assert rates(optimizer) == pytest.approx([6e-11])
    for _ in range(1500):
        schedule.step()
    assert rates(optimizer) == pytest.approx([6e-5 * (1 - 1500 / 160_000)])


def test_cosine_by_hand():
    """6 steps, the first 2 of warm-up from 0.2, floor 0.1: after it, 0.1 + 0.9 (1 + cos(pi t/4)) / 2 for t = 0..3."""
    seen = course(cosine, cosine.Config(warmup_epochs=1, warmup_from=0.2, floor=0.1), 6, 2, 1.0)
    half = math.sqrt(2) / 2
    assert [row[0] for row in seen] == pytest.approx([0.2, 0.6, 1.0, 0.1 + 0.45 * (1 + half), 0.55, 0.55 - 0.45 * half])


@pytest.mark.parametrize(("steps", "share"), [(12, 0.2), (5, 0.2), (100, 0.37)])
def test_onecycle_is_torchs(steps, share):
    theirs = optimizer_of(0.1, 0.01)
    # one step more than are taken: torch refuses the step after the last
    reference = OneCycleLR(theirs, rates(theirs), total_steps=steps + 1, pct_start=share, cycle_momentum=False)
    for mine in course(onecycle, onecycle.Config(warmup=share), steps, steps, 0.1, 0.01):
        assert mine == pytest.approx(rates(theirs), rel=1e-12)
        theirs.step()
        reference.step()


def test_onecycle_peaks_at_max_lr_and_groups_keep_their_ratio():
    seen = course(onecycle, onecycle.Config(warmup=0.5, max_lr=0.02), 99, 33, 0.1, 0.01)
    assert max(row[0] for row in seen) == pytest.approx(0.02)
    assert max(row[1] for row in seen) == pytest.approx(0.002)


def test_plateau_halves_after_its_patience():
    optimizer = optimizer_of(1.0)
    schedule = plateau.build(plateau.Config(factor=0.5, patience=1), optimizer, 1, 1)
    seen = []
    for score in (0.5, 0.6, 0.6, 0.6, 0.7):
        schedule.step(score)
        seen += rates(optimizer)
    assert seen == [1.0, 1.0, 1.0, 0.5, 0.5]


def test_plateau_lowers_other_rates_as_much_where_a_run_goes_on_with_them():
    config, before, after = plateau.Config(patience=0), optimizer_of(1.0), optimizer_of(3.0)
    schedule = plateau.build(config, before, 1, 1)
    for _ in range(3):
        schedule.step(0.1)
    assert rates(before) == [0.25]
    other = plateau.build(config, after, 1, 1)
    after.load_state_dict(before.state_dict())
    other.load_state_dict(schedule.state_dict())
    assert rates(after) == [0.75]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_schedule_goes_on_from_its_state_as_if_it_had_not_stopped(name):
    """The contract of every schedule, with its defaults."""
    part, total, epoch_steps = SCHEDULES[name], 5000, 10

    def walk(schedule, optimizer, first, last):
        seen = []
        for step in range(first, last):
            if schedule.per_step or step % epoch_steps == epoch_steps - 1:
                schedule.step(0.5)
            seen.append(rates(optimizer))
        return seen

    one = optimizer_of(0.1, 0.01)
    whole = walk(part.build(part.Config(), one, total, epoch_steps), one, 0, 400)
    two, three = optimizer_of(0.1, 0.01), optimizer_of(0.1, 0.01)
    cut = part.build(part.Config(), two, total, epoch_steps)
    walk(cut, two, 0, 203)
    resumed = part.build(part.Config(), three, total, epoch_steps)
    three.load_state_dict(two.state_dict())
    resumed.load_state_dict(cut.state_dict())
    assert walk(resumed, three, 203, 400) == whole[203:]
    assert len({tuple(row) for row in whole}) > 1, "the rate never changed"


@pytest.mark.parametrize(
    ("part", "keys", "steps", "said"),
    [
        (poly, {}, 1500, r"warm-up takes 1500 steps, but the whole run has 1500 \(10 an epoch\)"),
        (cosine, {"warmup_epochs": 10}, 100, "warmup_epochs: the warm-up takes 100 steps"),
        (cosine, {"warmup_steps": 101}, 100, "warmup_epochs=1, or raise train.epochs"),
        (onecycle, {}, 4, "the run has 4 steps"),
    ],
)
def test_a_schedule_that_does_not_fit_into_the_run_is_refused(part, keys, steps, said):
    with pytest.raises(ConfigError, match=said):
        part.build(part.Config(**keys), optimizer_of(0.1), steps, 10)


@pytest.mark.parametrize(
    ("part", "keys", "said"),
    [
        (poly, {"warmup_steps": 1, "warmup_epochs": 1}, "both given"),
        (poly, {"warmup_epochs": -1.0}, "0 or more"),
        (poly, {"power": 0.0}, "power above 0"),
        (cosine, {"warmup_from": 1.0}, "below 1"),
        (cosine, {"floor": 1.0}, "share of the learning rate"),
        (onecycle, {"max_lr": 0.0}, "positive and small"),
    ],
)
def test_keys_that_cannot_be_are_refused(part, keys, said):
    with pytest.raises(ConfigError, match=said):
        part.Config(**keys)
