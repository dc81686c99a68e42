"""One cycle: up to the learning rate and down to almost nothing, over the whole run. Defined by the step.

Smith and Topin 2018, "Super-Convergence", https://arxiv.org/abs/1708.07120, in the form and with the constants of
torch's OneCycleLR: half a cosine from 1/25 of the peak up to it, half a cosine down to 1/25 of 1/10000 of it. Momentum
stays as it is.
"""

import math
from dataclasses import dataclass

from torch.optim import Optimizer

from segwright.errors import ConfigError
from segwright.training.schedules.scaled import Scaled

START = 1 / 25
END = START / 1e4


@dataclass(frozen=True, kw_only=True)
class Config:
    warmup: float = 0.2
    """Share of the steps on the way up."""
    max_lr: float | None = None
    """The head's learning rate at the peak; those of other groups keep their ratio to it. None: the groups' own."""

    def __post_init__(self) -> None:
        if not 0 < self.warmup < 1:
            raise ConfigError(f"schedule.warmup is {self.warmup}; it is a share of the run. Give e.g. 0.2.")
        if self.max_lr is not None and not 0 < self.max_lr < 10:
            raise ConfigError(f"schedule.max_lr is {self.max_lr}; a learning rate is positive and small, e.g. 0.001.")


def build(config: Config, optimizer: Optimizer, total_steps: int, epoch_steps: int) -> Scaled:
    """The schedule over `total_steps` optimizer steps. `ConfigError`: too few steps to go up and down."""
    top = config.warmup * (total_steps + 1) - 1
    if top <= 0:
        raise ConfigError(
            f"schedule.name is onecycle, but the run has {total_steps} steps ({epoch_steps} an epoch), and "
            f"schedule.warmup={config.warmup} of them are none on the way up. Raise train.epochs, lower "
            "train.batch_size, or take schedule.name=cosine."
        )

    def factor(done: int) -> float:
        if done <= top:
            return _between(START, 1.0, done / top)
        return _between(1.0, END, min(1.0, (done - top) / (total_steps - top)))

    rates = [group["lr"] for group in optimizer.param_groups]
    scale = config.max_lr / rates[0] if config.max_lr else 1.0
    return Scaled(optimizer, factor, [rate * scale for rate in rates])


def _between(start: float, end: float, turn: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * turn))
