"""`segwright evaluate`: honest numbers of trained weights on one split, at the images' original size."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from segwright.data import evaluation_batches, worker_count
from segwright.datasets.base import Source
from segwright.errors import ConfigError, DataError
from segwright.files import refuse_file, write_text
from segwright.inference import Predictor
from segwright.progress import bar
from segwright.verbs import details
from segwright.verbs.evaluation_files import evaluated_with, keep_in_run, write_details
from segwright.verbs.loading import Loaded, load_model, weights_file
from segwright.verbs.scored_data import warn_of_seen, with_classes_of
from segwright.verbs.scoring import Tally, add_samples
from segwright.verbs.source import read_source

log = logging.getLogger("segwright")


def evaluate(
    weights: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    split: str = "test",
    threshold: str | None = None,
    output: str | Path = "outputs",
    pictures: bool = True,
) -> dict[str, Any]:
    """Scores on a split; writes `metrics_<split>.json` into `output`, the counts of each image and the confusion
    matrix, and with `pictures` a page with the best and the worst images. The numbers of a run's own data also go into
    its folder `evaluation`.

    `threshold` is a number, or `auto`: the one with the best IoU on `valid`. Scores of `valid` itself are then
    flattered, and `threshold_from` in the numbers says so.

    Raises:
        ConfigError: a threshold that is neither, or `auto` for several classes.
        DataError: no such split.
        SegwrightError: a file is in the way of the folder `output`.
    """
    refuse_file(output, "--output")
    weights = weights_file(weights)
    loaded = load_model(weights, config, flags, overrides)
    source = read_source(loaded.settings, recorded=loaded.division, trained=True)
    source = with_classes_of(loaded, source, weights)
    for name in {split, "valid"} if threshold == "auto" else {split}:
        warn_of_seen(source, loaded, name)
    loaded = with_threshold(loaded, source, threshold)
    start_s = time.perf_counter()
    tally = tally_split(loaded, source, split)
    speed = len(source.splits[split]) / (time.perf_counter() - start_s)
    threshold_used = loaded.predictor.config.threshold if len(loaded.classes) == 1 else None
    metrics = details.summarise(tally, source.splits[split], loaded.classes, threshold_used)
    metrics |= {"weights": str(weights), "images_per_s": round(speed, 2), "evaluated_with": evaluated_with(loaded)} | (
        {"threshold_from": "valid"} if threshold == "auto" else {}
    )
    path = Path(output) / f"metrics_{split}.json"
    write_details(path.parent, tally, loaded, source, split, metrics if pictures else None)
    write_text(path, json.dumps(metrics, indent=2))
    log.info("written: %s", path)
    keep_in_run(path.parent, Path(weights), loaded, split)
    return metrics


def with_threshold(loaded: Loaded, source: Source, threshold: str | None) -> Loaded:
    """The same, with the threshold that was asked for."""
    if threshold is None:
        return loaded
    if (number := len(loaded.classes)) != 1:
        raise ConfigError(f"--threshold {threshold} is for one class; this model has {number}. Leave it out.")
    value = choose_threshold(loaded, source) if threshold == "auto" else _number(threshold)
    config = replace(loaded.predictor.config, threshold=value)
    predictor = Predictor(loaded.predictor.model, loaded.model, loaded.engine, config, loaded.predictor.tree)
    return replace(loaded, predictor=predictor)


def choose_threshold(loaded: Loaded, source: Source) -> float:
    """The threshold with the best IoU over `valid`."""
    sweep = tally_split(loaded, source, "valid").sweep
    assert sweep is not None
    value, iou = sweep.best()
    log.info("threshold %.3f, the best on valid (IoU %.4f)", value, iou)
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--threshold is '{text}'; give a number between 0 and 1, or auto.") from None


def tally_split(loaded: Loaded, source: Source, split: str) -> Tally:
    """Counts over a whole split."""
    batches = split_batches(loaded, source, split)
    tally = Tally(len(loaded.classes), thorough=True, tree=loaded.predictor.tree)
    with bar(f"evaluate {split}", len(source.splits[split])) as progress:
        for samples in batches:
            add_samples(tally, loaded.predictor, samples, loaded.predictor.samples(samples))
            progress.advance(len(samples))
    return tally


def split_batches(loaded: Loaded, source: Source, split: str) -> DataLoader:
    """The split in order, at the network's size."""
    if split not in source.splits:
        told = [f" {one.message} {one.fix}" for one in source.findings if one.code == f"{split}-without-masks"]
        raise DataError(
            f"the data have no split '{split}'; there are: {', '.join(source.splits)}.{''.join(told)} "
            f"Choose one of these, e.g. --split {'valid' if 'valid' in source.splits else next(iter(source.splits))}."
        )
    settings = loaded.settings
    # On a CPU one image at a time is as fast and needs the least memory.
    batch_size = 1 if loaded.engine.device == torch.device("cpu") else settings.train.batch_size
    workers = worker_count(settings.input.workers, loaded.engine.device)
    return evaluation_batches(source.splits[split], settings.input.pixels(), batch_size, workers)
