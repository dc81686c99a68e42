"""Other pipelines' keys, translated into ours at the edge: tables, no logic of their own."""

from collections.abc import Mapping
from typing import Any

from segwright.config.sections import translate_keys
from segwright.config.seghiero import translate_sections
from segwright.errors import ConfigError, nearest

CRACK: dict[str, str] = {
    "MODEL_NAME": "model.name",
    "ENCODER": "encoder.name",
    "PRETRAINED": "encoder.pretrained",
    "BASE_CHANNELS": "head.width",
    "FREEZE_EPOCHS": "train.freeze_epochs",
    "EPOCHS": "train.epochs",
    "BATCH_SIZE": "train.batch_size",
    "AMP": "train.amp",
    "GRAD_CLIP": "train.grad_clip",
    "EARLY_STOPPING": "train.early_stopping",
    "SEED": "train.seed",
    "LR": "optim.lr",
    "LR_ENCODER": "optim.lr_encoder",
    "LR_HEAD": "optim.lr_head",
    "WEIGHT_DECAY": "optim.weight_decay",
    "SCHEDULER": "schedule.name",
    "IMG_SIZE": "input.size",
    "NUM_WORKERS": "input.workers",
    "THRESHOLD": "predict.threshold",
    "DATA_ROOT": "data.root",
    "OUTPUT": "run.output",
}
"""The flat capital keys of the crack system."""

COMMAND_LINE = "the command line"
"""Where single keys come from."""


def translate(values: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Our own keys for every key that a dialect knows; other keys stay as they are.

    Raises:
        ConfigError: a key in capitals that the crack dialect does not know, or one of a section that no dialect
            knows, with the nearest one.
    """
    whole = where != COMMAND_LINE
    values = translate_keys({str(key): value for key, value in values.items()}, where, whole)
    values = translate_sections(values, where, whole)
    out: dict[str, Any] = {}
    unknown = [key for key in values if key.isupper() and key not in CRACK]
    if unknown:
        raise ConfigError(f"{where}: " + " ".join(f"no key is called {key}.{nearest(key, CRACK)}" for key in unknown))
    for key, value in values.items():
        if key not in CRACK:
            out[key] = {**out.get(key, {}), **value} if isinstance(value, Mapping) else value
    for key, value in values.items():
        if key in CRACK:
            section, name = CRACK[key].split(".")
            there = out.get(section) or {}
            if not isinstance(there, Mapping):
                raise ConfigError(
                    f"{where}: {section} is {there!r} and {key} belongs into that section, so it must be a mapping "
                    f"of keys to values. Write {section}: {{...}}."
                )
            out[section] = {**there, name: value}
    return out
