"""`segwright train`: config -> check of the data -> model -> loop -> a folder that holds it all."""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright import checkpoint, class_weights, lora, splitting
from segwright.checks import check_source
from segwright.data import EvaluationSet
from segwright.datasets.base import Finding, Source
from segwright.engine import Engine
from segwright.errors import ConfigError, DataError
from segwright.files import write_text
from segwright.inference import Predictor
from segwright.pretrained.licences import refuse_non_commercial
from segwright.training import loop, records, saving
from segwright.training.state import Training
from segwright.training.stopping import StopRequest
from segwright.verbs.building import Parts, build
from segwright.verbs.findings import stop_on_errors
from segwright.verbs.fix import MENDED
from segwright.verbs.folder import claim_folder, logged, run_folder, tidy
from segwright.verbs.going_on import goes_on
from segwright.verbs.identity import Identity, identify, resume_point, write_data
from segwright.verbs.pictures import run_pictures
from segwright.verbs.recording import header, params, start_records
from segwright.verbs.scoring import validation
from segwright.verbs.settings import Settings, gather, with_loss_for
from segwright.verbs.source import SPLIT_FILE, division, earlier_division, read_source, refuse_mixed_batches
from segwright.verbs.trees import decoder, located, write_tree

log = logging.getLogger("segwright")

MOST_NAMED = 12
"""Classes that the log names."""
STOPPING = frozenset({"unreadable-image", "unreadable-mask", "mask-size", "rotated-mask"})
"""Errors of the check at whose files training stops, whatever is forced."""
SAID_ELSEWHERE = STOPPING.union(splitting.CODES)
"""Not logged before: these end the run with the same words, and dividing has logged its own."""


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
    resume_anyway: bool = False,
    go_on: bool = False,
    force: bool = False,
) -> Run:
    """Trains what a config describes; the whole run lies in `runs/<model name>/` or `run.output`.

    resume: goes on from `last.pth`, if config and data are those that the run began with. resume_anyway: also if they
    are not; what changed is logged. go_on: resumes if the folder holds a run, else begins one. force: what the check of
    the data calls an error is logged, and no reason to stop. What the reader refuses, and a file that cannot be read or
    does not fit its image, stops the run all the same, before it begins.

    Raises:
        ConfigError, DataError, WeightsError: before anything is computed or written.
        TrainingError: the loss is not finite.
        Stopped: SIGTERM or SIGUSR1 came; the run is saved after the step that it was in.
    """
    settings = gather(config, flags, overrides)
    resume = goes_on(run_folder(settings), resume, resume_anyway, go_on, flags or {})
    if settings.run.commercial:
        refuse_non_commercial(settings.encoder.name, settings.encoder.pretrained, settings.encoder.licence)
    t = settings.train
    engine = Engine(t.amp, t.device, t.distributed, t.accumulate, t.processes)
    with engine.together(), located(config):
        source = read_source(settings, recorded=earlier_division(settings) if resume else None)
        log_data(settings, source)
        check_usable(source, settings, force)
        settings = with_loss_for(settings, source.num_classes)
        identity = identify(settings, source, engine)
        payload = resume_point(settings, identity, resume_anyway) if resume else None
        return train_in_folder(settings, source, engine, identity, payload, resume)


def train_in_folder(
    settings: Settings, source: Source, engine: Engine, identity: Identity, payload: dict[str, Any] | None, resume: bool
) -> Run:
    """Builds, claims the folder, trains, and writes what came out; the main process alone writes."""
    started = time.perf_counter()
    with logged(engine.is_main) as into_file:
        parts = build(settings, source, engine, payload)
        folder = Path(engine.broadcast(str(claim_folder(settings, resume)) if engine.is_main else ""))
        into_file(folder / "train.log")
        with tidy(folder, fresh=not resume) if engine.is_main else contextlib.nullcontext(), StopRequest() as stop:
            training = assemble(parts, settings, source, engine, folder, stop, identity, payload)
            started -= training.state.trained_s()  # by the parts before a resume
            if engine.is_main:
                write_beginning(settings, source, training, parts, identity)
            try:
                state = loop.fit(training)
            finally:
                if training.records:
                    training.records.close()
            if engine.is_main:
                finish(settings, source, training, time.perf_counter() - started)
    return Run(folder, state.best_iou, state.best_epoch, state.epoch, state.rows)


def log_data(settings: Settings, source: Source) -> None:
    """Which data are read, and as what."""
    sizes = ", ".join(f"{name} {len(split)}" for name, split in source.splits.items())
    names = ", ".join(source.classes[:MOST_NAMED]) + (", ..." if len(source.classes) > MOST_NAMED else "")
    root = settings.data.config.root
    log.info("data: %s as data.name=%s: images: %s; classes: %s", root, settings.data.name, sizes, names)
    for finding in source.findings:
        if finding.code == "layout":
            log.info("%s", finding.message)


def check_usable(source: Source, settings: Settings, force: bool = False) -> None:
    """The quick part of the data's check; its warnings are logged, with `force` also its errors instead of raised.

    Raises:
        DataError: training could not be trusted.
        ConfigError: the images have not the channels that the encoder is to take, or not one size for a batch.
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
        if finding.level in levels and finding.code not in SAID_ELSEWHERE:
            log.log(levels[finding.level], "%s: %s %s", finding.code, finding.message, finding.fix)
    errors = [finding for finding in findings if finding.level == "error"]
    stopping = [finding for finding in errors if finding.code in STOPPING]
    if force and errors and not stopping:
        log.error("the data have the errors above; the run goes on with them, as --force says")
    else:
        stop_on_errors(stopping if force else errors, what_to_do(errors, bool(stopping), settings.data.config.root))
    refuse_mixed_batches(settings, source)


def what_to_do(errors: Sequence[Finding], stopping: bool, root: str) -> str:
    """About errors in the data in `root`: what mends them, and whether the run could go on with them."""
    copied = any(finding.code in MENDED for finding in errors)
    fix = f"segwright check {root} --fix NEW writes a copy without what cannot be used, with masks turned as images"
    mend = f"{fix}. Or mend the data yourself" if copied else "Mend the data"
    return (
        f"{mend}; --force does not help, for training stops at such files."
        if stopping
        else (f"{mend}, or train all the same with --force.")
    )


def assemble(
    parts: Parts,
    settings: Settings,
    source: Source,
    engine: Engine,
    folder: Path,
    stop: StopRequest,
    identity: Identity,
    payload: dict[str, Any] | None,
) -> Training:
    """The parts with their folder and records; as the checkpoint left them where there is one."""
    alone = engine.unwrap(parts.model)  # processes validate different numbers of images
    predictor = Predictor(alone, parts.bare, engine, settings.predict, decoder(settings, source.classes))
    valid: Any = stop.watched(parts.valid) if engine.processes == 1 else parts.valid  # several must do the same number
    done = payload["epoch"] if payload else 0
    training = Training(
        config=settings.train,
        engine=engine,
        model=parts.model,
        bare=parts.bare,
        average=parts.average,
        optimizer=parts.optimizer,
        schedule=parts.schedule,
        loss=parts.loss,
        batches=parts.batches,
        sampler=parts.sampler,
        validate=lambda: validation(predictor, valid, source.num_classes, parts.loss),
        image_names=lambda rows: [source.splits["train"].path(i).name for i in rows],
        header=header(settings, source, parts.bare) | ({"weights": payload["weights"]} if payload else {}),
        identity=identity.short(),
        folder=folder,
        records=start_records(settings, folder, done) if engine.is_main else None,
        stop=stop,
    )
    if payload is not None:
        saving.restore(training, payload, folder / "last.pth")
        step = training.state.under_way.steps
        of = f", step {step} of {parts.sampler.steps} of the next" if step else ""
        log.info("resumed %s after epoch %d of %d%s", folder, done, settings.train.epochs, of)
    return training


def write_beginning(settings: Settings, source: Source, training: Training, parts: Parts, identity: Identity) -> None:
    """What is known before the first step: the division of the images, class weights, the data, the parameters."""
    folder = training.folder
    if (made := division(settings, source)) is not None:
        write_text(folder / SPLIT_FILE, splitting.as_json(made, settings.split))
    if parts.weights is not None:
        parts.weights.save(folder / class_weights.FILE)
    write_tree(folder, settings, source.classes, source.colours)
    write_data(folder, identity)
    records.write_params(folder, params(settings, training))


def finish(settings: Settings, source: Source, training: Training, seconds: float) -> None:
    """The parameters with what came out, and pictures of the best weights on `valid`."""
    state, folder = training.state, training.folder
    result = {"epochs": state.epoch, "best_epoch": state.best_epoch, "best_valid_iou": state.best_iou}
    result |= records.outcome(state.rows, seconds)
    records.write_params(folder, params(settings, training) | {"result": result})
    checkpoint.load_weights(training.bare, checkpoint.load(folder / "best.pth"), folder / "best.pth")
    if settings.lora.enabled:
        lora.save_adapters(training.bare, folder / "adapters.safetensors")
    tree = decoder(settings, source.classes)
    predictor = Predictor(training.bare, training.bare, training.engine, settings.predict, tree)
    valid = EvaluationSet(source.splits["valid"], settings.input.pixels())
    run_pictures(folder, predictor, source, valid, training, result)
    log.info("best validation IoU %.4f in epoch %d; all of it in %s", state.best_iou, state.best_epoch, folder)
