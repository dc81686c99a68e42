"""All sections of a configuration together: the one place that knows every part's dataclass."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from segwright.config import Choice, as_mapping, dump, merge, parse_overrides, resolve
from segwright.data import Config as InputConfig
from segwright.datasets import READERS
from segwright.datasets.detect import detect
from segwright.datasets.mapping import Config as ClassesConfig
from segwright.errors import ConfigError
from segwright.heads import HEADS
from segwright.hierarchy import Config as HierarchyConfig
from segwright.inference import Config as PredictConfig
from segwright.lora import Config as LoraConfig
from segwright.losses import LOSSES
from segwright.model import Config as ModelConfig
from segwright.model import EncoderConfig, run_name
from segwright.presets import preset
from segwright.splitting import Config as SplitConfig
from segwright.training.config import Config as TrainConfig
from segwright.training.optim import Config as OptimConfig
from segwright.training.schedules import SCHEDULES
from segwright.transforms import Config as AugmentConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    output: str | None = None
    """The run's folder; {name} in it is the model's name, {variant} the end of that (b2). None: runs/{name}."""
    best_as: str | None = None
    """Another name, in the run's folder, under which best.pth is found, too."""
    overwrite: bool = False
    """Empty a folder that holds a run, instead of taking the next free name."""
    check: bool = True
    """Check the data before training."""
    tracker: Literal["mlflow", "wandb"] | None = None
    """A service that keeps the run's log as well, set up by its own environment variables."""
    commercial: bool = False
    """Refuse pretrained weights whose licence forbids commercial use or is not known."""

    def __post_init__(self) -> None:
        if self.best_as is not None and Path(self.best_as).name != self.best_as:
            raise ConfigError(f"run.best_as is '{self.best_as}'; it is a name in the run's folder. Give one without /.")


log = logging.getLogger("segwright")

SCHEMA: dict[str, Any] = {
    "model": ModelConfig,
    "encoder": EncoderConfig,
    "head": HEADS,
    "lora": LoraConfig,
    "data": READERS,
    "classes": ClassesConfig,
    "hierarchy": HierarchyConfig,
    "split": SplitConfig,
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
LOSS_OF_ONE, LOSS_OF_SEVERAL, LOSS_OF_TREE = DEFAULTS["loss"], "ce_dice", "tree"
"""The loss that stands where none is named, once it is known whether the data have one class, several, or a tree."""
BASE: dict[str, Any] = {"model": {"name": "segformer_lite"}}
"""What holds where neither a file nor a flag names a whole model or a head."""


@dataclass(frozen=True)
class Settings:
    """A checked configuration. `dump()` gives the plain values that make an equal one."""

    model: ModelConfig
    encoder: EncoderConfig
    head: Choice
    lora: LoraConfig
    data: Choice
    classes: ClassesConfig
    hierarchy: HierarchyConfig
    split: SplitConfig
    input: InputConfig
    augment: AugmentConfig
    loss: Choice
    optim: OptimConfig
    schedule: Choice
    train: TrainConfig
    predict: PredictConfig
    run: RunConfig
    loss_is_open: bool = False
    """No loss was named: `with_loss_for` decides when the classes are known."""

    def dump(self) -> dict[str, Any]:
        """Plain nested values, as YAML holds them."""
        values = dump({section: getattr(self, section) for section in SCHEMA})
        if self.loss_is_open:
            del values["loss"]["name"]
        return values

    @property
    def name(self) -> str:
        """The run's name."""
        return run_name(self.model, self.encoder, self.head.name)


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Checks plain nested values.

    Raises:
        ConfigError: with every problem that was found.
    """
    head = values.get("head")
    if not (isinstance(head, Mapping) and head.get("name")):
        values = merge(BASE, values)
    values = _with_tree(_with_reader(values))
    if not (values.get("model") or {}).get("name") and (values.get("head") or {}).get("name") is None:
        raise ConfigError("neither model.name nor head.name is given. Set model.name=segformer_lite, or choose a head.")
    loss = values.get("loss") or {}
    is_open = isinstance(loss, Mapping) and not loss.get("name")
    defaults = {**DEFAULTS, "loss": _loss_with(loss)} if is_open else DEFAULTS
    settings = _placed(Settings(**resolve(preset(values), SCHEMA, defaults), loss_is_open=is_open))
    settings = _with_embedding(settings)
    if settings.lora.enabled and settings.train.freeze_encoder:
        raise ConfigError(
            "lora.enabled and train.freeze_encoder are both true: LoRA freezes the encoder's own weights by itself, "
            "and its adapters would never train. Leave out one of them; train.freeze_epochs keeps the adapters still "
            "for the first epochs."
        )
    return settings


def _placed(settings: Settings) -> Settings:
    """The same, with the model's name in the run's folder where that asks for it."""
    if settings.run.output is None:
        return settings
    output = settings.run.output.replace("{name}", settings.name)
    output = output.replace("{variant}", settings.name.rpartition("_")[2])
    return replace(settings, run=replace(settings.run, output=output))


def _with_reader(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same; where no reader is named (or `auto` is), the one that knows the data's folder is."""
    data = values.get("data")
    if data is not None and not isinstance(data, Mapping):
        return values
    name, root = (data or {}).get("name") or "auto", (data or {}).get("root")
    if name == "auto":
        name = detect(root) if isinstance(root, str | Path) and Path(root).is_dir() else DEFAULTS["data"]
    return merge(values, {"data": {"name": name}})


def _with_tree(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same; where there is a tree of classes and no loss is named, the one for it is. Raises `ConfigError`."""
    loss, tree = values.get("loss") or {}, values.get("hierarchy") or {}
    if not isinstance(loss, Mapping) or not isinstance(tree, Mapping):
        return values
    if loss.get("name") == LOSS_OF_TREE and not tree.get("classes"):
        raise ConfigError(
            "loss.name is tree, but hierarchy.classes gives no tree, so there is nothing for it to hold together. "
            "Write the tree, e.g. hierarchy: {classes: {ground: [road, pavement], sky: 4}}, or use ce_dice."
        )
    return merge(values, {"loss": {"name": LOSS_OF_TREE}}) if tree.get("classes") and not loss.get("name") else values


EMBEDDING = 256
"""Channels of an embedding where a loss asks for one and nobody says how many, as in the paper of the tree-triplet."""


def _with_embedding(settings: Settings) -> Settings:
    """The same, with an embedding where the loss compares places. Raises `ConfigError` where only one of both is."""
    asked, given = getattr(settings.loss.config, "triplet_weight", 0) > 0, settings.model.embedding
    if asked and given is None:
        return replace(settings, model=replace(settings.model, embedding=EMBEDDING))
    if asked and given == 0:
        raise ConfigError(
            "loss.triplet_weight asks for the tree-triplet loss, which compares embeddings, but model.embedding is 0, "
            "which is none. Leave model.embedding out, or set loss.triplet_weight=0."
        )
    if given and not asked:
        raise ConfigError(
            f"model.embedding is {given}, but nothing would train it: the loss compares no embeddings. Leave it out, "
            "or set loss.name=tree with loss.triplet_weight=1."
        )
    return settings


def _loss_with(keys: Iterable[str]) -> str:
    """Of the losses that stand where none is named, the first that knows all these keys."""
    known = {name: {f.name for f in fields(LOSSES[name].Config)} for name in (LOSS_OF_ONE, LOSS_OF_SEVERAL)}
    return next((name for name, own in known.items() if set(keys) <= own | {"name"}), LOSS_OF_ONE)


def with_loss_for(settings: Settings, num_classes: int) -> Settings:
    """The same, with the loss that fits the number of classes where none was named.

    Raises:
        ConfigError: the config gives a key that this loss does not have.
    """
    if not settings.loss_is_open:
        return settings
    own = settings.loss.config
    changed = {key: value for key, value in asdict(own).items() if value != getattr(type(own)(), key)}
    loss = {"name": LOSS_OF_ONE if num_classes == 1 else LOSS_OF_SEVERAL, **changed}
    return settings_from({**settings.dump(), "loss": loss})


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
    own = as_mapping(config)

    def over(below: Mapping[str, Any]) -> dict[str, Any]:
        values = parse_overrides(overrides, merge(below, own))
        for key, value in (flags or {}).items():
            if value is not None:
                section, name = key.split(".")
                values = merge(values, {section: {name: value}})
        return values

    return settings_from(over(_without_other_reader(base or {}, over({}))))


def _without_other_reader(base: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The base; without its data section where the values name another reader, which has other keys, or a folder that
    another reader knows and this one does not."""
    own, new = base.get("data") or {}, values.get("data") or {}
    if not isinstance(new, Mapping):
        return base
    name = new.get("name") or _other_layout(own.get("name"), own.get("root"), new.get("root"))
    if name is None or name == own.get("name"):
        return base
    return {key: value for key, value in base.items() if key != "data"}


def _other_layout(reader: str | None, before: Any, root: Any) -> str | None:
    """The reader that knows a new data folder, where the one that read the folder before does not. Says so."""
    if reader is None or reader not in READERS or root in (None, before) or not Path(root).is_dir():
        return None
    other, knows = detect(root), getattr(READERS[reader], "recognises", None)
    if other == reader or knows is None or knows(Path(root)) or not READERS[other].recognises(Path(root)):
        return None
    log.info("%s is read as data.name=%s, not as %s as the data before", root, other, reader)
    return other
