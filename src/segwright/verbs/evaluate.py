"""`segwright evaluate`: honest numbers of trained weights on one split, at the images' original size."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from segwright import checkpoint
from segwright.config import as_mapping
from segwright.data import evaluation_batches, worker_count
from segwright.datasets import READERS
from segwright.datasets.base import Source
from segwright.engine import Engine
from segwright.errors import ConfigError, DataError, WeightsError
from segwright.files import write_text
from segwright.inference import Predictor
from segwright.metrics import scores
from segwright.model import Segmenter, build_model
from segwright.progress import bar
from segwright.verbs.scoring import Tally, add_samples
from segwright.verbs.settings import Settings, gather

log = logging.getLogger("segwright")

FROM_A_FILE = {"data", "predict"}
"""Sections that a config file gives for trained weights."""
SHAPING = {"model", "encoder", "head", "input"}
"""Sections that shape what a checkpoint's weights mean; a file that says otherwise is told so."""


@dataclass(frozen=True)
class Loaded:
    """Trained weights, ready to predict."""

    settings: Settings
    model: Segmenter
    engine: Engine
    predictor: Predictor
    classes: list[str]


def load_model(
    weights: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Loaded:
    """A model from a checkpoint alone; overrides and flags change what the checkpoint's own config says.

    A config file gives its sections `FROM_A_FILE`; the rest is left to the checkpoint, which was perhaps trained with
    flags on top of that file: then the file alone would build another model.

    Raises:
        WeightsError: the file is no checkpoint of ours, or belongs to another model than the config names.
    """
    payload = checkpoint.load(weights)
    try:
        settings = gather(_about_the_data(config, payload["config"]), flags, overrides, base=payload["config"])
    except ConfigError as error:
        raise ConfigError(f"{error}\n(on top of the config that {weights} carries)") from None
    engine = Engine(settings.train.amp, settings.train.device)
    bare = restore(payload, settings, weights)
    predictor = Predictor(engine.prepare(bare).eval(), bare, engine, settings.predict)
    return Loaded(settings, bare, engine, predictor, list(payload["classes"]))


def _about_the_data(config: str | Path | Mapping[str, Any] | None, own: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the sections of the model; says which of its values the checkpoint overrules."""
    values = as_mapping(config)
    for section in SHAPING & values.keys():
        for key, value in (values[section] or {}).items():
            used = own.get(section, {}).get(key)
            if (section, key) != ("encoder", "pretrained") and key in own.get(section, {}) and used != value:
                log.info("%s.%s is %s, as the checkpoint was trained, not the config's %s", section, key, used, value)
    return {section: value for section, value in values.items() if section in FROM_A_FILE}


def load(weights: str | Path) -> Segmenter:
    """The trained model in a checkpoint of ours, in evaluation mode on the CPU.

    Its input is (B, 3, H, W) float, normalised with `model.encoder.mean` and `.std`; its output logits (B, K, H, W).
    """
    payload = checkpoint.load(weights)
    return restore(payload, gather(payload["config"]), weights)


def restore(payload: dict[str, Any], settings: Settings, weights: str | Path) -> Segmenter:
    """The model of a checkpoint that was read from `weights`, in evaluation mode on the CPU."""
    model = build_model(settings.model, settings.encoder, settings.head, len(payload["classes"]), pretrained=False)
    checkpoint.load_weights(model, payload, weights)
    model.encoder.mean, model.encoder.std = tuple(payload["mean"]), tuple(payload["std"])
    model.classes = tuple(payload["classes"])
    return model.eval()


def evaluate(
    weights: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    split: str = "test",
    threshold: str | None = None,
    output: str | Path = "outputs",
) -> dict[str, Any]:
    """Scores on a split; writes `metrics_<split>.json` into `output`.

    `threshold` is a number, or `auto`: the one with the best IoU on `valid`. Scores of `valid` itself are then
    flattered, and `threshold_from` in the numbers says so.

    Raises:
        ConfigError: a threshold that is neither, or `auto` for several classes.
        DataError: no such split.
    """
    loaded = load_model(weights, config, flags, overrides)
    source = READERS.build(loaded.settings.data.name, loaded.settings.data.config)
    same_classes(source, loaded, weights)
    loaded = with_threshold(loaded, source, threshold)
    tally = tally_split(loaded, source, split)
    metrics = summarise(tally, loaded, len(source.splits[split]), weights)
    if threshold == "auto":
        metrics["threshold_from"] = "valid"
    path = Path(output) / f"metrics_{split}.json"
    write_text(path, json.dumps(metrics, indent=2))
    log.info("written: %s", path)
    return metrics


def same_classes(source: Source, loaded: Loaded, weights: str | Path) -> None:
    if len(source.classes) != len(loaded.classes):
        raise WeightsError(
            f"{weights} knows {len(loaded.classes)} classes ({', '.join(loaded.classes)}), the data have "
            f"{len(source.classes)} ({', '.join(source.classes)}). Evaluate with the data the model was made for."
        )


def with_threshold(loaded: Loaded, source: Source, threshold: str | None) -> Loaded:
    """The same, with the threshold that was asked for."""
    if threshold is None:
        return loaded
    value = choose_threshold(loaded, source) if threshold == "auto" else _number(threshold)
    config = replace(loaded.predictor.config, threshold=value)
    predictor = Predictor(loaded.predictor.model, loaded.model, loaded.engine, config)
    return replace(loaded, predictor=predictor)


def choose_threshold(loaded: Loaded, source: Source) -> float:
    """The threshold with the best IoU over `valid`."""
    if len(loaded.classes) != 1:
        raise ConfigError(f"--threshold auto is for one class; this model has {len(loaded.classes)}. Leave it out.")
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
    tally = Tally(len(loaded.classes), thorough=True)
    with bar(f"evaluate {split}", len(source.splits[split])) as progress:
        for samples in batches:
            add_samples(tally, loaded.predictor, samples, loaded.predictor.samples(samples))
            progress.advance(len(samples))
    return tally


def split_batches(loaded: Loaded, source: Source, split: str) -> DataLoader:
    """The split in order, at the network's size."""
    if split not in source.splits:
        raise DataError(f"the data have no split '{split}'; there are: {', '.join(source.splits)}.")
    settings = loaded.settings
    # On a CPU one image at a time is as fast and needs the least memory.
    batch_size = 1 if loaded.engine.device == torch.device("cpu") else settings.train.batch_size
    workers = worker_count(settings.input.workers, loaded.engine.device)
    return evaluation_batches(source.splits[split], settings.input.pixels(), batch_size, workers)


def summarise(tally: Tally, loaded: Loaded, num_images: int, weights: str | Path) -> dict[str, Any]:
    """The numbers as `metrics_test.json` holds them."""
    total = tally.counts.total()
    metrics: dict[str, Any] = {**scores(total)}
    if tally.near:
        metrics["f1_2px"] = tally.near.f1()
    metrics["threshold"] = loaded.predictor.config.threshold if len(loaded.classes) == 1 else None
    metrics |= {"num_images": num_images, "weights": str(weights)}
    if len(loaded.classes) > 1:
        metrics["per_class"] = {name: scores(total[i : i + 1]) for i, name in enumerate(loaded.classes)}
    return metrics
