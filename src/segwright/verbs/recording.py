"""What a run writes down of itself: the header of its checkpoints, its parameters, and who keeps its log."""

import json
from pathlib import Path
from typing import Any

from segwright import engine
from segwright.datasets.base import Source
from segwright.files import write_text
from segwright.model import Segmenter, count_parameters
from segwright.pretrained.licences import weights_record
from segwright.training import records
from segwright.training.state import Training
from segwright.verbs.settings import Settings
from segwright.verbs.source import division

TRACKER_FILE = "tracker.json"
"""In a run's folder: the name under which a tracker knows the run, to go on with it."""


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


def params(settings: Settings, training: Training) -> dict[str, Any]:
    """The record of what made this run."""
    own, t = training.engine, training
    return {
        "config": settings.dump(),
        "seed": t.config.seed,
        "classes": t.identity["classes"],
        "data": t.identity["data"],
        "parameters": count_parameters(t.bare),
        "weights": t.header["weights"],
        "precision": own.precision,
        "device": str(own.device),
        "distributed": own.distributed,
        "processes": own.processes,
        "images_per_step": t.sampler.images_per_step,
        "steps_per_epoch": t.sampler.steps,
        "environment": records.environment(),
    }


def start_records(settings: Settings, folder: Path, done: int) -> records.Records:
    """The log, with the tracker that `run.tracker` names. Raises `MissingPackageError`."""
    if settings.run.tracker is None:
        return records.Records(folder, done)
    path = folder / TRACKER_FILE
    earlier = json.loads(path.read_text()) if done and path.is_file() else {}
    known = earlier.get("id") if earlier.get("tracker") == settings.run.tracker else None
    started = engine.start_tracker(settings.run.tracker, folder, records.flat(settings.dump()), known)
    write_text(path, json.dumps({"tracker": settings.run.tracker, "id": started.id}))
    return records.Records(folder, done, started)
