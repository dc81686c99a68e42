"""`segwright train`: config -> check of the data -> model -> loop -> a folder that holds it all."""

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from segwright import checkpoint
from segwright.checks import check_source
from segwright.data import EvaluationSet, evaluation_batches, training_batches, worker_count
from segwright.datasets import READERS
from segwright.datasets.base import Source
from segwright.engine import Engine
from segwright.errors import ConfigError, DataError, SegwrightError
from segwright.files import remove_leftovers, write_text
from segwright.inference import Predictor
from segwright.losses import LOSSES
from segwright.model import Segmenter, build_model, count_parameters
from segwright.training import loop, records
from segwright.training.optim import build_optimizer
from segwright.training.schedules import SCHEDULES
from segwright.transforms import Augment
from segwright.verbs.findings import stop_on_errors
from segwright.verbs.pictures import run_pictures
from segwright.verbs.scoring import validation
from segwright.verbs.settings import Settings, gather

log = logging.getLogger("segwright")


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    best_iou: float
    best_epoch: int
    epochs: int
    rows: list[dict[str, Any]]

    @property
    def best(self) -> Path:
        """The weights of the epoch with the best validation IoU."""
        return self.folder / "best.pth"


def train(
    config: str | Path | Mapping[str, Any] | Settings | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
) -> Run:
    """Trains what a config describes; the whole run lies in `runs/<model name>/` or `run.output`.

    Raises:
        ConfigError, DataError: before anything is computed or written.
        TrainingError: the loss is not finite.
    """
    settings = gather(config, flags, overrides)
    source = READERS.build(settings.data.name, settings.data.config)
    check_usable(source, settings)
    folder, payload = choose_folder(settings, resume)
    with log_file(folder / "train.log"):
        training, started = set_up(settings, source, folder, payload), time.perf_counter()
        write_beginning(settings, source, training)
        try:
            state = loop.fit(training)
        finally:
            training.records.close()
        finish(settings, source, training, time.perf_counter() - started)
    return Run(folder, state.best_iou, state.best_epoch, state.epoch, state.rows)


def check_usable(source: Source, settings: Settings) -> None:
    """The quick part of the data's check. Raises `DataError` where training could not be trusted."""
    for needed in ("train", "valid"):
        if needed not in source.splits:
            raise DataError(
                f"the data have no split '{needed}' (there are: {', '.join(source.splits)}); a run needs it."
            )
    if settings.run.check:
        stop_on_errors(check_source(source, quick=True), "Mend the data, or train all the same with run.check=false.")


def choose_folder(settings: Settings, resume: bool) -> tuple[Path, dict[str, Any] | None]:
    """The run's folder, and the checkpoint to go on from. A run that exists is never overwritten unless asked."""
    folder = Path(settings.run.output or Path("runs") / settings.name)
    if resume and (folder / "config.yaml").exists() and not (folder / "last.pth").exists():
        log.info("%s was stopped before its first epoch was saved; it begins anew", folder)
        remove_leftovers(folder)
        return folder, None
    if resume:
        payload = checkpoint.load(folder / "last.pth")
        same_config(payload["config"], settings)
        remove_leftovers(folder)
        return folder, payload
    if settings.run.overwrite and (folder / "config.yaml").exists():
        shutil.rmtree(folder)
    folder = next_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.yaml", yaml.safe_dump(settings.dump(), sort_keys=False))
    except OSError as error:
        raise SegwrightError(
            f"the run's folder {folder} cannot be made ({error}). Choose another with --output."
        ) from None
    return folder, None


def next_free(folder: Path) -> Path:
    """`folder`, or `folder.2`, `folder.3`, ... if it holds a run or anything else."""
    number, candidate = 1, folder
    while candidate.exists() and (not candidate.is_dir() or any(candidate.iterdir())):
        number += 1
        candidate = folder.with_name(f"{folder.name}.{number}")
    if candidate != folder:
        log.info("%s exists and is left alone; this run goes to %s", folder, candidate)
    return candidate


def same_config(old: Mapping[str, Any], settings: Settings) -> None:
    """Raises `ConfigError` where a run would go on with another config than it began with."""
    new = settings.dump()
    free = {("run", "output"), ("run", "overwrite"), ("run", "check"), ("input", "workers"), ("train", "device")}
    changed = [
        f"{section}.{key}: {old.get(section, {}).get(key)!r} -> {value!r}"
        for section, values in new.items()
        for key, value in values.items()
        if (section, key) not in free and old.get(section, {}).get(key) != value
    ]
    if changed:
        raise ConfigError(
            "the run was begun with another config, so going on would be neither of the two: "
            + "; ".join(changed)
            + ". Resume with the same config, or begin a new run without --resume."
        )


def set_up(settings: Settings, source: Source, folder: Path, payload: dict[str, Any] | None) -> loop.Training:
    """Model, data, loss, optimizer, schedule; as the checkpoint left them where there is one."""
    t = settings.train
    engine = Engine(t.amp, t.device)
    torch.manual_seed(t.seed)
    bare = build_model(settings.model, settings.encoder, settings.head, source.num_classes, pretrained=payload is None)
    if payload is not None:
        bare.encoder.mean, bare.encoder.std = tuple(payload["mean"]), tuple(payload["std"])
    log_model(bare, settings, engine)
    augment, size = Augment(settings.augment, bare.encoder.mean), settings.input.pixels()
    workers = worker_count(settings.input.workers, engine.device)
    batches, sampler = training_batches(source.splits["train"], size, augment, t.batch_size, t.seed, workers, t.passes)
    optimizer = build_optimizer(bare, settings.optim)
    model, optimizer = engine.prepare(bare, optimizer)
    loss = LOSSES.build(settings.loss.name, settings.loss.config)
    valid = evaluation_batches(source.splits["valid"], size, t.batch_size, workers)
    predictor = Predictor(model, bare, engine, settings.predict)
    done = payload["epoch"] if payload else 0
    training = loop.Training(
        config=t,
        engine=engine,
        model=model,
        bare=bare,
        optimizer=optimizer,
        schedule=SCHEDULES.build(settings.schedule.name, settings.schedule.config, optimizer, t.epochs * len(sampler)),
        loss=loss,
        batches=batches,
        sampler=sampler,
        validate=lambda: validation(predictor, valid, source.num_classes, loss),
        image_names=lambda rows: [source.splits["train"].path(i).name for i in rows],
        header=header(settings, source, bare),
        folder=folder,
        records=records.Records(folder, done),
    )
    if payload is not None:
        loop.restore(training, payload, folder / "last.pth")
        log.info("resumed %s after epoch %d of %d", folder, done, t.epochs)
    return training


def header(settings: Settings, source: Source, model: Segmenter) -> dict[str, Any]:
    """What makes a checkpoint enough by itself: config, classes, normalisation, where the weights came from."""
    encoder = model.encoder
    return {
        "config": settings.dump(),
        "classes": list(source.classes),
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "weights": {"origin": encoder.origin, "licence": encoder.licence},
    }


def log_model(model: Segmenter, settings: Settings, engine: Engine) -> None:
    log.info(
        "%s: encoder %s (%s), %s parameters, on %s in %s",
        settings.name,
        model.encoder.name,
        model.encoder.origin,
        f"{count_parameters(model):,}",
        engine.device,
        {"no": "float32"}.get(engine.precision, engine.precision),
    )
    if settings.train.frozen_epochs and model.encoder.origin == "random":
        log.warning(
            "the encoder's weights are random and stay so for %d epochs; a frozen random encoder teaches the head "
            "little. Give --pretrained a file, or do not freeze it",
            settings.train.frozen_epochs,
        )


def write_beginning(settings: Settings, source: Source, training: loop.Training) -> None:
    """`training_params` as far as it is known before the first epoch."""
    records.write_params(training.folder, params(settings, source, training))


def params(settings: Settings, source: Source, training: loop.Training) -> dict[str, Any]:
    """The record of what made this run."""
    return {
        "config": settings.dump(),
        "classes": list(source.classes),
        "data": {name: {"images": len(split)} for name, split in source.splits.items()},
        "parameters": count_parameters(training.bare),
        "weights": training.header["weights"],
        "precision": training.engine.precision,
        "device": str(training.engine.device),
        "environment": records.environment(),
    }


def finish(settings: Settings, source: Source, training: loop.Training, seconds: float) -> None:
    """The parameters with what came out, and pictures of the best weights on `valid`."""
    state = training.state
    result = {
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "best_valid_iou": state.best_iou,
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(records.peak_memory_mb()),
    }
    records.write_params(training.folder, params(settings, source, training) | {"result": result})
    checkpoint.load_weights(training.bare, checkpoint.load(training.folder / "best.pth"), training.folder / "best.pth")
    predictor = Predictor(training.model, training.bare, training.engine, settings.predict)
    valid = EvaluationSet(source.splits["valid"], settings.input.pixels())
    run_pictures(training.folder, predictor, source, valid, training, result)
    log.info("best validation IoU %.4f in epoch %d; all of it in %s", state.best_iou, state.best_epoch, training.folder)


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Everything that is logged goes into the run's folder too."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    level = log.level
    log.setLevel(min(log.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()
