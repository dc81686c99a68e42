"""Pictures of what a model does on a split: the best and the worst images, and the run's report."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segwright.data import EvaluationSet
from segwright.datasets.base import Source
from segwright.drawing.classes import class_colours, panels
from segwright.drawing.overlays import comparison
from segwright.drawing.report import report
from segwright.inference import Predictor
from segwright.metrics import class_scores, scores
from segwright.png import write_png
from segwright.progress import bar
from segwright.training.state import Training
from segwright.verbs.scoring import Tally, add_samples
from segwright.verbs.trees import PICTURE, TEXT, level_panels

SHOWN = 4
"""How many of the best and of the worst images are drawn."""

Sample = tuple[str, np.ndarray, float]
"""Name, picture (H, W, 3) uint8, the image's own IoU."""


def best_and_worst(
    predictor: Predictor, images: EvaluationSet, source: Source
) -> tuple[list[Sample], list[Sample], Tally]:
    """Comparisons of the images that went best and worst, and the counts of all of them."""
    tally = Tally(source.num_classes, thorough=True, tree=predictor.tree)
    with bar("look at the results", len(images)) as progress:
        for index in range(len(images)):
            sample = images[index]
            add_samples(tally, predictor, [sample], predictor.samples([sample]))
            progress.advance()
    return *draw_extremes(predictor, images, source, tally.counts.rows), tally


def draw_extremes(
    predictor: Predictor, images: EvaluationSet, source: Source, rows: Sequence[np.ndarray]
) -> tuple[list[Sample], list[Sample]]:
    """Comparisons of the images that went best and worst by their counts `rows`, (K, 3) each."""
    counted = [i for i, row in enumerate(rows) if len(row) == 1 or row.any()]  # of several classes: any pixel at all
    ranked = sorted(((float(scores(rows[i])["iou"]), i) for i in counted), reverse=True)
    shown = min(SHOWN, (len(ranked) + 1) // 2)
    best, worst = ranked[:shown], ranked[::-1][: min(shown, len(ranked) - shown)]
    drawn = [[_draw(predictor, images, source, iou, index) for iou, index in pairs] for pairs in (best, worst)]
    return drawn[0], drawn[1]


def _draw(predictor: Predictor, images: EvaluationSet, source: Source, iou: float, index: int) -> Sample:
    sample = images[index]
    truth = sample["mask"].numpy()
    logits = predictor.samples([sample])[0]
    name, image = images.split.path(index).name, images.split.image(index)
    if predictor.tree:
        levels, _ = predictor.levels(logits, truth.shape)
        tree = predictor.tree.hierarchy
        return name, level_panels(image, truth, levels, tree, source.classes, source.colours), iou
    prediction = predictor.ids(logits, truth.shape)
    if source.num_classes == 1:
        return name, comparison(image, truth, prediction), iou
    return name, panels(image, truth, prediction, source.classes, class_colours(source.classes, source.colours)), iou


def write_samples(folder: Path, best: list[Sample], worst: list[Sample]) -> None:
    """`samples/best_1_<name>.png`, ..., `samples/worst_1_<name>.png`, ..."""
    for word, samples in (("best", best), ("worst", worst)):
        for number, (name, picture, _) in enumerate(samples, 1):
            safe = re.sub(r"[^\w.-]", "_", Path(name).stem)
            write_png(folder / "samples" / f"{word}_{number}_{safe}.png", picture, quick=True)


def run_pictures(
    folder: Path,
    predictor: Predictor,
    source: Source,
    valid: EvaluationSet,
    training: Training,
    result: Mapping[str, Any],
) -> None:
    """Sample overlays and `report.html` of a finished run, on `valid` with the best weights."""
    best, worst, tally = best_and_worst(predictor, valid, source)
    write_samples(folder, best, worst)
    write_report(
        folder / "report.html",
        title=f"Segwright run {folder.name}",
        facts=dict(result) | training.header["weights"] | {"classes": ", ".join(source.classes)},
        metrics={f"valid {name}": value for name, value in split_metrics(tally, source).items()},
        run=folder,
        rows=training.state.rows,
        samples=(best, worst),
    )


def split_metrics(tally: Tally, source: Source) -> dict[str, Any]:
    """Scores as the report shows them."""
    total = tally.counts.total()
    near = {"f1_2px": tally.near.f1()} if tally.near else {}
    classes = class_scores(total, source.classes) if len(total) > 1 else {}
    of_tree = tally.tree.scores() if tally.tree else {}
    return {**scores(total), **near, **of_tree, **({"per class": classes} if classes else {})}


def write_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
    run: Path,
    rows: list[dict[str, Any]],
    samples: tuple[list[Sample], list[Sample]],
) -> None:
    """One page with everything, that needs no network: curves, numbers, best and worst images, the config."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    drawn = run / PICTURE
    report(
        path,
        title=title,
        facts=facts,
        metrics=metrics,
        history=rows,
        figures=[("the tree of classes", drawn)] if drawn.is_file() else [],
        best=samples[0],
        worst=samples[1],
        config=json.dumps(config, indent=2),
        tree=(run / TEXT).read_text() if drawn.is_file() else "",
    )
