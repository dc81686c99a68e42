"""How sure a score is: images are drawn anew, with replacement, and the data set's score is taken of each draw.

Efron 1979, "Bootstrap methods", https://doi.org/10.1214/aos/1176344552. A draw keeps each image's counts together, sums
them and takes the score of the sum, as for the data set itself; never a mean of the images' own scores. Percentile
intervals. Two runs are compared on the same draws, which takes away what makes an image hard for both.

Images are taken as independent: frames of one video, or pieces of one photograph, make intervals too narrow.

N images, K classes, D draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
"""Ends of a 95 % interval then move by about a twentieth of its width from seed to seed."""
LEVEL = 0.95
AT_ONCE = 1 << 25
"""Bytes of drawn image numbers that are held at a time."""

Interval = tuple[float, float]


def iou(counts: np.ndarray) -> np.ndarray:
    """(..., K, 3) true positives, false positives, false negatives -> (..., K); NaN for a class that does not occur."""
    counts = counts.astype(float)
    union = counts.sum(-1)
    return np.divide(counts[..., 0], union, out=np.full(union.shape, np.nan), where=union > 0)


def dice(counts: np.ndarray) -> np.ndarray:
    """(..., K, 3) -> (..., K); NaN for a class that does not occur."""
    one = iou(counts)
    return 2 * one / (1 + one)


def mean_of_present(scores: np.ndarray) -> np.ndarray:
    """(..., K) -> (...): the mean over the classes that occur; NaN where none does: such a draw tells nothing."""
    there = ~np.isnan(scores)
    return np.where(there.any(-1), np.where(there, scores, 0).sum(-1) / np.maximum(there.sum(-1), 1), np.nan)


def draw(rows: np.ndarray, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """(N, ...) counts of the images -> (D, ...) sums over N images drawn with replacement.

    The draws depend on N, D and the seed alone, so that several runs on the same images can be given the same.
    """
    rng, flat = np.random.default_rng(seed), rows.reshape(len(rows), -1).astype(float)
    step = max(1, AT_ONCE // (8 * len(rows)))
    parts = []
    for start in range(0, draws, step):
        times = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=min(step, draws - start))
        parts.append(times.astype(float) @ flat)
    return np.concatenate(parts).reshape(draws, *rows.shape[1:])


def interval(values: np.ndarray, images: int) -> Interval | None:
    """(D,) scores of the draws from so many images -> the middle `LEVEL` of them.

    None for a single image, and where the score is undefined in more than 1 - `LEVEL` of the draws: it then hangs on
    one or two images, and the draws that have these say nothing of others.
    """
    known = values[~np.isnan(values)]
    if images < 2 or len(known) < LEVEL * len(values):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """Of two runs on the same images, the second's score less the first's."""

    value: float
    between: Interval | None
    """None where the draws cannot tell, see `interval`."""
    p: float
    """Share of the draws on the other side of no difference, doubled: two-sided. 1 where there is no interval."""


def difference(first: np.ndarray, second: np.ndarray, value: float, images: int) -> Difference | None:
    """Paired: two runs' scores (D,) of the same draws, NaN where undefined, and the difference on the data set itself.

    p is never below that of a sign test in which all `images` agree: where they do, so do all draws, however few images
    they are drawn from. None where the score is undefined for one of the runs.
    """
    if np.isnan(value):
        return None
    drawn = second - first
    between = interval(drawn, images)
    if between is None:
        return Difference(float(value), None, 1.0)
    known = drawn[~np.isnan(drawn)]
    tail = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    p = max(2 * (tail + 1) / (len(known) + 1), 2.0 ** (1 - images))
    return Difference(float(value), between, float(min(1.0, p)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979), in the same order: at most 5 % of such families have one below
    0.05 by chance."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    raised = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    out = np.empty(len(p_values))
    out[order] = raised
    return [float(p) for p in out]
