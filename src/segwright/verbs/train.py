"""`segwright train`: config -> check of the data -> model -> loop -> a folder that holds it all."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from segwright import checkpoint, class_weights, lora, splitting
from segwright.checks import check_source
from segwright.data import EpochBatches, EvaluationSet, evaluation_batches, preloaded, training_batches, worker_count
from segwright.datasets.base import Source
from segwright.engine import Engine
from segwright.errors import ConfigError, DataError
from segwright.files import write_text
from segwright.inference import Predictor
from segwright.losses import LOSSES
from segwright.model import Segmenter, build_model, count_parameters
from segwright.pretrained.licences import refuse_non_commercial, weights_record
from segwright.training import loop, records
from segwright.training.optim import build_optimizer
from segwright.training.schedules import SCHEDULES
from segwright.transforms import Augment
from segwright.verbs.evaluate import remember
from segwright.verbs.findings import stop_on_errors
from segwright.verbs.folder import claim_folder, logged, resume_point, run_folder, tidy
from segwright.verbs.pictures import run_pictures
from segwright.verbs.scoring import validation
from segwright.verbs.settings import Settings, gather, with_loss_for
from segwright.verbs.source import SPLIT_FILE, division, earlier_division, read_source
from segwright.verbs.trees import channels, decoder, tree_for_loss

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
    force: bool = False,
) -> Run:
    """Trains what a config describes; the whole run lies in `runs/<model name>/` or `run.output`.

    force: what the check of the data calls an error is logged, and no reason to stop. What the reader refuses, and a
    file that cannot be read or does not fit its image, stops the run all the same.

    Raises:
        ConfigError, DataError: before anything is computed or written.
        TrainingError: the loss is not finite.
    """
    settings = gather(config, flags, overrides)
    if settings.run.commercial:
        refuse_non_commercial(settings.encoder.name, settings.encoder.pretrained, settings.encoder.licence)
    source = read_source(settings, recorded=earlier_division(settings) if resume else None)
    check_usable(source, settings, force)
    settings = with_loss_for(settings, source.num_classes)
    payload = resume_point(settings) if resume else None
    started = time.perf_counter()
    with logged() as into_file:
        parts = build(settings, source, payload)
        folder = claim_folder(settings, resume)
        into_file(folder / "train.log")
        with tidy(folder, fresh=not resume):
            if (made := division(settings, source)) is not None:
                write_text(folder / SPLIT_FILE, splitting.as_json(made, settings.split))
            if parts.weights is not None:
                parts.weights.save(folder / class_weights.FILE)
            training = assemble(parts, settings, source, folder, payload)
            started -= sum(row["seconds"] for row in training.state.rows)  # of the parts before a resume
            records.write_params(folder, params(settings, source, training))
            try:
                state = loop.fit(training)
            finally:
                training.records.close()
            finish(settings, source, training, time.perf_counter() - started)
    return Run(folder, state.best_iou, state.best_epoch, state.epoch, state.rows)


def check_usable(source: Source, settings: Settings, force: bool = False) -> None:
    """The quick part of the data's check; its warnings are logged, with `force` also its errors instead of raised.

    Raises:
        DataError: training could not be trusted.
        ConfigError: the images have not the channels that the encoder is to take.
    """
    for needed in ("train", "valid"):
        if needed not in source.splits:
            raise DataError(
                f"the data have no split '{needed}' (there are: {', '.join(source.splits)}); a run needs it. Name its "
                "folder, or set split.val_fraction to divide the training images."
            )
    if settings.encoder.in_chans != 3:
        raise ConfigError(
            f"encoder.in_chans is {settings.encoder.in_chans}, but images are read as RGB, whatever their file holds, "
            "so the encoder would be given 3 channels. Leave it at 3; for other channels build the model in Python "
            "(segwright.model.build_model, SegFormerLite(in_ch=...)) and train it on your own tensors."
        )
    findings = check_source(source, quick=True) if settings.run.check else source.findings
    levels = {"warning": logging.WARNING} | ({"error": logging.ERROR} if force else {})
    for finding in findings:
        if finding.level in levels and finding.code not in splitting.CODES:  # dividing has logged its own
            log.log(levels[finding.level], "%s: %s %s", finding.code, finding.message, finding.fix)
    if not force:
        stop_on_errors(findings, "Mend the data, or train all the same with --force.")
    elif any(finding.level == "error" for finding in findings):
        log.error("the data have the errors above; the run goes on with them, as --force says")


@dataclass(frozen=True)
class Parts:
    """What a run is built of, before it has a folder."""

    engine: Engine
    bare: Segmenter
    model: nn.Module
    optimizer: Any
    schedule: Any
    loss: nn.Module
    weights: class_weights.ClassWeights | None
    """Those of the classes, where the loss takes any."""
    batches: DataLoader
    sampler: EpochBatches
    valid: DataLoader


def build(settings: Settings, source: Source, payload: dict[str, Any] | None) -> Parts:
    """Model, data, loss, optimizer, schedule. Writes nothing."""
    t, size = settings.train, settings.input.pixels()
    engine = Engine(t.amp, t.device)
    loss, weights = build_loss(settings, source, resumed=payload is not None)
    torch.manual_seed(t.seed)
    bare = make_model(settings, source, payload)
    log_model(bare, settings, engine)
    augment, workers = Augment(settings.augment, bare.encoder.mean), worker_count(settings.input.workers, engine.device)
    identity = {section: settings.dump()[section] for section in ("data", "classes")} | {"names": list(source.classes)}
    train_split = preloaded(settings.input, source.splits["train"], identity)
    valid_split = preloaded(settings.input, source.splits["valid"], identity, own_masks=True)
    batches, sampler = training_batches(train_split, size, augment, t.batch_size, t.seed, workers, t.passes)
    model, optimizer = engine.prepare(bare, build_optimizer(bare, settings.optim))
    steps = t.epochs * len(sampler)
    return Parts(
        engine=engine,
        bare=bare,
        model=model,
        optimizer=optimizer,
        schedule=SCHEDULES.build(settings.schedule.name, settings.schedule.config, optimizer, steps),
        loss=loss,
        weights=weights,
        batches=batches,
        sampler=sampler,
        valid=evaluation_batches(valid_split, size, t.batch_size, workers),
    )


def make_model(settings: Settings, source: Source, payload: dict[str, Any] | None) -> Segmenter:
    """The model with its first weights and adapters; of a run that goes on, what its checkpoint is put into."""
    wanted = len(channels(settings, source.classes))
    model = build_model(settings.model, settings.encoder, settings.head, wanted, pretrained=payload is None)
    if payload is not None:
        remember(model, payload)
    lora.apply(model, settings.lora)
    return model


def build_loss(
    settings: Settings, source: Source, resumed: bool = False
) -> tuple[nn.Module, class_weights.ClassWeights | None]:
    """The loss, and its class weights, which a resumed run takes from its folder. Raises `ConfigError`."""
    name, config = settings.loss.name, settings.loss.config
    saved = run_folder(settings) / class_weights.FILE if resumed else None
    wanted = getattr(config, "class_weights", None)
    weights = class_weights.class_weights_for(wanted, source.classes, source.splits["train"], saved)
    tree = tree_for_loss(settings, source.classes)
    over = {"hierarchy": tree} if tree else {}
    return LOSSES.build(name, config, source.num_classes, weights and weights.class_weights, **over), weights


def assemble(
    parts: Parts, settings: Settings, source: Source, folder: Path, payload: dict[str, Any] | None
) -> loop.Training:
    """The parts with their folder and records; as the checkpoint left them where there is one."""
    tree = decoder(settings, source.classes)
    predictor = Predictor(parts.model, parts.bare, parts.engine, settings.predict, tree)
    done = payload["epoch"] if payload else 0
    training = loop.Training(
        config=settings.train,
        engine=parts.engine,
        model=parts.model,
        bare=parts.bare,
        optimizer=parts.optimizer,
        schedule=parts.schedule,
        loss=parts.loss,
        batches=parts.batches,
        sampler=parts.sampler,
        validate=lambda: validation(predictor, parts.valid, source.num_classes, parts.loss),
        image_names=lambda rows: [source.splits["train"].path(i).name for i in rows],
        header=header(settings, source, parts.bare) | ({"weights": payload["weights"]} if payload else {}),
        folder=folder,
        records=records.Records(folder, done),
    )
    if payload is not None:
        loop.restore(training, payload, folder / "last.pth")
        log.info("resumed %s after epoch %d of %d", folder, done, settings.train.epochs)
    return training


def header(settings: Settings, source: Source, model: Segmenter) -> dict[str, Any]:
    """What makes a checkpoint enough by itself: config, classes, normalisation, where the weights came from."""
    encoder = model.encoder
    return {
        "config": settings.dump(),
        "classes": list(source.classes),
        "split": division(settings, source),
        "colours": None if source.colours is None else [list(colour) for colour in source.colours],
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "weights": weights_record(encoder, settings.encoder.licence),
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
    if settings.lora.enabled:
        log.info("%s", lora.trainable_parameters(model, detailed=True))
    if settings.train.frozen_epochs and model.encoder.origin == "random":
        log.warning(
            "the encoder's weights are random and stay so for %d epochs; a frozen random encoder teaches the head "
            "little. Give --pretrained a file, or do not freeze it",
            settings.train.frozen_epochs,
        )


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
    if settings.lora.enabled:
        lora.save_adapters(training.bare, training.folder / "adapters.safetensors")
    tree = decoder(settings, source.classes)
    predictor = Predictor(training.model, training.bare, training.engine, settings.predict, tree)
    valid = EvaluationSet(source.splits["valid"], settings.input.pixels())
    run_pictures(training.folder, predictor, source, valid, training, result)
    log.info("best validation IoU %.4f in epoch %d; all of it in %s", state.best_iou, state.best_epoch, training.folder)
