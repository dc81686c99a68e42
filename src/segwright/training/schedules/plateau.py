"""Lowers the learning rate when validation IoU has stopped rising. Defined by the epoch."""

from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from segwright.errors import ConfigError

LOOKS_AT_THE_END = False
"""A run may be lengthened."""


@dataclass(frozen=True, kw_only=True)
class Config:
    factor: float = 0.5
    """What every learning rate is multiplied by."""
    patience: int = 5
    """Epochs without a better validation IoU before that happens."""

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise ConfigError(f"schedule.factor is {self.factor}; only a number between 0 and 1 lowers the rate.")
        if self.patience < 0:
            raise ConfigError(f"schedule.patience is {self.patience}; give 0 or more epochs.")


class Plateau:
    per_step = False

    def __init__(self, optimizer: Optimizer, factor: float, patience: int) -> None:
        self._optimizer, self._first = optimizer, [group["lr"] for group in optimizer.param_groups]
        self._torch = ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience)

    def step(self, score: float) -> None:
        """After each validation, with its IoU."""
        self._torch.step(score)

    def state_dict(self) -> dict[str, Any]:
        return {"torch": self._torch.state_dict(), "first": self._first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """After the optimizer's: its rates are as they were lowered. Where the run goes on with others than it began
        with, they are lowered as much."""
        own = {key: getattr(self._torch, key) for key in ("factor", "patience")}  # the config's, should they differ
        self._torch.load_state_dict(state["torch"] | own)
        for group, before, now in zip(self._optimizer.param_groups, state["first"], self._first, strict=True):
            if now != before:
                group["lr"] *= now / before


def build(config: Config, optimizer: Optimizer, total_steps: int, epoch_steps: int) -> Plateau:
    """The schedule; it needs no number of steps."""
    return Plateau(optimizer, config.factor, config.patience)
