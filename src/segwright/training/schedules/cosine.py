"""Falls along half a cosine to `floor`, after a linear warm-up. Defined by the step.

Loshchilov and Hutter 2017, "SGDR", https://arxiv.org/abs/1608.03983, equation 5, without restarts; with the warm-up of
Goyal et al. 2017, https://arxiv.org/abs/1706.02677. At step t of T after W steps of warm-up from the share s:
rate = peak (s + (1 - s) t/W) while t < W, then peak (floor + (1 - floor) (1 + cos(pi (t - W) / (T - W))) / 2).
"""

import math
from dataclasses import dataclass

from torch.optim import Optimizer

from segwright.errors import ConfigError
from segwright.training.schedules.scaled import Scaled, warmup_of, warmup_problems


@dataclass(frozen=True, kw_only=True)
class Config:
    warmup_steps: int | None = None
    """Steps on the way up; none: none, unless `warmup_epochs` is given."""
    warmup_epochs: float | None = None
    """The same in epochs."""
    warmup_from: float = 0.001
    """Share of the learning rate at which the warm-up begins."""
    floor: float = 0.0
    """Share of the learning rate at which the run ends."""

    def __post_init__(self) -> None:
        warmup_problems(self.warmup_steps, self.warmup_epochs, self.warmup_from)
        if not 0 <= self.floor < 1:
            raise ConfigError(f"schedule.floor is {self.floor}; it is a share of the learning rate. Give e.g. 0.01.")


def build(config: Config, optimizer: Optimizer, total_steps: int, epoch_steps: int) -> Scaled:
    """The schedule over `total_steps` optimizer steps. `ConfigError`: the warm-up is longer than the run."""
    warmup = warmup_of(config.warmup_steps, config.warmup_epochs, 0, total_steps, epoch_steps)

    def factor(done: int) -> float:
        if done < warmup:
            return config.warmup_from + (1 - config.warmup_from) * done / warmup
        turn = min(1.0, (done - warmup) / (total_steps - warmup))
        return config.floor + (1 - config.floor) * (1 + math.cos(math.pi * turn)) / 2

    return Scaled(optimizer, factor)
