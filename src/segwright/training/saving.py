"""What a run leaves behind to go on from, `last.pth`, and to be used, `best.pth`.

`model` in both is what validation saw: with `train.ema` the averaged weights; `last.pth` then has the others as
`trained`. Neither holds a random state: every number is drawn from (seed, epoch, step).
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from segwright import checkpoint
from segwright.errors import ConfigError, SegwrightError
from segwright.training.state import State, Training


def save_checkpoints(t: Training, best: bool) -> None:
    """`last.pth` first: were `best.pth` lost to a kill behind it, `restore` would make it from `last.pth`."""
    save_last(t)
    if best and t.engine.is_main:
        save_best(t)


def save_last(t: Training) -> None:
    """All that going on takes. Called on all processes."""
    optimizer = t.engine.optimizer_state(t.optimizer, t.folder)
    now = under_way_of_all(t)
    if t.engine.is_main:
        resume = {"optimizer": optimizer, "schedule": t.schedule.state_dict(), "engine": t.engine.state_dict()}
        averaged = {"trained": t.bare.state_dict(), "ema_updates": t.average.updates} if t.average else {}
        payload = {
            "model": weights(t),
            **averaged,
            **t.header,
            **t.state.dump(),
            **now,
            **resume,
            "identity": t.identity,
        }
        checkpoint.save(t.folder / "last.pth", payload)
    t.engine.wait()


def under_way_of_all(t: Training) -> dict[str, Any]:
    """The epoch under way as all processes together have it: their mean loss, all their images."""
    own = t.state.under_way
    sums = torch.tensor([own.loss_sum, own.images], dtype=torch.float64, device=t.engine.device)
    loss, images = t.engine.sum(sums).tolist()
    return {"under_way": asdict(replace(own, loss_sum=loss / t.engine.processes, images=round(images)))}


def save_best(t: Training) -> None:
    """The weights as they are, as those of the best epoch."""
    progress = {"epoch": t.state.best_epoch, "best_iou": t.state.best_iou}
    checkpoint.save(t.folder / "best.pth", {"model": weights(t), **t.header, **progress})


def weights(t: Training) -> dict[str, Any]:
    """What is validated and used."""
    return t.average.weights(t.bare) if t.average else t.bare.state_dict()


def restore(t: Training, payload: dict[str, Any], path: Path) -> None:
    """Puts a run back to where `last.pth` left it. Called on all processes."""
    checkpoint.load_weights(t.bare, payload | {"model": payload.get("trained", payload["model"])}, path)
    if t.average:
        t.average.restore(payload["model"], payload.get("ema_updates", 0))
    load_optimizer(t, payload["optimizer"])
    if payload["schedule"].keys() != t.schedule.state_dict().keys():
        raise ConfigError(
            f"{path} was saved with a schedule of another kind, which knows nothing of what this one goes on from. "
            "Keep schedule.name, or begin a new run without --resume."
        )
    t.schedule.load_state_dict(payload["schedule"])
    t.engine.load_state_dict(payload["engine"])
    t.state = State.of(payload)
    t.state.under_way.images //= t.engine.processes
    if t.records:
        t.records.restore(t.state.rows)
    if t.engine.is_main and t.state.best_epoch == t.state.epoch and not t.state.under_way.steps:
        save_best(t)


def load_optimizer(t: Training, state: dict[str, Any]) -> None:
    """The optimizer's moments and rates; what else its groups hold stays as the config says. Raises `ConfigError`."""
    own = [{key: value for key, value in group.items() if key not in CARRIED} for group in t.optimizer.param_groups]
    try:
        t.engine.load_optimizer_state(t.optimizer, state, t.folder)
    except SegwrightError:
        raise
    except ValueError as error:
        raise ConfigError(
            f"the optimizer's state does not fit this config's parameter groups ({error}). Keep optim.layer_decay, "
            "optim.no_decay and the model, or begin a new run without --resume."
        ) from None
    for group, values in zip(t.optimizer.param_groups, own, strict=True):
        group.update(values)


CARRIED = {"params", "lr"}
"""Of a parameter group, what a checkpoint decides: a schedule's step changes the rate."""
