"""Section `train`: how long, how much at once, what to do when it goes wrong."""

import math
from dataclasses import dataclass
from typing import Literal

from segwright.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    epochs: int = 50
    """How often the run trains, validates and saves."""
    passes: int = 1
    """Passes over the training images in an epoch; more than 1 where there are so few that validating takes as long."""
    batch_size: int = 8
    """Images that one process takes at once."""
    accumulate: int = 1
    """Batches whose gradients a step adds up: a step of batch_size x accumulate images in the memory of batch_size."""
    freeze_epochs: int = 0
    """First epochs in which the encoder stays as it is."""
    freeze_encoder: bool = False
    """The encoder stays as it is for the whole run."""
    ema: float | None = None
    """Validate and save a moving average of the weights, which keeps this share of itself at each step, e.g. 0.999;
    less in the first steps. None: the weights themselves."""
    amp: bool = True
    """Mixed precision where the device gains by it."""
    grad_clip: float = 1.0
    """Highest norm of all gradients together; 0: no clipping."""
    early_stopping: int = 20
    """Epochs without a better validation IoU after which the run ends; 0: never."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What a loss that is not finite does: stop and name the images, or skip the step and count it."""
    save_every_steps: int = 0
    """Save `last.pth` after every so many steps of an epoch too; 0: at its end alone."""
    seed: int = 0
    """Decides initial weights, order and augmentation."""
    device: str | None = None
    """`cpu` to leave a GPU alone, `cuda` to insist on one; none: the GPU where there is one."""
    distributed: str = "auto"
    """How several processes share the work: `none`, `ddp`, `zero1` or `zero2` (DeepSpeed). `auto`, `auto_zero1` and
    `auto_zero2`: as many as were started, perhaps one; `auto` by `ddp`, or as `accelerate launch` was told."""
    processes: int | None = None
    """How many processes must take part, or the run does not begin; none: as many as were started."""

    def __post_init__(self) -> None:
        problems = []
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                problems.append(f"train.{name} is {value}; give {least} or more.")
        if self.freeze_epochs >= self.epochs > 0 and self.freeze_epochs:
            problems.append(
                f"train.freeze_epochs is {self.freeze_epochs}, but the run has {self.epochs} epochs, so the encoder "
                "would never train. Lower it, or raise train.epochs."
            )
        if self.device not in (None, "cpu", "cuda"):
            problems.append(f"train.device is '{self.device}'; give cpu, cuda, or nothing.")
        if not 0 <= self.grad_clip < math.inf:
            problems.append(f"train.grad_clip is {self.grad_clip}; give 0 for none, or a positive norm.")
        if self.ema is not None and not 0 < self.ema < 1:
            problems.append(
                f"train.ema is {self.ema}; it is the share of itself that the average keeps at a step. Give e.g. 0.999."
            )
        if problems:
            raise ConfigError("\n  - ".join(problems))

    @property
    def frozen_epochs(self) -> int:
        """Epochs in which the encoder is frozen."""
        return self.epochs if self.freeze_encoder else self.freeze_epochs

    @property
    def thaws(self) -> bool:
        """Whether the encoder is frozen first and trained later."""
        return 0 < self.frozen_epochs < self.epochs


LEAST = {
    "epochs": 1,
    "passes": 1,
    "batch_size": 1,
    "accumulate": 1,
    "freeze_epochs": 0,
    "early_stopping": 0,
    "save_every_steps": 0,
    "seed": 0,
    "processes": 1,
}
