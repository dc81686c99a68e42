"""What schedules by the step share: a function of the step that every group's learning rate is multiplied by."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer

from segwright.errors import ConfigError

Factor = Callable[[int], float]
"""Optimizer steps done -> what the next step's learning rate is multiplied by."""


class Scaled:
    """Sets each group's learning rate to its peak, by default the rate that it has now, times `factor(steps done)`.
    No state but the number of steps."""

    per_step = True

    def __init__(self, optimizer: Optimizer, factor: Factor, peaks: Sequence[float] | None = None) -> None:
        self._optimizer, self._factor, self._done = optimizer, factor, 0
        self._peaks = list(peaks or (group["lr"] for group in optimizer.param_groups))
        self._set()

    def _set(self) -> None:
        factor = self._factor(self._done)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def step(self, score: float | None = None) -> None:
        """After each optimizer step."""
        self._done += 1
        self._set()

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._done = state["done"]
        self._set()


def warmup_of(steps: int | None, epochs: float | None, default: int, total_steps: int, epoch_steps: int) -> int:
    """Optimizer steps of a warm-up that is given in steps or in epochs.

    Raises:
        ConfigError: it is as long as the run, or longer.
    """
    warmup = default if steps is None else steps
    if epochs is not None:
        warmup = round(epochs * epoch_steps)
    if warmup >= total_steps:
        given = "warmup_steps" if epochs is None else "warmup_epochs"
        raise ConfigError(
            f"schedule.{given}: the warm-up takes {warmup} steps, but the whole run has {total_steps} ({epoch_steps} "
            "an epoch), so it would end before its full learning rate. Lower the warm-up, e.g. "
            f"schedule.warmup_epochs={max(1, round(0.1 * total_steps / epoch_steps))}, or raise train.epochs."
        )
    return warmup


def warmup_problems(steps: int | None, epochs: float | None, start: float) -> None:
    """Checks the three keys of a warm-up. Raises `ConfigError`."""
    if steps is not None and epochs is not None:
        raise ConfigError("schedule.warmup_steps and schedule.warmup_epochs are both given. Leave out one of them.")
    for name, value in (("warmup_steps", steps), ("warmup_epochs", epochs)):
        if value is not None and value < 0:
            raise ConfigError(f"schedule.{name} is {value}; give 0 or more.")
    if not 0 <= start < 1:
        raise ConfigError(f"schedule.warmup_from is {start}; it is a share of the learning rate, from 0 to below 1.")
