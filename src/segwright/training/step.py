"""One optimizer step: forward and backward of its batches, clipping, the step; and what is not finite."""

import logging
import math

import numpy as np
import torch
from torch import Tensor

from segwright.engine import Engine
from segwright.errors import TrainingError
from segwright.model import Segmenter
from segwright.training.state import Training
from segwright.transforms import normalise

log = logging.getLogger("segwright")

Batch = dict[str, Tensor]


def seed_step(t: Training, epoch: int, step: int) -> None:
    """Dropout and stochastic depth of a step are drawn from (seed, epoch, step, process), so that any step can be the
    first after a stop."""
    words = [t.config.seed, epoch, step, t.engine.rank]
    torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))


def train_step(t: Training, batches: list[Batch]) -> float | None:
    """Forward and backward of each batch, one step. The mean loss, or None where it was not finite on one of the
    processes and the step was skipped on all."""
    statistics = [buffer.clone() for buffer in t.bare.buffers()] if t.config.on_nan == "skip" else []
    t.optimizer.zero_grad(set_to_none=True)
    total, finite = add_gradients(t, batches)
    norm = t.engine.clip(t.bare.parameters(), t.config.grad_clip or math.inf) if finite else 0.0
    if not finite or not (math.isfinite(norm) or t.engine.overflows):
        not_finite(t, batches, total, norm)
        for buffer, before in zip(t.bare.buffers(), statistics, strict=True):
            buffer.copy_(before)  # the forward pass has moved the batch norms already
        return None
    t.optimizer.step()
    if t.average:
        t.average.update(t.bare)
    if t.schedule.per_step:
        t.schedule.step()
    return total / len(batches)


def add_gradients(t: Training, batches: list[Batch]) -> tuple[float, bool]:
    """Adds up the gradients of the batches' mean loss. Their losses' sum, and whether it is finite on all processes;
    where it is not, the last batch, whose gradients the processes exchange, has none."""
    total, every = 0.0, t.engine.distributed == "zero2"  # which exchanges gradients after each batch
    for number, batch in enumerate(batches, 1):
        last = number == len(batches)
        with t.engine.accumulating(t.model, last=last):
            image, mask = to_device(batch, t.engine, t.bare)
            loss = loss_of(t, image, mask)
            total += float(loss.detach())
            if (last or every) and t.engine.any(not math.isfinite(total)):
                return total, False
            if math.isfinite(total):
                t.engine.backward(loss)
    return total, True


def loss_of(t: Training, image: Tensor, mask: Tensor) -> Tensor:
    """A batch's loss. One that compares places gets the model's embedding and the step's number, too."""
    if not getattr(t.loss, "needs_embedding", False):
        return t.loss(t.model(image, resize=False), mask)
    logits, embedding = t.model(image, resize=False, embedded=True)
    step = t.state.epoch * t.sampler.steps + t.state.under_way.steps
    return t.loss(logits, mask, embedding=embedding, step=step, steps=t.config.epochs * t.sampler.steps)


def to_device(batch: Batch, engine: Engine, model: Segmenter) -> tuple[Tensor, Tensor]:
    """image (B, 3, H, W) normalised float, channels-last; mask (B, H, W) int64."""
    image = batch["image"].to(engine.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    mask = batch["mask"].to(engine.device, non_blocking=True).long()
    return normalise(image, model.encoder.mean, model.encoder.std), mask


def not_finite(t: Training, batches: list[Batch], loss: float, norm: float) -> None:
    """Stops the run with the images' names, or logs them where the config says skip. Called on all processes."""
    names = ", ".join(name for batch in batches for name in t.image_names(batch["index"].tolist()))
    if not math.isfinite(loss):
        what = f"the loss is {loss} on these images: {names}"
    elif not math.isfinite(norm):
        where = "these images" if t.engine.processes == 1 else "the images of one of the processes, of this one"
        what = f"the gradient's norm is {norm} on {where}: {names}"
    else:
        what = "the loss is not finite on another process, which names its images"
    if t.config.on_nan == "stop":
        raise TrainingError(
            f"{what}. Nothing can be learnt from that; the checkpoints hold the "
            "last good epoch. Look at the images, lower optim.lr, set train.amp=false, or train.on_nan=skip."
        )
    log.log(logging.WARNING if t.engine.is_main else logging.ERROR, "step skipped: %s", what)  # others log errors alone
