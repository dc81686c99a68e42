"""Finished runs read, and compared by their evaluations: which is better, and whether the difference is real.

The runs must have been evaluated on the same images. Scores come with intervals, differences with a paired bootstrap
over images (`segwright.bootstrap`); p values of all pairs of runs are corrected for their number.
"""

import csv
import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from segwright import bootstrap
from segwright.bootstrap import Difference
from segwright.errors import DataError
from segwright.verbs.details import read_counts

log = logging.getLogger("segwright")

PLACES = ("evaluation", "outputs", "")
"""Folders in a run where its evaluation may lie."""
SPLITS = ("test", "valid")
SHOWN = 5
SURE = 0.05
"""A difference counts as real where its corrected p value is below this."""
DRAWS_PER_PAIR = 200


@dataclass(frozen=True)
class Evaluated:
    """A finished run and what its evaluation counted."""

    name: str
    folder: Path
    params: dict[str, Any]
    """`training_params.json`."""
    log: list[dict[str, str]]
    metrics: dict[str, Any]
    images: list[str]
    classes: list[str]
    counts: np.ndarray
    """(N, K, 3) true positives, false positives, false negatives."""

    @property
    def weights(self) -> Path:
        """What was evaluated, also where the run was moved since."""
        told = Path(self.metrics["weights"])
        return told if told.is_file() else self.folder / told.name

    @property
    def way(self) -> dict[str, Any]:
        """How it was evaluated: `section.key` -> value; empty where an earlier evaluation did not tell."""
        return self.metrics.get("evaluated_with", {})

    def facts(self) -> dict[str, Any]:
        """What it is and what it cost; None where that is not known."""
        config, result = self.params.get("config", {}), self.params.get("result", {})
        speeds = [float(row["images_per_s"]) for row in self.log if row.get("images_per_s")]
        return {
            "encoder": config.get("encoder", {}).get("name"),
            "head": config.get("head", {}).get("name"),
            "parameters": self.params.get("parameters"),
            "epochs": result.get("epochs"),
            "training images/s": median(speeds) if speeds else None,
            "evaluation images/s": self.metrics.get("images_per_s"),
            "memory MiB": result.get("peak_memory_mb"),
            "GPU memory MiB": result.get("peak_gpu_memory_mb") or None,
            "time s": result.get("seconds"),
        }


@dataclass(frozen=True)
class Pair:
    """Two runs, the better one first."""

    better: str
    other: str
    iou: Difference
    """Of the better less the other; `p` is corrected for the number of pairs."""
    per_class: dict[str, Difference | None]
    """The same of each class, p values as they are: a class is looked at because it stands out."""

    @property
    def real(self) -> bool:
        return self.iou.p < SURE


@dataclass(frozen=True)
class Comparison:
    """Runs from the best to the worst by mean IoU."""

    split: str
    num_images: int
    classes: list[str]
    runs: list[Evaluated]
    iou: dict[str, tuple[float, bootstrap.Interval | None]]
    """Run -> mean IoU over the classes that the masks have, and its 95 % interval."""
    dice: dict[str, float]
    """Run -> mean Dice over the same classes."""
    per_class: dict[str, dict[str, tuple[float, bootstrap.Interval | None]]]
    """Class -> run -> IoU (NaN where absent) and its 95 % interval."""
    pairs: list[Pair]
    folder: Path


def run_names(folders: Sequence[Path]) -> list[str]:
    times = Counter(folder.resolve().name for folder in folders)
    return [folder.resolve().name if times[folder.resolve().name] == 1 else str(folder) for folder in folders]


def evaluation(folder: Path, split: str) -> Path | None:
    """The folder that holds a run's evaluation on that split."""
    places = [folder / place for place in PLACES]
    return next((place for place in places if (place / f"metrics_{split}.json").is_file()), None)


def common_split(folders: Sequence[Path]) -> str:
    common = [split for split in SPLITS if all(evaluation(folder, split) for folder in folders)]
    return common[0] if common else SPLITS[0]


def read_run(folder: Path, name: str, split: str) -> Evaluated:
    """A run with its evaluation. Raises `DataError` for one that has none."""
    if not (folder / "training_params.json").is_file():
        raise DataError(f"{folder} is no run's folder: it has no training_params.json. Name the folders of runs.")
    place = evaluation(folder, split)
    if place is None:
        raise DataError(
            f"{folder} has not been evaluated on {split}, so there is nothing to compare. Do it with: segwright "
            f"evaluate --weights {folder}/best.pth --split {split} --output {folder}/evaluation"
        )
    try:
        metrics = json.loads((place / f"metrics_{split}.json").read_text())
        params = json.loads((folder / "training_params.json").read_text())
        with (folder / "log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} cannot be read as a run: {error}. Train or evaluate it again.") from None
    images, classes, counts = read_counts(place / f"per_image_{split}.csv")
    if "result" not in params:
        log.warning("%s was not finished, so its time and memory are not known", folder)
    weights = Path(metrics["weights"])
    if weights.is_file() and weights.resolve().parent != folder.resolve():
        log.warning("the evaluation in %s is of %s, which is not this run's", place, weights)
    best = folder / "best.pth"
    if best.is_file() and best.stat().st_mtime > (place / f"metrics_{split}.json").stat().st_mtime:
        log.warning("%s: best.pth is newer than its evaluation, which may be of earlier weights", folder)
    return Evaluated(name, folder, params, rows, metrics, images, classes, counts)


def same_ground(runs: Sequence[Evaluated]) -> None:
    """Brings all runs' images into the first's order. Raises `DataError` where they are not the same."""
    first = runs[0]
    for other in runs[1:]:
        if other.classes != first.classes:
            raise DataError(
                f"{first.name} knows the classes {', '.join(first.classes)}, {other.name} {', '.join(other.classes)}; "
                "their scores mean different things. Compare runs with the same classes."
            )
        only = [sorted(set(a.images) - set(b.images)) for a, b in ((first, other), (other, first))]
        if any(only):
            told = [f"{len(n)} only by {r.name} ({_some(n)})" for n, r in zip(only, (first, other), strict=True) if n]
            raise DataError(
                f"{first.name} and {other.name} were evaluated on different images: {'; '.join(told)}. A difference "
                "could come from that alone. Evaluate both on the same data and split."
            )
        place = {name: index for index, name in enumerate(other.images)}
        order = [place[name] for name in first.images]
        other.counts[:] = other.counts[order]
        other.images[:] = first.images
        truth = [run.counts[..., 0] + run.counts[..., 2] for run in (first, other)]
        changed = [n for n, same in zip(first.images, (truth[0] == truth[1]).all(1), strict=True) if not same]
        if changed:
            raise DataError(
                f"{first.name} and {other.name} were evaluated against different masks of {len(changed)} images "
                f"({_some(changed)}). Evaluate both on the same data."
            )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def compared(runs: Sequence[Evaluated], split: str, folder: Path) -> Comparison:
    """Scores, intervals and differences of runs on the same images.

    Means are over the classes that the masks have: a class that they do not would count for the runs that find it
    somewhere, and for those alone.
    """
    counts = np.stack([run.counts for run in runs], 1)  # (N, R, K, 3)
    total, (drawn, drawn_mean) = counts.sum(0), _drawn(counts)
    iou, mean, dice = bootstrap.iou(total), _mean(bootstrap.iou(total), total), _mean(bootstrap.dice(total), total)
    mean, dice = np.nan_to_num(mean, nan=1.0), np.nan_to_num(dice, nan=1.0)  # nothing there and nothing found
    order = np.argsort(-mean, kind="stable").tolist()
    classes, names = list(enumerate(runs[0].classes)), [run.name for run in runs]
    per_class = {
        name: {names[r]: (float(iou[r, k]), bootstrap.interval(drawn[:, r, k], len(counts))) for r in order}
        for k, name in classes
    }
    pairs = []
    for a, b in combinations(order, 2):
        of_mean = bootstrap.difference(drawn_mean[:, b], drawn_mean[:, a], float(mean[a] - mean[b]), len(counts))
        assert of_mean is not None, "a mean is never undefined"
        of_classes = {
            name: bootstrap.difference(drawn[:, b, k], drawn[:, a, k], float(iou[a, k] - iou[b, k]), len(counts))
            for k, name in classes
        }
        pairs.append(Pair(names[a], names[b], of_mean, of_classes))
    raised = bootstrap.holm([pair.iou.p for pair in pairs])
    return Comparison(
        split=split,
        num_images=len(counts),
        classes=list(runs[0].classes),
        runs=[runs[r] for r in order],
        iou={names[r]: (float(mean[r]), bootstrap.interval(drawn_mean[:, r], len(counts))) for r in order},
        dice={names[r]: float(dice[r]) for r in order},
        per_class=per_class,
        pairs=[replace(pair, iou=replace(pair.iou, p=p)) for pair, p in zip(pairs, raised, strict=True)],
        folder=folder,
    )


def _drawn(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, R, K, 3) counts -> IoU of each class, (D, R, K), and their mean, (D, R), of the same draws.

    Many runs are many pairs: p, which is at least 2 / (D + 1), must come through Holm's correction for all of them.
    """
    pairs = counts.shape[1] * (counts.shape[1] - 1) // 2
    blocks = math.ceil(max(bootstrap.DRAWS, DRAWS_PER_PAIR * pairs) / bootstrap.DRAWS)
    ious, means = [], []
    for seed in range(blocks):
        sums = bootstrap.draw(counts, seed=seed)
        ious.append(bootstrap.iou(sums))
        means.append(_mean(ious[-1], sums))
    return np.concatenate(ious), np.concatenate(means)


def _mean(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(..., R, K) scores -> (..., R): over the classes that the truth in the counts (..., R, K, 3) has; all if none."""
    there = (counts[..., 0] + counts[..., 2]) > 0
    return bootstrap.mean_of_present(np.where(there | ~there.any(-1, keepdims=True), scores, np.nan))
