"""From a split on disk to batches: preloading, reading, resizing, augmenting, ordering."""

from segwright.data.batches import (
    Config,
    EpochBatches,
    EvaluationSet,
    Share,
    TrainingSet,
    evaluation_batches,
    read_pair,
    stacked,
    training_batches,
    worker_count,
)
from segwright.data.own_sizes import refuse_mixed
from segwright.data.preload import Preloaded, preloaded

__all__ = [
    "Config",
    "EpochBatches",
    "EvaluationSet",
    "Preloaded",
    "Share",
    "TrainingSet",
    "evaluation_batches",
    "preloaded",
    "read_pair",
    "refuse_mixed",
    "stacked",
    "training_batches",
    "worker_count",
]
