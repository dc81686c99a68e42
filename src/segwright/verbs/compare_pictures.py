"""What several runs make of the same images: photograph, truth, and each run's mask, side by side."""

import json
from collections.abc import Sequence

import numpy as np

from segwright.datasets.base import Source, Split, leaves_alone
from segwright.drawing.classes import class_colours
from segwright.drawing.overlays import IGNORE, grid, legend, overlay
from segwright.errors import DataError
from segwright.metrics import scores
from segwright.splitting.groups import image_names
from segwright.verbs.comparison import Comparison, Evaluated
from segwright.verbs.infer import network_logits
from segwright.verbs.loading import Loaded, load_model
from segwright.verbs.source import read_source

MOST_DIFFERENT, WORST = 4, 2
"""Images that are drawn: those on which the runs' IoU differs most, and those on which it is lowest for all."""

Drawn = tuple[str, np.ndarray]
"""Caption and picture, (H, W, 3) uint8."""


def pictures_of(result: Comparison) -> list[Drawn]:
    """A picture an image. One run's model at a time is in memory.

    Raises:
        SegwrightError: data or weights that are no longer there.
    """
    chosen = choose([run.counts for run in result.runs])
    names = [result.runs[0].images[index] for index in chosen]
    masks: list[list[np.ndarray]] = []
    for number, run in enumerate(result.runs):
        # As it was evaluated, or other masks would be drawn than were counted.
        loaded = load_model(run.weights, overrides=[f"{key}={json.dumps(value)}" for key, value in run.way.items()])
        source = read_source(loaded.settings, recorded=loaded.division, trained=True)
        split, places = _places(loaded, source, result.split, names)
        masks.append([predicted(loaded, split.image(place)) for place in places])
        if number == 0:
            colours = class_colours(loaded.classes, loaded.colours)
            images = [split.image(place) for place in places]
            truths = [leaves_alone(split.mask(place), source.num_classes) for place in places]
    drawn = []
    for index, name in enumerate(names):
        found = [of_run[index] for of_run in masks]
        values = [float(scores(run.counts[chosen[index]])["iou"]) for run in result.runs]
        drawn.append((name, _row(images[index], truths[index], found, colours, result.runs, values)))
    return drawn


def choose(counts: Sequence[np.ndarray]) -> list[int]:
    """Indices of the images by all runs' counts (N, K, 3)."""
    own = np.array([[scores(row)["iou"] for row in rows] for rows in counts])  # (R, N)
    spread = np.argsort(own.min(0) - own.max(0), kind="stable")[:MOST_DIFFERENT].tolist()
    worst = [index for index in np.argsort(own.mean(0), kind="stable").tolist() if index not in spread]
    return [*spread, *worst[:WORST]]


def predicted(loaded: Loaded, image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> class ids (H, W)."""
    return loaded.predictor.ids(network_logits(loaded, image), (image.shape[0], image.shape[1]))


def _places(loaded: Loaded, source: Source, split: str, names: Sequence[str]) -> tuple[Split, list[int]]:
    """Where the images lie in a run's own split."""
    if split not in source.splits:
        raise DataError(f"the data have no split '{split}' any more, so its images cannot be drawn.")
    images = source.splits[split]
    there = {name: index for index, name in enumerate(image_names(images, loaded.settings.data.config.root))}
    missing = [name for name in names if name not in there]
    if missing:
        raise DataError(f"{missing[0]} is no longer in the data, so it cannot be drawn.")
    return images, [there[name] for name in names]


def _row(
    image: np.ndarray,
    truth: np.ndarray,
    found: Sequence[np.ndarray],
    colours: np.ndarray,
    runs: Sequence[Evaluated],
    values: Sequence[float],
) -> np.ndarray:
    titles = ["photograph", "truth", *(f"{run.name} {value:.3f}" for run, value in zip(runs, values, strict=True))]
    sheet = grid([image, *(overlay(image, mask, colours) for mask in (truth, *found))], titles, columns=5)
    classes = runs[0].classes
    if len(classes) == 1:
        return sheet
    seen = np.unique(np.concatenate([mask.ravel() for mask in (truth, *found)]))
    entries = {
        classes[i]: tuple(int(v) for v in colours[i, :3]) for i in seen.tolist() if i != IGNORE and colours[i, 3]
    }
    return np.concatenate([sheet, legend(sheet.shape[1], entries)]) if entries else sheet
