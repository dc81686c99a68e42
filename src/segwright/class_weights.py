"""Class weights: what each class counts in a loss, from how many pixels of the training split it has.

With n_c the pixels of class c in the train split, ignored ones left out, and N their mean over the classes that occur:

    inverse_sqrt        1 / sqrt(n_c)
    inverse             1 / n_c
    effective_number    (1 - b) / (1 - b^n_c), b = 1 - 1 / N: nearly 1 / n_c for rare classes, level for frequent ones
                        (Cui et al. 2019, https://arxiv.org/abs/1901.05555, who leave b to be chosen)

each divided by its mean over the classes that occur, so that weights have mean 1. A class without a pixel gets 0.

A file is JSON: {"class_weights": [...], "classes": [...], "method": ...}. K classes.
"""

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.datasets.base import IGNORE, Split
from segwright.errors import ConfigError, DataError, nearest
from segwright.files import write_text
from segwright.large import value_counts
from segwright.progress import bar

log = logging.getLogger("segwright")

FILE = "class_weights.json"
"""Their name in a run's folder."""


@dataclass(frozen=True)
class ClassWeights:
    """One weight a class, in the order of the data's classes, and where they come from."""

    class_weights: list[float]
    classes: list[str]
    method: str
    """`inverse_sqrt`, `inverse`, `effective_number`, `given` in the config, or what a file says."""

    def save(self, path: str | Path) -> None:
        """Writes the JSON file, whole or not at all."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")


def _effective(counts: np.ndarray) -> np.ndarray:
    share = 1 / counts.mean()
    return share / -np.expm1(counts * np.log1p(-share)) if share < 1 else np.ones_like(counts)


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "inverse_sqrt": lambda counts: 1 / np.sqrt(counts),
    "inverse": lambda counts: 1 / counts,
    "effective_number": _effective,
}
"""Name -> raw weights of positive pixel counts."""


def class_weights_for(
    wanted: Any, classes: Sequence[str], train: Split, saved: str | Path | None = None
) -> ClassWeights | None:
    """The weights that `loss.class_weights` asks for: none, a list, a method or a file.

    Args:
        wanted: the config's value.
        classes: the data's names in id order.
        train: the training split; its masks are read only where a method needs their pixels.
        saved: a file of an earlier part of the same run, read instead of counting again.

    Raises:
        ConfigError: another number or order of classes, or a text that is neither a method nor a file.
        DataError: a mask holds an id that is no class.
    """
    if wanted is None:
        return None
    if len(classes) < 2:
        raise ConfigError(
            "loss.class_weights is given, but the data have one class, which has nothing to be weighed against. "
            "Leave it out; loss.alpha or loss.fn_weight shift the balance to what is rare."
        )
    if not isinstance(wanted, str):
        _check_values(wanted, classes, "loss.class_weights")
        return ClassWeights([float(weight) for weight in wanted], list(classes), "given")
    earlier = read(saved, classes) if saved is not None and Path(saved).is_file() else None
    if wanted not in METHODS:
        return _unchanged(read(wanted, classes), wanted, earlier)
    return earlier if earlier and earlier.method == wanted else compute(wanted, classes, train)


def _unchanged(given: ClassWeights, path: str, earlier: ClassWeights | None) -> ClassWeights:
    """Raises `ConfigError` where a file has other weights than the run began with."""
    if earlier and earlier.class_weights != given.class_weights:
        raise ConfigError(
            f"{path} has other class weights than the run began with, so going on would be neither of the two. Name "
            "the run's own file, class_weights.json in its folder, or begin a new run."
        )
    return given


def compute(method: str, classes: Sequence[str], train: Split) -> ClassWeights:
    """Counts the pixels of a training split and weighs its classes; warns of those that have none."""
    counts = count_pixels(train, len(classes))
    if not counts.any():
        raise DataError(
            "no pixel of the training split counts, all are ignored, so no class can be weighed. Mend the masks, or "
            "give loss.class_weights as a list."
        )
    absent = [name for name, count in zip(classes, counts, strict=True) if not count]
    if absent:
        log.warning(
            "no training pixel has the class %s, so its weight is 0 and it cannot be learnt. Drop it, or move images "
            "that show it into the training split",
            ", ".join(absent),
        )
    weights = weigh(counts, method)
    shown = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(classes, weights, strict=True))
    log.info("class weights (%s, pixels of %s): %s", method, train.name, shown)
    return ClassWeights(weights, list(classes), method)


def count_pixels(split: Split, num_classes: int) -> np.ndarray:
    """(K,) pixels of each class, ignored ones left out. Raises `DataError` for an id that is no class."""
    total = np.zeros(IGNORE + 1, np.int64)
    with bar("count pixels", len(split)) as progress:
        for index in range(len(split)):
            counts = value_counts(split.mask(index))
            beyond = np.flatnonzero(counts[num_classes:IGNORE])
            if len(beyond):
                raise DataError(
                    f"{split.annotation(index)} holds the class id {num_classes + beyond[0]}, but there are "
                    f"{num_classes} classes, from 0 to {num_classes - 1}. Mend the mask, or name all classes."
                )
            total += counts
            progress.advance()
    return total[:num_classes]


def weigh(counts: Sequence[int] | np.ndarray, method: str) -> list[float]:
    """Pixel counts (K,) -> weights with mean 1 over the classes that occur; 0 for those that do not."""
    counts = np.asarray(counts, dtype=np.float64)
    there = counts > 0
    weights = np.zeros_like(counts)
    weights[there] = METHODS[method](counts[there])
    return [float(weight) for weight in weights / weights[there].mean()]


def read(path: str | Path, classes: Sequence[str]) -> ClassWeights:
    """Weights from a JSON file, which must be of these classes in this order. Raises `ConfigError`."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            f"loss.class_weights is '{path}', which is no file and no method.{nearest(str(path), METHODS)} "
            "Give one of the methods, the path of a JSON file, or a list of numbers."
        )
    try:
        held = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{path} cannot be read as JSON ({error}), so there are no class weights in it. Mend the file."
        ) from None
    if not isinstance(held, dict) or "class_weights" not in held:
        raise ConfigError(f'{path} holds no class weights. It needs {{"class_weights": [...], "classes": [...]}}.')
    _check_values(held["class_weights"], classes, f"class_weights in {path}")
    _check_order(held.get("classes"), classes, path)
    return ClassWeights([float(w) for w in held["class_weights"]], list(classes), str(held.get("method", path.name)))


def _check_values(weights: Any, classes: Sequence[str], where: str) -> None:
    numbers = isinstance(weights, list | tuple) and all(isinstance(w, int | float) for w in weights)
    if not numbers or not all(0 <= w < math.inf for w in weights) or not any(weights):
        raise ConfigError(
            f"{where} is {weights!r}; weights are numbers from 0 up, of which one must be positive, or nothing is "
            "learnt. Give a list with one number a class."
        )
    if len(weights) != len(classes):
        raise ConfigError(
            f"{where} has {len(weights)} weights, but the data have {len(classes)} classes ({', '.join(classes)}), so "
            "some class would have none or another's. Give one a class, or a method such as inverse_sqrt."
        )


def _check_order(named: Any, classes: Sequence[str], path: Path) -> None:
    if named is None or list(named) == list(classes):
        return
    if sorted(map(str, named)) == sorted(classes):
        raise ConfigError(
            f"{path} has the data's classes in another order ({', '.join(map(str, named))}; the data: "
            f"{', '.join(classes)}), so classes would get each other's weights. Write them in the data's order."
        )
    other = [str(name) for name in named if name not in classes]
    lacking = [name for name in classes if name not in named]
    raise ConfigError(
        f"{path} is of other classes than the data: it has {', '.join(other) or 'nothing'} that the data lack, and "
        f"lacks {', '.join(lacking) or 'nothing'} that they have, so its weights belong to others. Compute them anew: "
        "loss.class_weights=inverse_sqrt."
    )
