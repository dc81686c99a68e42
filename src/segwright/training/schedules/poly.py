"""Falls as a power of what is left of the run, after a linear warm-up. Defined by the step.

Xie et al. 2021, "SegFormer", section 4.1, https://arxiv.org/abs/2105.15203: power 1; the warm-up of 1500 steps from
1e-6 of the rate is that of the configurations published with it. At step t of T, with a warm-up of W steps from the
share s: rate = peak (1 - t/T)^power (s + (1 - s) t/W) while t < W, without the second factor from then on.
"""

from dataclasses import dataclass

from torch.optim import Optimizer

from segwright.errors import ConfigError
from segwright.training.schedules.scaled import Scaled, warmup_of, warmup_problems

PUBLISHED_WARMUP = 1500
"""Steps."""


@dataclass(frozen=True, kw_only=True)
class Config:
    power: float = 1.0
    """1: a straight line."""
    warmup_steps: int | None = None
    """Steps on the way up; none: 1500, unless `warmup_epochs` is given."""
    warmup_epochs: float | None = None
    """The same in epochs."""
    warmup_from: float = 1e-6
    """Share of the learning rate at which the warm-up begins."""

    def __post_init__(self) -> None:
        warmup_problems(self.warmup_steps, self.warmup_epochs, self.warmup_from)
        if self.power <= 0:
            raise ConfigError(f"schedule.power is {self.power}; only a power above 0 falls. Give e.g. 1.0.")


def build(config: Config, optimizer: Optimizer, total_steps: int, epoch_steps: int) -> Scaled:
    """The schedule over `total_steps` optimizer steps. `ConfigError`: the warm-up is longer than the run."""
    warmup = warmup_of(config.warmup_steps, config.warmup_epochs, PUBLISHED_WARMUP, total_steps, epoch_steps)

    def factor(done: int) -> float:
        share = config.warmup_from + (1 - config.warmup_from) * done / warmup if done < warmup else 1.0
        return share * max(0.0, 1 - done / total_steps) ** config.power

    return Scaled(optimizer, factor)
