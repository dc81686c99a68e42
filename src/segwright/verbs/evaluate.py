"""`segwright evaluate`: honest numbers of trained weights on one split, at the images' original size."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.data import DataLoader

from segwright.data import EvaluationSet, evaluation_batches, worker_count
from segwright.datasets.base import Source
from segwright.datasets.mapping import in_order
from segwright.errors import ConfigError, DataError, SegwrightError, WeightsError
from segwright.files import refuse_file, write_text
from segwright.inference import Predictor
from segwright.progress import bar
from segwright.splitting import Picked, seen_from
from segwright.splitting.groups import image_names
from segwright.verbs import details
from segwright.verbs.loading import Loaded, load_model, weights_file
from segwright.verbs.pictures import draw_extremes
from segwright.verbs.run_files import BEST, CONFIG
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


def keep_in_run(written: Path, weights: Path, loaded: Loaded, split: str) -> None:
    """Copies the numbers of a run's own data beside its best.pth, where `compare` finds them: the next evaluation into
    `written` takes their place there."""
    config, home = weights.parent / CONFIG, weights.parent / "evaluation"
    if weights.name != BEST or not config.is_file() or home.resolve() == written.resolve():
        return
    try:
        own, now = yaml.safe_load(config.read_text()), loaded.settings.dump()
    except (OSError, UnicodeDecodeError, yaml.YAMLError):  # another's config.yaml
        return
    if not isinstance(own, dict) or any(own.get(section) != now[section] for section in ("data", "classes", "split")):
        return
    try:
        for name in (f"metrics_{split}.json", f"per_image_{split}.csv", f"confusion_{split}.csv"):
            write_text(home / name, (written / name).read_text())
    except (OSError, SegwrightError) as error:
        log.info("the numbers could not be kept in %s too: %s", home, error)


def evaluated_with(loaded: Loaded) -> dict[str, Any]:
    """What decides beside the weights which mask comes out: `section.key` -> value, as overrides take them."""
    used, values = asdict(loaded.predictor.config), loaded.settings.dump()
    if len(loaded.classes) > 1:
        del used["threshold"]
    tree = {"hierarchy.decode": values["hierarchy"]["decode"]} if loaded.predictor.tree else {}
    return {f"predict.{key}": value for key, value in used.items()} | {"input.size": values["input"]["size"]} | tree


def write_details(
    folder: Path, tally: Tally, loaded: Loaded, source: Source, split: str, for_page: dict[str, Any] | None
) -> None:
    """What stands beside the numbers; the page where `for_page` gives them."""
    images, rows = source.splits[split], tally.counts.rows
    details.write_counts(
        folder / f"per_image_{split}.csv", rows, images, loaded.settings.data.config.root, loaded.classes
    )
    assert tally.counts.confusion is not None
    details.write_confusion(folder / f"confusion_{split}.csv", tally.counts.confusion, loaded.classes)
    if for_page is not None:
        drawn = draw_extremes(loaded.predictor, EvaluationSet(images, loaded.settings.input.pixels()), source, rows)
        figure = details.draw_confusion(folder / f"confusion_{split}.png", tally.counts.confusion, loaded.classes)
        details.write_page(folder / f"evaluation_{split}.html", for_page, source, figure, *drawn)


def with_classes_of(loaded: Loaded, source: Source, weights: str | Path) -> Source:
    """The data with their classes in the order that the model has them in.

    Raises:
        WeightsError: another number of classes; or other names, of which one stands at another place in the model.
    """
    ours, theirs = list(source.classes), list(loaded.classes)
    if len(ours) != len(theirs):
        raise WeightsError(
            f"{weights} knows {len(theirs)} classes ({', '.join(theirs)}), the data have "
            f"{len(ours)} ({', '.join(ours)}). Evaluate with the data the model was made for."
        )
    if sorted(ours) == sorted(theirs):
        if ours != theirs:
            log.info(
                "the data's classes are scored by name: %s learnt them in the order %s", weights, ", ".join(theirs)
            )
        return in_order(source, theirs)
    moved = [name for name in theirs if name in ours and ours.index(name) != theirs.index(name)]
    if moved:
        raise WeightsError(
            f"{weights} knows the classes {', '.join(theirs)}, and the data have {', '.join(ours)}: '{moved[0]}' is "
            f"number {theirs.index(moved[0])} there and number {ours.index(moved[0])} here, and other names differ, so "
            "neither names nor numbers say what belongs together. Rename the data's classes with classes.rename."
        )
    log.warning(
        "%s learnt the classes %s, but the data call them %s; they are compared by their order. If that is not "
        "meant, set data.classes, or classes.rename",
        weights,
        ", ".join(theirs),
        ", ".join(ours),
    )
    return source


def warn_of_seen(source: Source, loaded: Loaded, split: str) -> None:
    """Says how many images of a split the run trained on, where another division than the run's puts them there."""
    root = loaded.settings.data.config.root
    known = seen_from(source, root, {"train": loaded.trained_on})
    if loaded.trained_on and known is None and any(isinstance(one, Picked) for one in source.splits.values()):
        log.warning(
            "The run divided its images itself, and none of them is in these data under its name, so they were divided "
            "anew. If they are the same images, '%s' holds some that the model learnt; give it images it has not seen.",
            split,
        )
    if known is None or split == "train" or split not in source.splits:
        return
    names = image_names(source.splits[split], root)
    if learnt := len({*names} & {*known["train"]}):
        log.warning(
            "The run trained on %d of the %d images of '%s', so their scores are flattered. Leave the section split as "
            "the run had it.",
            learnt,
            len(names),
            split,
        )


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
