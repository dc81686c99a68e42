"""The training loop: `fit` is the whole of it, each step a function with a name.

A run is a function of its config, its data and the number of steps done: every random number is drawn from
(seed, epoch, step), so a run that was killed goes on from `last.pth` and ends with the same weights, bit for bit on one
CPU process.
"""

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NoReturn

import torch

from segwright.errors import Stopped, TrainingError
from segwright.progress import bar
from segwright.training.freeze import begin_epoch
from segwright.training.optim import rates_now
from segwright.training.saving import save_checkpoints, save_last
from segwright.training.state import State, Training, UnderWay
from segwright.training.step import Batch, seed_step, train_step
from segwright.training.stopping import Interrupted

log = logging.getLogger("segwright")


def fit(t: Training) -> State:
    """Trains until the epochs are done or validation has stopped rising. Gives the final state.

    Raises:
        Stopped: a signal asked for it; the run is saved as it is.
        TrainingError: nothing can be learnt any more.
    """
    for epoch in range(t.state.epoch, t.config.epochs):
        if stop_early(t):
            break
        frozen = begin_epoch(t.bare, epoch, t.config.frozen_epochs)
        row = train_epoch(t, epoch)
        row |= {f"valid_{name}": value for name, value in validated(t).items()}
        if not t.schedule.per_step:
            t.schedule.step(row["valid_iou"])
        best = update_state(t.state, epoch, row | {"frozen": int(frozen)})
        save_checkpoints(t, best)
        if t.records:
            t.records.epoch(t.state.rows, t.config.epochs, best)
    return t.state


def stop_early(t: Training) -> bool:
    """Whether validation has been stale for too long, counted from the end of the frozen phase."""
    patience = t.config.early_stopping
    waited = min(t.state.stale, t.state.epoch - t.config.freeze_epochs)
    if patience and waited >= patience:
        log.info("stopped early: no better validation IoU for %d epochs", t.state.stale)
        return True
    return False


def train_epoch(t: Training, epoch: int) -> dict[str, Any]:
    """The steps of an epoch that are left of it; the row of the log that it makes."""
    now = t.state.under_way
    now.rates = now.rates or rates_now(t.optimizer)
    t.sampler.epoch, t.sampler.done = epoch, now.steps
    start = time.perf_counter() - now.seconds
    with bar(f"epoch {epoch + 1}/{t.config.epochs}", t.sampler.steps) as progress:
        progress.advance(now.steps)
        for batches in in_steps(t.batches, t.config.accumulate):
            seed_step(t, epoch, now.steps)
            now.count(train_step(t, batches), sum(len(batch["index"]) for batch in batches))
            now.seconds = time.perf_counter() - start
            progress.advance(1, f"loss {now.loss:.4f}  {now.images / now.seconds:.1f} images/s")
            save_or_stop(t)
    if now.skipped == now.steps:
        raise TrainingError(
            f"no step of epoch {epoch + 1} had a finite loss and gradient, so nothing is learnt any more; the "
            "checkpoints hold the last good epoch. Lower optim.lr, or set train.amp=false."
        )
    return row_of(t, epoch)


def in_steps(batches: Iterable[Batch], count: int) -> Iterator[list[Batch]]:
    """`count` batches at a time."""
    remaining = iter(batches)
    while group := list(islice(remaining, count)):
        yield group


def save_or_stop(t: Training) -> None:
    """After a step: saves where the config says so, and leaves where a signal has asked for it, at the same step on all
    processes."""
    every, steps = t.config.save_every_steps, t.state.under_way.steps
    asked = t.engine.any(t.stop.asked is not None)
    if asked or (every and steps % every == 0 and steps < t.sampler.steps):
        save_last(t)
    if asked:
        leave(t)


def leave(t: Training) -> NoReturn:
    """Raises `Stopped`; the run has been saved."""
    now = t.state.under_way
    raise Stopped(
        f"{t.stop.asked or 'a signal to another process'} ended the run after step {now.steps} of {t.sampler.steps} of "
        f"epoch {t.state.epoch + 1}; it is saved as it is. Go on with --resume --output "
        f"{t.folder}: it ends as if it had never stopped."
    )


def row_of(t: Training, epoch: int) -> dict[str, Any]:
    """The log's row of an epoch that has been trained; the loss is the mean over all processes."""
    now = t.state.under_way
    taken, losses, images = t.engine.sum(
        torch.tensor([now.steps - now.skipped, now.loss_sum, now.images], dtype=torch.float64, device=t.engine.device)
    ).tolist()
    return {
        "epoch": epoch + 1,
        "train_loss": losses / taken,
        **{f"lr_{name}": rate for name, rate in now.rates.items()},
        "skipped": now.skipped,
        "seconds": round(now.seconds, 3),
        "images_per_s": round(images / now.seconds, 3),
    }


def validated(t: Training) -> dict[str, float]:
    """The scores of the weights that are saved. A signal ends one process's validation, which is done anew later."""
    try:
        with t.average.in_place_of(t.bare) if t.average else contextlib.nullcontext():
            return t.validate()
    except Interrupted:
        save_last(t)
    leave(t)


def update_state(state: State, epoch: int, row: dict[str, Any]) -> bool:
    """Counts the epoch as done; True where its validation IoU is the best so far."""
    best = row["valid_iou"] > state.best_iou
    state.epoch, state.under_way = epoch + 1, UnderWay()
    state.rows.append(row)
    state.stale = 0 if best else state.stale + 1
    if best:
        state.best_iou, state.best_epoch = row["valid_iou"], epoch + 1
    return best
