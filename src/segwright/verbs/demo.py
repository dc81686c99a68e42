"""`segwright demo`: the whole path on photographs that it paints itself, in a few minutes on a CPU."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from segwright import checkpoint
from segwright.data import EvaluationSet
from segwright.datasets import READERS
from segwright.datasets.base import Source
from segwright.drawing.overlays import grid
from segwright.errors import DataError
from segwright.files import write_text
from segwright.painting import best_grey_threshold_iou, write_dataset
from segwright.png import write_png
from segwright.progress import bar
from segwright.verbs.check import check
from segwright.verbs.details import with_intervals
from segwright.verbs.evaluate import evaluate
from segwright.verbs.findings import metrics_table, print_findings, summary_table
from segwright.verbs.infer import infer
from segwright.verbs.loading import load_model
from segwright.verbs.pictures import best_and_worst, write_report
from segwright.verbs.train import train

CONFIG: dict[str, Any] = {
    "model": {"name": "segformer_lite", "detail": 16},
    "encoder": {"name": "mobilenetv3_small_100", "pretrained": False},
    "head": {"width": 64},
    "input": {"size": None},
    "optim": {"lr": 2e-3, "lr_encoder": 2e-3},
    "schedule": {"name": "onecycle"},
    "augment": {"rot90": True, "crop": 160, "foreground": 0.5},
    "train": {"epochs": 25, "passes": 2, "batch_size": 4, "early_stopping": 0},
    "predict": {"threshold": 0.5},
}
"""From random weights, small pictures: what two cores learn in about two minutes."""
MARK = ".segwright-demo"
"""Holds the seed; only a folder with it is taken for an earlier demo's."""


@dataclass(frozen=True)
class Demo:
    """Where the demo's results lie."""

    folder: Path
    test_iou: float
    grey_iou: float
    """What the best grey-level threshold gets on the same test images."""


def demo(folder: str | Path = "demo", seed: int = 0) -> Demo:
    """Paints, checks, trains, evaluates and infers into `folder`.

    Raises:
        DataError: the folder holds something else than an earlier demo.
    """
    console, folder, start = Console(), Path(folder), time.perf_counter()
    data = paint_into(folder, seed, console)
    console.rule("1 check")
    found = check(data)
    summary_table(found.summary, console)
    print_findings(found.findings, console)
    console.rule("2 train")
    sections = {"data": {"root": str(data)}, "run": {"output": str(folder / "run"), "overwrite": True}}
    run = train({**CONFIG, **sections, "train": {**CONFIG["train"], "seed": seed}})
    console.rule("3 evaluate")
    metrics = evaluate(run.best, threshold="auto", output=folder / "outputs")
    source = READERS["coco"].build(READERS["coco"].Config(root=str(data)))
    grey = grey_baseline(source)
    metrics_table(metrics, console)
    console.print(f"the best grey-level threshold gets a test IoU of {grey:.4f} on the same images")
    console.rule("4 infer")
    overrides = [f"predict.threshold={metrics['threshold']}"]
    result = infer(run.best, data / "test", folder / "outputs" / "infer", overrides=overrides)
    finish(folder, run.folder, source, metrics, grey, overrides)
    console.rule("look here")
    for path in (folder / "report.html", folder / "grid.png", result.folder, run.folder):
        console.print(f"  {path}", soft_wrap=True)
    console.print(f"test IoU {metrics['iou']:.4f}, {time.perf_counter() - start:.0f} s")
    return Demo(folder, metrics["iou"], grey)


def paint_into(folder: Path, seed: int, console: Console) -> Path:
    """The data set painted from that seed; painted anew where there is none, or one of another seed."""
    data, mark = folder / "data", folder / MARK
    if folder.exists() and any(folder.iterdir()) and not mark.is_file():
        raise DataError(
            f"{folder} holds something else than a demo, which would be lost. Choose an empty folder with --output."
        )
    if mark.is_file() and mark.read_text() != str(seed):
        shutil.rmtree(data, ignore_errors=True)
    write_text(mark, str(seed))
    if not data.exists():
        with bar("paint", 1) as progress:
            write_dataset(data, seed=seed, progress=progress.set)
        console.print(f"painted: {data}", soft_wrap=True)
    return data


def grey_baseline(source: Source) -> float:
    """Test IoU of the grey-level threshold that is best on test itself: more than it could know."""
    split = source.splits["test"]
    count = range(len(split))
    return best_grey_threshold_iou([split.image(i) for i in count], [split.mask(i) for i in count])[1]


def finish(folder: Path, run: Path, source: Source, metrics: dict[str, Any], grey: float, overrides: list[str]) -> None:
    """`grid.png` and `report.html` of the test images."""
    loaded = load_model(run / "best.pth", overrides=overrides)
    best, worst, _ = best_and_worst(loaded.predictor, EvaluationSet(source.splits["test"], None), source)
    sheet = grid([p for _, p, _ in best + worst], [f"{n}  IoU {iou:.2f}" for n, _, iou in best + worst], columns=4)
    write_png(folder / "grid.png", sheet, quick=True)
    write_report(
        folder / "report.html",
        title="Segwright demo",
        facts={"images": f"painted, {len(source.splits['train'])} for training", "weights": metrics["weights"]},
        metrics={f"test {name}": value for name, value in with_intervals(metrics).items()}
        | {"best grey-level threshold, test iou": grey},
        run=run,
        rows=checkpoint.load(run / "last.pth")["rows"],
        samples=(best, worst),
    )
