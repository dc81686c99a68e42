"""Images that show the same thing: copies that were brightened, compressed, mirrored, turned or cropped a little, and
the same spot photographed twice.

Each image becomes a grey thumbnail of 48 x 48, normalised by the mean and the spread around each pixel (a window of 9),
so that light and contrast drop out and only details count. Candidates come from correlating all pairs at 24 x 24, where
one image is turned, mirrored or cropped to 95 % at nine places. A candidate is confirmed at 48 x 48 by laying one of
the two, at several scales, on every place of the other. It counts as alike if the correlation stands out: images that
share a camera or a frame (a retina's disc, a bonnet) are all somewhat alike, so the bar lies where LEAP says between
what the two usually have in common with others and 1.

Measured: ten copies at a time of training images in valid, mirrored, turned, cropped to 90 % at a random place,
brightened or darkened by 40 %, at JPEG 60, or several of these at once: all found in CrackForest, CamVid and the
magnetic tiles (two rounds each). Unrelated road surfaces reach 0.30; CrackForest's 001 and 095, one crack photographed
twice, 0.64; retinas (CHASE_DB1) 0.78, where the bar is above 0.8; of these only 001 and 095 are reported. CamVid's
frames a second apart are reported within its splits, none across. Metal ground by one machine and lit by one lamp
(magnetic tiles, six exposures of each) is reported wrongly now and then: of the pairs looked at, none of 12 above 0.9,
1 of 12 from 0.75 to 0.9, 3 of 12 from 0.6 on, 5 of 11 below.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from segwright.checks.details import FLAT, boxes, detail, integral, normalised, turned, unit

SIDE = 48
COARSE = 24
LEAP = 0.42
"""Share of the way from the usual correlation to 1."""
CERTAIN = 0.93
"""From here on images are alike whatever is usual; else a data set of nothing but copies would seem fine."""
MOST = 20_000
"""Above so many images all pairs would take too long (N^2)."""
_CANDIDATE_LEAP = 0.3
_CANDIDATES_EACH = 8
_SCALES = (48, 47, 46, 45, 44, 43)
_BLOCK = 512
_OTHERS = 9
"""Images, spread over all, that show how alike images are as a rule."""
_KEPT = 256
"""Images whose details are kept while pairs are looked at."""


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


def alike(thumbnails: list[np.ndarray], progress: Callable[[int, int], None] | None = None) -> list[Alike]:
    """Pairs of thumbnails that show the same thing, the most alike first. `progress`: pairs looked at, of how many."""
    indices = [index for index, one in enumerate(thumbnails) if detail(one) >= FLAT / 2]
    usable = [thumbnails[index] for index in indices]
    if len(usable) < 2:
        return []
    usual = _Usual(usable)
    found: dict[tuple[int, int], Alike] = {}
    candidates = sorted(_candidates(usable))
    layers = lru_cache(_KEPT)(lambda index: _Layers.of(usable[index]))
    for number, (a, b, turn) in enumerate(candidates, start=1):
        if progress is not None:
            progress(number, len(candidates))
        score = _overlay(layers(a).turned(turn), layers(b))
        pair = indices[a], indices[b]
        if score < LEAP or (pair in found and score <= found[pair].correlation):
            continue
        if score >= min(_bar(usual.of(a, b), LEAP), CERTAIN):
            found[pair] = Alike(*pair, score, (_MIRRORED if turn & 4 else _TURNS)[turn & 3])
    return sorted(found.values(), key=lambda one: -one.correlation)


def best_overlay(first: np.ndarray, second: np.ndarray) -> float:
    """Highest correlation of two (48, 48) thumbnails' details when one, scaled down, is laid anywhere on the other."""
    return _overlay(_Layers.of(first), _Layers.of(second))


@dataclass(frozen=True)
class _Layers:
    """An image's details at full size, and scaled down to be laid on another's."""

    whole: np.ndarray
    """(48, 48)"""
    scaled: tuple[np.ndarray, ...]
    """(s, s) for each scale; mean 0, length 1"""

    @staticmethod
    def of(image: np.ndarray) -> "_Layers":
        picture = Image.fromarray(image)
        scaled = (normalised(_resized(picture, side), 4) for side in _SCALES)
        return _Layers(normalised(image, 4), tuple(unit(one[None]).reshape(one.shape) for one in scaled))

    def turned(self, turn: int) -> "_Layers":
        return _Layers(turned(self.whole, turn), tuple(turned(one, turn) for one in self.scaled)) if turn else self


def _overlay(first: _Layers, second: _Layers) -> float:
    return max(_laid_on(first, second), _laid_on(second, first))


def _laid_on(large: _Layers, small: _Layers) -> float:
    """Highest correlation of the small one, at any scale, with a window of the large one."""
    sums, squares = integral(large.whole), integral(large.whole**2)
    return max(_best_place(large.whole, sums, squares, one) for one in small.scaled)


def _best_place(large: np.ndarray, sums: np.ndarray, squares: np.ndarray, small: np.ndarray) -> float:
    products = np.tensordot(sliding_window_view(large, small.shape), small, 2)
    variance = boxes(squares, len(small)) - boxes(sums, len(small)) ** 2 / small.size
    return float((products / np.sqrt(np.maximum(variance, 1e-6))).max())


class _Usual:
    """How alike images are to others as a rule: what four in five overlays with some others stay below."""

    def __init__(self, thumbnails: list[np.ndarray]) -> None:
        self._thumbnails = thumbnails
        self._others = {int(index): _Layers.of(thumbnails[index]) for index in _sample(len(thumbnails), _OTHERS)}
        self._known: dict[int, dict[int, float]] = {}

    def of(self, a: int, b: int) -> float:
        """Of both images together, without each other."""
        scores = [score for one in (a, b) for other, score in self._scores(one).items() if other not in (a, b)]
        return max(float(np.quantile(scores, 0.8)), 0.0) if scores else 0.0

    def _scores(self, index: int) -> dict[int, float]:
        if index not in self._known:
            own = _Layers.of(self._thumbnails[index])
            self._known[index] = {other: _laid_on(own, layers) for other, layers in self._others.items()}
        return self._known[index]


def _candidates(thumbnails: list[np.ndarray]) -> list[tuple[int, int, int]]:
    """(a, b, turn), a < b: `a` after the turn may be `b`. For each image the most promising."""
    images = [Image.fromarray(one) for one in thumbnails]
    details = _coarse(images, None)
    plain = unit(details)
    best = _Promising(len(thumbnails))
    for turn in range(8):
        best.see(unit(turned(details, turn)), plain, turn)
    places = (0.0, 0.5, 1.0)
    for place in [(y, x) for y in places for x in places]:
        cropped = _coarse(images, place)
        for turn in (0, 4):  # of turned copies that are cropped as well, mirrored ones are the usual
            best.see(unit(turned(cropped, turn)), plain, turn)
    return best.pairs()


class _Promising:
    """The pairs that are among the `_CANDIDATES_EACH` most promising of one of their images.

    No more than twice that many for each image are ever held, so that a video of N frames, all alike, takes memory for
    N pairs, not for N^2. Of pairs that promise the same, those of the first images stay: then frames that all resemble
    each other equally all hang together by the first of them.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._keys = np.zeros(0, np.int64)
        """(turn x N + a) x N + b of M pairs, (M,), each once"""
        self._promise = np.zeros(0, np.float32)
        """(M,), by how much each passes the candidates' bar at best"""

    def see(self, changed: np.ndarray, plain: np.ndarray, turn: int) -> None:
        """Details of all N images, one length-1 row each: changed, one way being `turn`, and as they are."""
        for start, excess in _excess(changed, plain):
            rows, columns = _highest(excess, _CANDIDATES_EACH)
            others, more = _highest(excess.T, _CANDIDATES_EACH)
            rows, columns = np.append(rows, more), np.append(columns, others)
            promise, rows = excess[rows, columns], rows + start
            turns = np.where(rows < columns, turn, _inverse(turn))
            keys = (turns * self._count + np.minimum(rows, columns)) * self._count + np.maximum(rows, columns)
            self._add(keys, promise)

    def _add(self, keys: np.ndarray, promise: np.ndarray) -> None:
        keys, promise = np.append(self._keys, keys), np.append(self._promise, promise)
        order = np.lexsort((-promise, keys))
        keys, promise = keys[order], promise[order]
        first = np.diff(keys, prepend=-1) > 0
        keys, promise = keys[first], promise[first]
        kept = _leading(np.stack(self._images(keys)), keys, promise, _CANDIDATES_EACH)
        self._keys, self._promise = keys[kept], promise[kept]

    def _images(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return keys // self._count % self._count, keys % self._count

    def pairs(self) -> list[tuple[int, int, int]]:
        """(a, b, turn), a < b."""
        turns = self._keys // self._count**2
        return list(zip(*(one.tolist() for one in (*self._images(self._keys), turns)), strict=True))


def _leading(ends: np.ndarray, keys: np.ndarray, promise: np.ndarray, most: int) -> np.ndarray:
    """Which of M pairs, (M,) bool, are among the `most` most promising of one of their `ends`, (2, M) images."""
    images, pairs = ends.ravel(), np.tile(np.arange(len(keys)), 2)
    order = np.lexsort((keys[pairs], -promise[pairs], images))
    starts = np.searchsorted(images[order], images[order])
    kept = np.zeros(len(keys), bool)
    kept[pairs[order[np.arange(len(order)) - starts < most]]] = True
    return kept


def _excess(changed: np.ndarray, plain: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row of a block of B rows of `changed`, by how much they pass the candidates' bar with each row of `plain`,
    (B, N)); an image with itself does not."""
    sample = _sample(len(plain), 256)
    for start in range(0, len(changed), _BLOCK):
        scores = changed[start : start + _BLOCK] @ plain.T
        scores[np.arange(len(scores)), start + np.arange(len(scores))] = -1
        # of a few images the median may itself be a copy; then all pairs above the bare bar are looked at
        usual = np.median(scores[:, sample], axis=1, keepdims=True).clip(0) if len(plain) > 16 else np.zeros((1, 1))
        scores -= _bar(usual, _CANDIDATE_LEAP).astype(np.float32)
        yield start, scores


def _highest(excess: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the `most` highest of each row, as far as they are 0 or more; of equal ones, the first."""
    passing = np.ascontiguousarray(excess >= 0)
    crowded = np.flatnonzero(np.count_nonzero(passing, axis=1) > most)
    if len(crowded):
        values = excess[crowded]
        least = -np.partition(-values, most - 1, axis=1)[:, most - 1 : most]
        above, equal = values > least, values == least
        free = most - np.count_nonzero(above, axis=1, keepdims=True)
        if (np.count_nonzero(equal, axis=1, keepdims=True) > free).any():
            equal &= np.cumsum(equal, axis=1, dtype=np.int32) <= free
        passing[crowded] = above | equal
    rows, columns = np.divmod(np.flatnonzero(passing), passing.shape[1])
    return rows, columns


def _sample(count: int, most: int) -> np.ndarray:
    """Indices spread evenly over `count`."""
    return np.linspace(0, count - 1, min(most, count)).astype(int)


def _bar(usual: Any, leap: float) -> Any:
    """As far above the usual, on the way to 1, as `leap` says."""
    return usual + leap * (1 - usual)


def _inverse(turn: int) -> int:
    return turn if turn & 4 else -turn & 3  # a mirroring undoes itself


def _coarse(images: list[Image.Image], place: tuple[float, float] | None) -> np.ndarray:
    """(N, 24, 24) details, or those of the 95 % of each image at a place (0 = top or left, 1 = bottom or right)."""
    box = None
    if place is not None:
        room = 0.05 * SIDE
        top, left = place[0] * room, place[1] * room
        box = (left, top, left + SIDE - room, top + SIDE - room)
    return normalised(np.stack([_resized(one, COARSE, box) for one in images]), 3)


def _resized(image: Image.Image, side: int, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box))  # averages when it shrinks
