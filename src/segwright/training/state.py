"""How far a run is, and everything that the loop works with."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from segwright.data import EpochBatches
from segwright.engine import Engine
from segwright.model import Segmenter
from segwright.training.config import Config
from segwright.training.ema import Average
from segwright.training.records import Records
from segwright.training.stopping import StopRequest


@dataclass
class UnderWay:
    """The epoch that is being trained: what its row of the log is made of."""

    steps: int = 0
    """Optimizer steps done or skipped."""
    skipped: int = 0
    loss_sum: float = 0.0
    """Of the steps that were not skipped, on this process."""
    images: int = 0
    """Of this process."""
    seconds: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)
    """Learning rates at its beginning."""

    def count(self, loss: float | None, images: int) -> None:
        """Adds a step; its loss is None where it was skipped."""
        self.steps += 1
        self.images += images
        self.skipped += loss is None
        self.loss_sum += loss or 0.0

    @property
    def loss(self) -> float:
        """The mean over its steps so far, on this process."""
        return self.loss_sum / (self.steps - self.skipped) if self.steps > self.skipped else math.nan


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
    under_way: UnderWay = field(default_factory=UnderWay)

    def trained_s(self) -> float:
        """Seconds of training so far."""
        return sum(row["seconds"] for row in self.rows) + self.under_way.seconds

    def dump(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def of(cls, payload: dict[str, Any]) -> "State":
        """What a checkpoint holds of it."""
        own = {key: payload[key] for key in ("epoch", "best_iou", "best_epoch", "stale", "rows")}
        return cls(**own, under_way=UnderWay(**payload["under_way"]))


@dataclass
class Training:
    """Everything that the loop works with."""

    config: Config
    engine: Engine
    model: nn.Module
    """As the engine wrapped it."""
    bare: Segmenter
    average: Average | None
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
    identity: dict[str, Any]
    """What a run that goes on must find again, besides the config: `last.pth` carries it."""
    folder: Path
    records: Records | None
    """Of the main process."""
    stop: StopRequest
    state: State = field(default_factory=State)
