"""The training loop: `fit` is the whole of it, each step a function with a name.

A run is a function of its config, its data and the number of epochs done: every random number is drawn from
(seed, epoch), so a run that was killed goes on from `last.pth` and ends with the same weights, bit for bit on one CPU.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segwright import checkpoint
from segwright.data import EpochBatches
from segwright.engine import Engine
from segwright.errors import ConfigError, TrainingError
from segwright.model import Segmenter
from segwright.progress import bar
from segwright.training.freeze import begin_epoch
from segwright.training.optim import rates_now
from segwright.training.records import Records
from segwright.transforms import normalise

log = logging.getLogger("segwright")


@dataclass(frozen=True, kw_only=True)
class Config:
    epochs: int = 50
    """How often the run trains, validates and saves."""
    passes: int = 1
    """Passes over the training images in an epoch; more than 1 where there are so few that validating takes as long."""
    batch_size: int = 8
    """Images a step."""
    freeze_epochs: int = 0
    """First epochs in which the encoder stays as it is."""
    freeze_encoder: bool = False
    """The encoder stays as it is for the whole run."""
    amp: bool = True
    """Mixed precision where the device gains by it."""
    grad_clip: float = 1.0
    """Highest norm of all gradients together; 0: no clipping."""
    early_stopping: int = 20
    """Epochs without a better validation IoU after which the run ends; 0: never."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What a loss that is not finite does: stop and name the images, or skip the step and count it."""
    seed: int = 0
    """Decides initial weights, order and augmentation."""
    device: str | None = None
    """`cpu` to leave a GPU alone, `cuda` to insist on one; none: the GPU where there is one."""

    def __post_init__(self) -> None:
        problems = []
        for name, least in (
            ("epochs", 1),
            ("passes", 1),
            ("batch_size", 1),
            ("freeze_epochs", 0),
            ("early_stopping", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                problems.append(f"train.{name} is {getattr(self, name)}; give {least} or more.")
        if self.freeze_epochs >= self.epochs > 0 and self.freeze_epochs:
            problems.append(
                f"train.freeze_epochs is {self.freeze_epochs}, but the run has {self.epochs} epochs, so the encoder "
                "would never train. Lower it, or raise train.epochs."
            )
        if self.device not in (None, "cpu", "cuda"):
            problems.append(f"train.device is '{self.device}'; give cpu, cuda, or nothing.")
        if not 0 <= self.grad_clip < math.inf:
            problems.append(f"train.grad_clip is {self.grad_clip}; give 0 for none, or a positive norm.")
        if problems:
            raise ConfigError("\n  - ".join(problems))

    @property
    def frozen_epochs(self) -> int:
        """Epochs in which the encoder is frozen."""
        return self.epochs if self.freeze_encoder else self.freeze_epochs


@dataclass
class State:
    """How far a run is; all of it is in `last.pth`."""

    epoch: int = 0
    """Epochs done."""
    best_iou: float = -1.0
    best_epoch: int = 0
    stale: int = 0
    """Epochs since the best."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The log, one row an epoch."""


@dataclass
class Training:
    """Everything that the loop works with."""

    config: Config
    engine: Engine
    model: nn.Module
    """As the engine wrapped it."""
    bare: Segmenter
    optimizer: Any
    schedule: Any
    loss: nn.Module
    batches: DataLoader
    sampler: EpochBatches
    validate: Callable[[], dict[str, float]]
    """Scores on `valid`, with `iou` among them."""
    image_names: Callable[[list[int]], list[str]]
    header: dict[str, Any]
    """What every checkpoint carries beside the weights: config, classes, normalisation."""
    folder: Path
    records: Records
    state: State = field(default_factory=State)


def fit(t: Training) -> State:
    """Trains until the epochs are done or validation has stopped rising. Gives the final state."""
    for epoch in range(t.state.epoch, t.config.epochs):
        if stop_early(t):
            break
        frozen = begin_epoch(t.bare, epoch, t.config.frozen_epochs)
        row = train_epoch(t, epoch)
        row |= {f"valid_{name}": value for name, value in t.validate().items()}
        if not t.schedule.per_step:
            t.schedule.step(row["valid_iou"])
        best = update_state(t.state, epoch, row | {"frozen": int(frozen)})
        save_checkpoints(t, best)
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
    """One pass over the training images; the row of the log that it makes."""
    torch.manual_seed(int(np.random.SeedSequence([t.config.seed, epoch]).generate_state(1)[0]))
    t.sampler.epoch = epoch
    start, images, skipped, losses = time.perf_counter(), 0, 0, []
    rates = rates_now(t.optimizer)
    with bar(f"epoch {epoch + 1}/{t.config.epochs}", len(t.sampler)) as progress:
        for batch in t.batches:
            loss = train_step(t, batch)
            skipped += loss is None
            losses += [] if loss is None else [loss]
            images += len(batch["index"])
            speed = images / (time.perf_counter() - start)
            progress.advance(1, f"loss {losses[-1] if losses else math.nan:.4f}  {speed:.1f} images/s")
    if skipped == len(t.sampler):
        raise TrainingError(
            f"no step of epoch {epoch + 1} had a finite loss and gradient, so nothing is learnt any more; the "
            "checkpoints hold the last good epoch. Lower optim.lr, or set train.amp=false."
        )
    seconds = time.perf_counter() - start
    return {
        "epoch": epoch + 1,
        "train_loss": sum(losses) / len(losses) if losses else math.nan,
        **{f"lr_{name}": rate for name, rate in rates.items()},
        "skipped": skipped,
        "seconds": round(seconds, 3),
        "images_per_s": round(images / seconds, 3),
    }


def train_step(t: Training, batch: dict[str, Tensor]) -> float | None:
    """Forward, backward, step. The loss, or None where it was not finite and the step was skipped."""
    image, mask = to_device(batch, t.engine, t.bare)
    statistics = [buffer.clone() for buffer in t.bare.buffers()] if t.config.on_nan == "skip" else []
    loss = t.loss(t.model(image, resize=False), mask)
    value = float(loss.detach())
    t.optimizer.zero_grad(set_to_none=True)
    norm = 0.0
    if math.isfinite(value):
        t.engine.backward(loss)
        norm = t.engine.clip(t.bare.parameters(), t.config.grad_clip or math.inf)
    if not math.isfinite(value) or not (math.isfinite(norm) or t.engine.overflows):
        not_finite(t, batch, value, norm)
        for buffer, before in zip(t.bare.buffers(), statistics, strict=True):
            buffer.copy_(before)  # the forward pass has moved the batch norms already
        return None
    t.optimizer.step()
    if t.schedule.per_step:
        t.schedule.step()
    return value


def to_device(batch: dict[str, Tensor], engine: Engine, model: Segmenter) -> tuple[Tensor, Tensor]:
    """image (B, 3, H, W) normalised float, channels-last; mask (B, H, W) int64."""
    image = batch["image"].to(engine.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    mask = batch["mask"].to(engine.device, non_blocking=True).long()
    return normalise(image, model.encoder.mean, model.encoder.std), mask


def not_finite(t: Training, batch: dict[str, Tensor], loss: float, norm: float) -> None:
    """Stops the run with the images' names, or logs them where the config says skip."""
    names = ", ".join(t.image_names(batch["index"].tolist()))
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
    if t.config.on_nan == "stop":
        raise TrainingError(
            f"{what} on these images: {names}. Nothing can be learnt from that; the checkpoints hold the "
            "last good epoch. Look at the images, lower optim.lr, set train.amp=false, or train.on_nan=skip."
        )
    log.warning("step skipped, %s on: %s", what, names)


def update_state(state: State, epoch: int, row: dict[str, Any]) -> bool:
    """Counts the epoch as done; True where its validation IoU is the best so far."""
    best = row["valid_iou"] > state.best_iou
    state.epoch = epoch + 1
    state.rows.append(row)
    state.stale = 0 if best else state.stale + 1
    if best:
        state.best_iou, state.best_epoch = row["valid_iou"], epoch + 1
    return best


def save_checkpoints(t: Training, best: bool) -> None:
    """`last.pth` first: were `best.pth` lost to a kill behind it, `restore` would make it from `last.pth`."""
    weights = {"model": t.bare.state_dict(), **t.header}
    progress = {key: getattr(t.state, key) for key in ("epoch", "best_iou", "best_epoch", "stale", "rows")}
    stepped = {"optimizer": t.optimizer, "schedule": t.schedule, "engine": t.engine}
    resume = {name: part.state_dict() for name, part in stepped.items()}
    checkpoint.save(t.folder / "last.pth", {**weights, **progress, **resume})
    if best:
        save_best(t)


def save_best(t: Training) -> None:
    """The weights as they are, as those of the best epoch."""
    progress = {"epoch": t.state.best_epoch, "best_iou": t.state.best_iou}
    checkpoint.save(t.folder / "best.pth", {"model": t.bare.state_dict(), **t.header, **progress})


def restore(t: Training, payload: dict[str, Any], path: Path) -> None:
    """Puts a run back to where `last.pth` left it."""
    checkpoint.load_weights(t.bare, payload, path)
    t.optimizer.load_state_dict(payload["optimizer"])
    t.schedule.load_state_dict(payload["schedule"])
    t.engine.load_state_dict(payload["engine"])
    t.records.restore(payload["rows"])
    t.state = State(**{key: payload[key] for key in ("epoch", "best_iou", "best_epoch", "stale", "rows")})
    if t.state.best_epoch == t.state.epoch:
        save_best(t)
