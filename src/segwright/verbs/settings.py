"""All sections of a configuration together: the one place that knows every part's dataclass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from segwright.config import Choice, as_mapping, dump, merge, parse_overrides, resolve
from segwright.data import Config as InputConfig
from segwright.datasets import READERS
from segwright.errors import ConfigError
from segwright.heads import HEADS
from segwright.inference import Config as PredictConfig
from segwright.losses import LOSSES
from segwright.model import Config as ModelConfig
from segwright.model import EncoderConfig, preset, run_name
from segwright.training.loop import Config as TrainConfig
from segwright.training.optim import Config as OptimConfig
from segwright.training.schedules import SCHEDULES
from segwright.transforms import Config as AugmentConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    output: str | None = None
    """The run's folder; none: runs/<name of the model>."""
    overwrite: bool = False
    """Empty a folder that holds a run, instead of taking the next free name."""
    check: bool = True
    """Check the data before training."""


SCHEMA: dict[str, Any] = {
    "model": ModelConfig,
    "encoder": EncoderConfig,
    "head": HEADS,
    "data": READERS,
    "input": InputConfig,
    "augment": AugmentConfig,
    "loss": LOSSES,
    "optim": OptimConfig,
    "schedule": SCHEDULES,
    "train": TrainConfig,
    "predict": PredictConfig,
    "run": RunConfig,
}
DEFAULTS = {"head": "lite", "data": "coco", "loss": "bce_dice", "schedule": "plateau"}
"""The part that stands where a section names none."""
BASE: dict[str, Any] = {"model": {"name": "segformer_lite"}}
"""What holds where neither a file nor a flag says otherwise."""


@dataclass(frozen=True)
class Settings:
    """A checked configuration. `dump()` gives the plain values that make an equal one."""

    model: ModelConfig
    encoder: EncoderConfig
    head: Choice
    data: Choice
    input: InputConfig
    augment: AugmentConfig
    loss: Choice
    optim: OptimConfig
    schedule: Choice
    train: TrainConfig
    predict: PredictConfig
    run: RunConfig

    def dump(self) -> dict[str, Any]:
        """Plain nested values, as YAML holds them."""
        return dump({field.name: getattr(self, field.name) for field in fields(self)})

    @property
    def name(self) -> str:
        """The run's name."""
        return run_name(self.model, self.encoder, self.head.name)


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Checks plain nested values.

    Raises:
        ConfigError: with every problem that was found.
    """
    values = merge(BASE, values)
    if not (values.get("model") or {}).get("name") and (values.get("head") or {}).get("name") is None:
        raise ConfigError("neither model.name nor head.name is given. Set model.name=segformer_lite, or choose a head.")
    return Settings(**resolve(preset(values), SCHEMA, DEFAULTS))


def gather(
    config: str | Path | Mapping[str, Any] | Settings | None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> Settings:
    """A file or mapping, then dotted overrides, then flags (`section.key` -> value, None = not given); later ones win.

    `base` is what stands below them all, e.g. the config in a checkpoint.
    """
    if isinstance(config, Settings):
        config = config.dump()
    values = merge(merge(base or {}, as_mapping(config)), parse_overrides(overrides))
    for key, value in (flags or {}).items():
        if value is not None:
            section, name = key.split(".")
            values = merge(values, {section: {name: value}})
    return settings_from(values)
