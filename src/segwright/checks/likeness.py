"""Images that show the same thing: copies that were brightened, compressed, mirrored, turned or cropped a little, and
the same spot photographed twice.

Each image becomes a grey thumbnail of 48 x 48, normalised by the mean and the spread around each pixel (a window of 9),
so that light and contrast drop out and only details count. Candidates come from correlating all pairs at 24 x 24, where
one image is turned, mirrored or cropped to 95 % at nine places. A candidate is confirmed at 48 x 48 by laying one of
the two, at several scales, on every place of the other. It counts as alike if the correlation stands out: images that
share a camera or a frame (a retina's disc, a bonnet) are all somewhat alike, so the bar lies where LEAP says between
what the two usually have in common with others and 1.

Measured: unrelated road surfaces (CrackForest) reach 0.30; its images 001 and 095, one crack photographed twice, 0.64;
retinas (CHASE_DB1) 0.78, where the bar is above 0.8; none of these is reported but 001 and 095. Copies cropped to
92-97 % at a random place: road surfaces at least 0.62, white noise, which is the hardest, 0.49. Metal ground by one
machine and lit by one lamp (magnetic tiles, six exposures of each) is now and then reported wrongly, at 0.5 to 0.7.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

SIDE = 48
COARSE = 24
LEAP = 0.42
"""Share of the way from the usual correlation to 1."""
CERTAIN = 0.93
"""From here on images are alike whatever is usual; else a data set of nothing but copies would seem fine."""
FLAT = 2.0
"""Grey levels: spread below this is taken for noise and damped. Thumbnails with less than half of it are left out."""
MOST = 20_000
"""Above so many images all pairs would take too long (N^2)."""
_CANDIDATE_LEAP = 0.3
_CANDIDATES_EACH = 8
_SCALES = (48, 47, 46, 45, 44)
_BLOCK = 512


@dataclass(frozen=True)
class Alike:
    """Images `first` and `second` (indices) show the same thing; `how`: what was done to the first."""

    first: int
    second: int
    correlation: float
    how: str


_TURNS = ("", "turned by 90", "turned by 180", "turned by 270")
_MIRRORED = ("mirrored", "mirrored and turned by 90", "upside down", "mirrored and turned by 270")


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (48, 48) uint8, grey, without regard to the aspect ratio."""
    return _resized(Image.fromarray(image).convert("L"), SIDE)


def alike(thumbnails: list[np.ndarray]) -> list[Alike]:
    """Pairs of thumbnails that show the same thing, the most alike first."""
    indices = [index for index, one in enumerate(thumbnails) if _detail(one) >= FLAT / 2]
    usable = [thumbnails[index] for index in indices]
    if len(usable) < 2:
        return []
    usual = _Usual(usable)
    found: dict[tuple[int, int], Alike] = {}
    for a, b, turn in _candidates(usable):
        score = best_overlay(_turned(usable[a], turn), usable[b])
        pair = indices[a], indices[b]
        if score < LEAP or (pair in found and score <= found[pair].correlation):
            continue
        if score >= min(_bar(usual.of(a, b), LEAP), CERTAIN):
            found[pair] = Alike(*pair, score, (_MIRRORED if turn & 4 else _TURNS)[turn & 3])
    return sorted(found.values(), key=lambda one: -one.correlation)


def best_overlay(first: np.ndarray, second: np.ndarray) -> float:
    """Highest correlation of two (48, 48) thumbnails' details when one, scaled down, is laid anywhere on the other."""
    return max(_laid_on(first, second), _laid_on(second, first))


def _laid_on(large: np.ndarray, small: np.ndarray) -> float:
    details, image = _normalised(large, 4), Image.fromarray(small)
    return max(_overlay(details, _normalised(_resized(image, side), 4)) for side in _SCALES)


class _Usual:
    """How alike images are to others as a rule: what four in five overlays with some others stay below."""

    def __init__(self, thumbnails: list[np.ndarray]) -> None:
        self._thumbnails = thumbnails
        self._known: dict[int, dict[int, float]] = {}

    def of(self, a: int, b: int) -> float:
        """Of both images together, without each other."""
        scores = [score for one in (a, b) for other, score in self._scores(one).items() if other not in (a, b)]
        return max(float(np.quantile(scores, 0.8)), 0.0) if scores else 0.0

    def _scores(self, index: int) -> dict[int, float]:
        if index not in self._known:
            count = len(self._thumbnails)
            others = (index + 1 + _sample(count - 1, 8)) % count  # spread over all but itself
            self._known[index] = {
                int(other): _laid_on(self._thumbnails[index], self._thumbnails[other]) for other in others
            }
        return self._known[index]


def _candidates(thumbnails: list[np.ndarray]) -> list[tuple[int, int, int]]:
    """(a, b, turn), a < b: `a` after the turn may be `b`. For each image the most promising."""
    plain = _unit(np.stack([_normalised(_resized(Image.fromarray(one), COARSE), 3) for one in thumbnails]))
    places = (0.0, 0.5, 1.0)
    ways = [(turn, None) for turn in range(8)] + [(0, (y, x)) for y in places for x in places]
    promise: dict[tuple[int, int, int], float] = defaultdict(float)
    for turn, place in ways:
        changed = _unit(np.stack([_changed(one, turn, place) for one in thumbnails]))
        for a, b, excess in _standing_out(changed, plain):
            key = (a, b, turn) if a < b else (b, a, _inverse(turn))
            promise[key] = max(promise[key], excess)
    kept, taken = [], Counter[int]()
    for a, b, turn in sorted(promise, key=lambda key: -promise[key]):
        if min(taken[a], taken[b]) < _CANDIDATES_EACH:
            kept.append((a, b, turn))
            taken.update((a, b))
    return kept


def _standing_out(changed: np.ndarray, plain: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """(row of `changed`, row of `plain`, by how much they pass the candidates' bar), without an image and itself."""
    sample = _sample(len(plain), 256)
    for start in range(0, len(changed), _BLOCK):
        scores = changed[start : start + _BLOCK] @ plain.T
        scores[np.arange(len(scores)), start + np.arange(len(scores))] = -1
        # of a few images the median may itself be a copy; then all pairs above the bare bar are looked at
        usual = np.median(scores[:, sample], axis=1, keepdims=True).clip(0) if len(plain) > 16 else np.zeros((1, 1))
        excess = scores - _bar(usual, _CANDIDATE_LEAP)
        for row, column in np.argwhere(excess >= 0):
            yield start + int(row), int(column), float(excess[row, column])


def _sample(count: int, most: int) -> np.ndarray:
    """Indices spread evenly over `count`."""
    return np.linspace(0, count - 1, min(most, count)).astype(int)


def _bar(usual: Any, leap: float) -> Any:
    """As far above the usual, on the way to 1, as `leap` says."""
    return usual + leap * (1 - usual)


def _turned(image: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight positions: bits 0 and 1 quarter turns, bit 2 mirrored first."""
    return np.ascontiguousarray(np.rot90(image[:, ::-1] if turn & 4 else image, turn & 3))


def _inverse(turn: int) -> int:
    return turn if turn & 4 else -turn & 3  # a mirroring undoes itself


def _changed(image: np.ndarray, turn: int, place: tuple[float, float] | None) -> np.ndarray:
    """(24, 24) details after a turn, or of the 95 % of the image at a place (0 = top or left, 1 = bottom or right)."""
    box = None
    if place is not None:
        room = 0.05 * SIDE
        top, left = place[0] * room, place[1] * room
        box = (left, top, left + SIDE - room, top + SIDE - room)
    return _normalised(_resized(Image.fromarray(_turned(image, turn)), COARSE, box), 3)


def _resized(image: Image.Image, side: int, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box))  # averages when it shrinks


def _mean_around(image: np.ndarray, radius: int) -> np.ndarray:
    width = 2 * radius + 1
    sums = np.pad(image, radius, mode="reflect").cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    return (sums[width:, width:] - sums[:-width, width:] - sums[width:, :-width] + sums[:-width, :-width]) / width**2


def _normalised(image: np.ndarray, radius: int) -> np.ndarray:
    values = image.astype(np.float64)
    values = values - _mean_around(values, radius)
    return (values / np.sqrt(_mean_around(values**2, radius) + FLAT**2)).astype(np.float32)


def _detail(image: np.ndarray) -> float:
    values = image.astype(np.float64)
    return float((values - _mean_around(values, 4)).std())


def _unit(images: np.ndarray) -> np.ndarray:
    """(N, h, w) -> (N, h * w), each of length 1, so that a product is a correlation."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _overlay(large: np.ndarray, small: np.ndarray) -> float:
    """Highest correlation of `small` with a window of `large`."""
    windows = sliding_window_view(large, small.shape).reshape(-1, small.size)
    return float((_unit(windows) @ _unit(small[None])[0]).max())
