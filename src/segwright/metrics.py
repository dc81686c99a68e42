"""Scores over a whole data set, from counts, never averaged over batches.

K classes, N images. A pixel with the mask value 255 counts nowhere. For one class (binary) the score is the positive
class's; for several, the mean over those that occur in the truth or in the prediction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from segwright.datasets.base import IGNORE
from segwright.large import strips

NEAR_PX = 2
"""Tolerance of `f1_2px`, in pixels: usual for crack data sets (Shi et al. 2016, T-ITS 17(12), allow a few pixels)."""


SCORES = ("iou", "dice", "precision", "recall")


@dataclass
class Counts:
    """True positives, false positives and false negatives per image and class, in pixels."""

    num_classes: int
    rows: list[np.ndarray] = field(default_factory=list)
    """A (K, 3) int64 array an image."""
    confusion: np.ndarray | None = None
    """Pixels of all images by true (row) and predicted (column) class, (K, K) int64, (2, 2) for one class; none yet."""

    def add(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """One image: class ids (H, W), of 0 and 1 where binary."""
        ids = max(self.num_classes, 2)
        confusion = np.zeros((ids, ids), np.int64)
        for rows in strips(truth.shape):
            valid = truth[rows] != IGNORE
            pairs = truth[rows][valid].astype(np.int64) * ids + prediction[rows][valid]
            confusion += np.bincount(pairs, minlength=ids * ids).reshape(ids, ids)
        self.confusion = confusion if self.confusion is None else self.confusion + confusion
        hits = np.diag(confusion)
        row = np.stack([hits, confusion.sum(0) - hits, confusion.sum(1) - hits], axis=1)
        self.rows.append(row[1:] if self.num_classes == 1 else row)

    def reduce(self, add: Callable[[Tensor], Tensor]) -> None:
        """The counts of all processes, as one row, with what adds a tensor up over them."""
        self.rows = [add(torch.from_numpy(np.asarray(self.total(), np.int64))).numpy()]
        ids = max(self.num_classes, 2)
        own = np.zeros((ids, ids), np.int64) if self.confusion is None else self.confusion
        self.confusion = add(torch.from_numpy(own)).numpy()

    def total(self) -> np.ndarray:
        """(K, 3) sums over the images."""
        return np.sum(self.rows, axis=0) if self.rows else np.zeros((self.num_classes, 3), np.int64)


def scores(counts: np.ndarray) -> dict[str, float]:
    """IoU, Dice, precision and recall of (K, 3) counts, as the mean over the classes that occur.

    No class at all (nothing to find, nothing found) scores 1 everywhere. A precision without predictions, or a recall
    without truth, is 0.
    """
    present = counts[counts.sum(1) > 0]
    if not len(present):
        return dict.fromkeys(SCORES, 1.0)
    tp, fp, fn = present.T.astype(float)
    found, true = tp + fp, tp + fn
    return {
        "iou": float(np.mean(tp / (tp + fp + fn))),
        "dice": float(np.mean(2 * tp / (2 * tp + fp + fn))),
        "precision": float(np.mean(np.divide(tp, found, out=np.zeros_like(tp), where=found > 0))),
        "recall": float(np.mean(np.divide(tp, true, out=np.zeros_like(tp), where=true > 0))),
    }


def class_scores(counts: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Name -> scores of each class of (K, 3) counts alone; None for one that neither truth nor prediction holds."""
    return {
        name: {**scores(row[None])} if row.sum() else dict.fromkeys(SCORES)
        for name, row in zip(names, counts, strict=True)
    }


@dataclass
class ThresholdSweep:
    """Counts of a binary task at every threshold k / BINS at once, from two histograms."""

    BINS = 200
    positive: np.ndarray = field(default_factory=lambda: np.zeros(201, np.int64))
    negative: np.ndarray = field(default_factory=lambda: np.zeros(201, np.int64))

    def add(self, probability: np.ndarray, truth: np.ndarray) -> None:
        """One image: probabilities (H, W) in 0..1 and its mask (H, W)."""
        for rows in strips(truth.shape):
            bins = np.floor(probability[rows] * self.BINS).astype(np.int64)
            self.positive += np.bincount(bins[truth[rows] == 1], minlength=self.BINS + 1)
            self.negative += np.bincount(bins[truth[rows] == 0], minlength=self.BINS + 1)

    def best(self) -> tuple[float, float]:
        """(threshold, IoU) with the highest data set IoU; a pixel is positive where its probability is at least the
        threshold. Without a positive pixel: (0.5, 0).

        Where several are equally good, the middle of the longest run of neighbours among them (of the first such run):
        0.5 for a model that gives 0.1 and 0.9, as far as possible from what it would get wrong on other images.
        """
        if not self.positive.sum():
            return 0.5, 0.0
        tp = self.positive[::-1].cumsum()[::-1]
        fp = self.negative[::-1].cumsum()[::-1]
        iou = tp / (self.positive.sum() + fp)
        k = 1 + _middle_of_longest_run(iou[1:-1] == iou[1:-1].max())
        return k / self.BINS, float(iou[k])


def _middle_of_longest_run(flags: np.ndarray) -> int:
    """Index in (n,) bool, of which at least one is true; of two in the middle, the lower."""
    starts, ends = np.flatnonzero(np.diff(flags, prepend=False, append=False)).reshape(-1, 2).T
    longest = np.argmax(ends - starts)
    return int(starts[longest] + ends[longest] - 1) // 2


@dataclass
class NearF1:
    """F1 in which a pixel is right if the other mask has one within `NEAR_PX` (Euclidean), summed over the data set."""

    hit: int = 0
    predicted: int = 0
    found: int = 0
    true: int = 0

    def add(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """One image: boolean-like (H, W); ignored pixels count nowhere."""
        valid = truth != IGNORE
        positive, real = (prediction == 1) & valid, truth == 1
        self.hit += int((positive & dilate(real, NEAR_PX)).sum())
        self.predicted += int(positive.sum())
        self.found += int((real & dilate(positive, NEAR_PX)).sum())
        self.true += int(real.sum())

    def f1(self) -> float:
        """The harmonic mean of tolerant precision and recall; 1 where there is nothing to find and nothing found."""
        if not self.predicted and not self.true:
            return 1.0
        precision = self.hit / self.predicted if self.predicted else 0.0
        recall = self.found / self.true if self.true else 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Every pixel within `radius` pixels (Euclidean) of a true one, (H, W) bool."""
    height, width = mask.shape
    padded = np.pad(mask, radius)
    out = np.zeros_like(mask)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy * dy + dx * dx <= radius * radius:
                out |= padded[radius + dy : radius + dy + height, radius + dx : radius + dx + width]
    return out
