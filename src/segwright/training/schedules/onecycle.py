"""One cycle: up to the learning rate and down to almost nothing, over the whole run. Defined by the step.

Smith and Topin 2018, "Super-Convergence", https://arxiv.org/abs/1708.07120, in torch's cosine form.
"""

from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from segwright.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    warmup: float = 0.2
    """Share of the steps on the way up."""

    def __post_init__(self) -> None:
        if not 0 < self.warmup < 1:
            raise ConfigError(f"schedule.warmup is {self.warmup}; it is a share of the run. Give e.g. 0.2.")


class OneCycle:
    per_step = True

    def __init__(self, optimizer: Optimizer, warmup: float, total_steps: int) -> None:
        peaks = [group["lr"] for group in optimizer.param_groups]
        # one step more than are taken: torch refuses the step after the last
        self._torch = OneCycleLR(optimizer, peaks, total_steps=total_steps + 1, pct_start=warmup, cycle_momentum=False)

    def step(self, score: float | None = None) -> None:
        """After each optimizer step."""
        self._torch.step()

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in self._torch.state_dict().items() if not callable(value)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._torch.load_state_dict(state)


def build(config: Config, optimizer: Optimizer, total_steps: int) -> OneCycle:
    """The schedule over `total_steps` optimizer steps."""
    return OneCycle(optimizer, config.warmup, total_steps)
