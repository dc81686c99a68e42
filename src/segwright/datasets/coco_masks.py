"""COCO segmentations to masks, by pycocotools.

A segmentation is a list of polygons `[x0, y0, x1, y1, ...]` (x to the right, y down, in pixels; pixel (0, 0) covers
[0, 1] x [0, 1]) or a run-length encoding `{"size": [H, W], "counts": ...}`, column by column, zeros first, whose counts
are a list or a compressed string. Both forms: https://github.com/cocodataset/cocoapi, common/maskApi.h.

pycocotools (2.0.11) trusts what it is given: counts that do not fill the image give pixels of memory that it does not
own, or an endless loop when masks are united; a first polygon of four numbers is taken for a box. So everything is
checked here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as pycoco

from segwright.datasets.base import IGNORE

Segmentation = list[list[float]] | dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """An annotation that can be painted."""

    segmentation: Segmentation
    class_id: int
    crowd: bool = False


FAR = 10
"""A coordinate further out than this many image sides is no annotation; painting its edge could fill the memory."""


def checked(segmentation: object, height: int, width: int) -> tuple[Segmentation | None, list[tuple[str, str]]]:
    """What of a segmentation can be painted, or None, and what is wrong with it: (finding's code, detail)."""
    if segmentation in (None, []):
        return None, [("no-segmentation", "")]
    if isinstance(segmentation, dict):
        flaw = _rle_flaw(segmentation, height, width)
        return (None, [("bad-segmentation", flaw)]) if flaw else (segmentation, [])
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        return None, [("bad-segmentation", "it is neither a list of polygons nor a run-length encoding")]
    good, problems = [], []
    for polygon in segmentation:
        problem = _polygon_problem(polygon, height, width)
        problems.append(problem) if problem else good.append(polygon)
    return good or None, problems


def union(segmentations: Sequence[Segmentation], height: int, width: int) -> np.ndarray:
    """(H, W) uint8: 1 where any of the (checked) segmentations lies."""
    if not segmentations:
        return np.zeros((height, width), np.uint8)
    encoded = [one for segmentation in segmentations for one in _encoded(segmentation, height, width)]
    return np.ascontiguousarray(pycoco.decode(pycoco.merge(encoded)))


def paint(shapes: Sequence["Shape"], height: int, width: int) -> np.ndarray:
    """(H, W) uint8 class ids, 0 where no shape lies.

    Where shapes overlap the smaller one lies on top, so that what is small or in front is not lost: they are painted
    from the largest area (pixels) down, equal ones in the file's order. Groups (crowds) are painted before all single
    things; what is ignored is painted last.
    """
    if all(shape.class_id == 1 for shape in shapes):
        return union([shape.segmentation for shape in shapes], height, width)
    encoded = [pycoco.merge(_encoded(shape.segmentation, height, width)) for shape in shapes]
    order = sorted(
        range(len(shapes)),
        key=lambda i: (shapes[i].class_id == IGNORE, not shapes[i].crowd, -int(pycoco.area(encoded[i]))),
    )
    ids = np.zeros((height, width), np.uint8)
    for index in order:
        ids[pycoco.decode(encoded[index]).astype(bool)] = shapes[index].class_id
    return ids


def _encoded(segmentation: Segmentation, height: int, width: int) -> list[Any]:
    """pycocotools' own run lengths: one of each polygon, or of the whole."""
    if isinstance(segmentation, list):
        return pycoco.frPyObjects(segmentation, height, width)
    if isinstance(segmentation["counts"], list):
        return [pycoco.frPyObjects(segmentation, height, width)]
    return [segmentation]


def run_lengths(text: str) -> np.ndarray | None:
    """The counts in a compressed string, (runs,) int64; None if it is malformed.

    Each character carries 6 bits above 48: five of the number, lowest first, and whether more follow; the last one's
    fifth bit is the sign. From the fourth number on, a number is the difference to the one two before.
    """
    if not text or not text.isascii():
        return None
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 32) == 0)
    if codes.min() < 0 or codes.max() > 63 or ends.size == 0 or ends[-1] != codes.size - 1:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:  # 7 * 5 bits hold every 32-bit count
        return None
    places = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * places), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _polygon_problem(polygon: list[Any], height: int, width: int) -> tuple[str, str] | None:
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in polygon):
        return "bad-segmentation", "a polygon holds something that is no number"
    if len(polygon) < 6:
        return "short-polygon", f"{len(polygon)} numbers"
    if len(polygon) % 2:
        return "bad-segmentation", f"a polygon has {len(polygon)} numbers, an odd count"
    far = FAR * max(height, width)
    if not all(math.isfinite(value) and abs(value) <= far for value in polygon):
        return "bad-segmentation", f"a polygon leaves the image ({width} x {height}) by far"
    return None


def _rle_flaw(rle: dict[str, Any], height: int, width: int) -> str:
    counts = rle.get("counts")
    if rle.get("size") != [height, width]:
        return f"a run-length encoding is of size {rle.get('size')}, not [{height}, {width}]"
    if isinstance(counts, str):
        runs = run_lengths(counts)
    elif isinstance(counts, list) and all(type(count) is int for count in counts):
        runs = np.array(counts, dtype=object)  # whole numbers of any size
    else:
        runs = None
    if runs is None or runs.size == 0:
        return "a run-length encoding's counts are neither a list of whole numbers nor a compressed string"
    if runs.min() < 0 or runs.sum() != height * width:
        return f"a run-length encoding's counts do not fill the {width} x {height} pixels"
    return ""
