"""Lowers the learning rate when validation IoU has stopped rising. Defined by the epoch."""

from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from segwright.errors import ConfigError


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
        self._torch = ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience)

    def step(self, score: float) -> None:
        """After each validation, with its IoU."""
        self._torch.step(score)

    def state_dict(self) -> dict[str, Any]:
        return self._torch.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._torch.load_state_dict(state)


def build(config: Config, optimizer: Optimizer, total_steps: int) -> Plateau:
    """The schedule; it needs no number of steps."""
    return Plateau(optimizer, config.factor, config.patience)
