"""SegHiero's YAML in our own keys: tables, and the few places where one of its values makes two of ours.

Its sections are `dataset`, `classes`, `backbone`, `head`, `training`, `transform` and `output`; each is translated
wherever it stands, so a part of such a file can be used, too.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from segwright.errors import ConfigError, nearest

log = logging.getLogger("segwright")

KEYS: dict[str, tuple[str, ...]] = {
    "training.epochs": ("train.epochs",),
    "training.batch_size": ("train.batch_size",),
    "training.device": ("train.device",),
    "training.lr": ("optim.lr", "optim.lr_encoder"),
    "training.weight_decay": ("optim.weight_decay",),
    "training.num_workers": ("input.workers",),
    "training.fine_weight": ("loss.fine_weight",),
    "training.coarse_weight": ("loss.coarse_weight",),
    "training.super_weight": ("loss.super_weight",),
    "training.hiera_loss_multiplier": ("loss.tree_weight",),
    "transform.resize": ("input.size",),
    "transform.hflip_prob": ("augment.hflip",),
    "head.type": ("head.name",),
    "head.proj_dim": ("head.width",),
    "backbone.pretrained": ("encoder.pretrained",),
    "model.projection_dim": ("model.embedding",),
}
"""Its key -> ours. It has one learning rate, for head and encoder alike; a size is (height, width), as everywhere."""
UNUSED: dict[str, str] = {
    "training.momentum": "the optimizer is AdamW; with optim.name=sgd give optim.momentum",
    "training.gpus": "a run uses one device, train.device",
    "training.aux_loss_weight": "there is no auxiliary head",
    "training.rmi_radius": "neighbourhoods are 3 x 3",
    "training.rmi_pool_way": "the maximum is taken",
    "training.rmi_pool_size": "it is 3",
    "training.rmi_pool_stride": "it is 3",
    "training.rmi_loss_weight_lambda": "loss.rmi_weight switches that loss on",
    "transform.normalize_mean": "the encoder's own is used",
    "transform.normalize_std": "the encoder's own is used",
    "model.pretrained_model": "it counts where it names a ResNet and nothing else names the encoder",
    "model.c1_channels": "the head's is 48",
    "model.aspp_channels": "head.width sets it",
    "model.aspp_dilations": "head.rates sets them",
    "model.projection_type": "the embedding is made by two convolutions",
}
"""Keys that it has and a run here has no use for, and why; each is named in the log."""
SUBSECTION = "training.triplet"
"""Its section within a section."""
TRIPLET = {"max_samples": "triplet_samples", "schedule_warmup_steps": "triplet_steps"}
"""Keys of that section -> ours in `loss`."""
UNUSED_TRIPLET = {
    "margin": "the tree decides it: 0.6 with two levels",
    "schedule_warmup_steps_3level": "schedule_warmup_steps holds for any depth",
    "schedule_min_factor": "the loss rises from 0 to a half, as in the paper",
    "schedule_max_factor": "the loss rises from 0 to a half, as in the paper",
}
ENCODERS: dict[str, tuple[str, str, str]] = {
    "resnet": ("depth", "101", "resnet{}"),
    "convnext": ("variant", "tiny", "convnext_{}"),
    "segformer": ("variant", "mit-b0", "{}"),
}
"""backbone.type -> the key that says which, its default, and the encoder's name."""
TREE_KEYS = {
    "fine_names", "coarse_names", "coarse_to_fine_map", "super_coarse_names", "super_coarse_to_coarse_map",
}  # fmt: skip
OUTPUT = ("checkpoint_dir", "project_name")
"""Keys of its `output`: the two halves of a run's folder."""
SECTIONS = {"dataset", "backbone", "training", "transform", "output"}
"""Those that are its alone; `classes`, `head` and `model` are told by their keys."""
NAMING = {"model": "MODEL_NAME", "encoder": "ENCODER", "head": None}
"""Our sections whose `name` chooses the network, and the crack system's key for each."""


def translate_sections(values: Mapping[str, Any], where: str, whole: bool) -> dict[str, Any]:
    """Our sections for its; sections that are not its stay as they are. In a `whole` config a backbone without a head,
    or a head without a backbone, has its default beside it; where nothing names either, both are its defaults.

    Raises:
        ConfigError: a section that is no mapping, or has a key that SegHiero's has not.
    """
    if whole:
        values = _with_backbone(values)
    rest = {key: value for key, value in values.items() if not _is_its(key, value)}
    out: dict[str, dict[str, Any]] = {}
    for section in values.keys() - rest.keys():
        given = values[section]
        if not isinstance(given, Mapping):
            raise ConfigError(f"{where}: {section} is {given!r}; it must be a mapping of keys to values.")
        _section(section, given, out, where, whole)
    if whole:
        _drop_idle_embedding(out, rest.get("loss"), where)
    if whole and out.keys() & {"encoder", "head"}:
        out["model"] = {"name": None, **out.get("model", {})}
        out["encoder"] = {"name": "resnet101", **out.get("encoder", {})}
        out["head"] = {"name": "aspp", **out.get("head", {})}
    for section, keys in out.items():
        there = rest.get(section) or {}
        if not isinstance(there, Mapping):
            raise ConfigError(f"{where}: {section} is {there!r}; it must be a mapping of keys to values.")
        rest[section] = {**keys, **there}
    return rest


def _is_its(section: str, value: Any) -> bool:
    keys = set(value) if isinstance(value, Mapping) else set()
    if section in {"classes", "head", "model"}:
        own = {key.partition(".")[2] for key in KEYS | UNUSED if key.startswith(section + ".")}
        return bool(keys & (TREE_KEYS if section == "classes" else own))
    return section in SECTIONS


def _with_backbone(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same; a file of its that names no part of the network has the backbone of its older ones: the ResNet that
    `model.pretrained_model` names, or the default."""
    its_model = _is_its("model", values.get("model"))
    is_file = its_model or ("dataset" in values and _is_its("classes", values.get("classes")))
    if not is_file or "backbone" in values or any(_names(values, section) for section in NAMING):
        return values
    model = dict(values["model"]) if its_model else {}
    resnet = re.fullmatch(r"resnet[-_]?(\d+)", str(model.get("pretrained_model")).lower())
    if resnet:
        del model["pretrained_model"]
    return {**values, **({"model": model} if its_model else {}), "backbone": {"depth": resnet[1]} if resnet else {}}


def _names(values: Mapping[str, Any], section: str) -> bool:
    given = values.get(section)
    return NAMING[section] in values or (isinstance(given, Mapping) and bool(given.get("name")))


def _section(section: str, given: Mapping[str, Any], out: dict[str, dict[str, Any]], where: str, whole: bool) -> None:
    """One of its sections into ours."""
    if section == "dataset":
        out.setdefault("data", {}).update(name="seghiero", dataset=dict(given))
    elif section == "classes":
        out.setdefault("data", {}).update(name="seghiero", classes=dict(given))
        if given.keys() & (TREE_KEYS - {"fine_names"}):
            out["hierarchy"] = {"classes": dict(given)}
    elif section == "output":
        out["run"] = {"output": _place(given, where, whole)}
    else:
        if section == "backbone" and not whole and given.keys() - {"pretrained"}:
            raise ConfigError(
                f"{where}: a backbone is said by several keys at once. Give encoder.name=..., e.g. mit_b5."
            )
        if section == "backbone":
            out.setdefault("encoder", {}).update({"name": _encoder(given, where)} if whole else {})
            given = {key: value for key, value in given.items() if key == "pretrained"}
        _by_table(section, given, out, where)


def _by_table(section: str, given: Mapping[str, Any], out: dict[str, dict[str, Any]], where: str) -> None:
    for key, value in given.items():
        full = f"{section}.{key}"
        if full == SUBSECTION:
            out.setdefault("loss", {}).update(_triplet(value, where))
        elif full in KEYS:
            for target in KEYS[full]:
                ours, name = target.split(".")
                out.setdefault(ours, {})[name] = value
        elif full in UNUSED:
            log.info("%s: %s is not used: %s", where, full, UNUSED[full])
        elif section in {"head", "model"}:
            out.setdefault(section, {})[key] = value
        else:
            known = [*KEYS, *UNUSED, SUBSECTION]
            raise ConfigError(f"{where}: no key is called {full}.{nearest(full, known)}")


def _place(given: Mapping[str, Any], where: str, whole: bool) -> str:
    """The run's folder, which its `output` gives in two halves. Raises `ConfigError`."""
    for key in given.keys() - set(OUTPUT):
        raise ConfigError(f"{where}: no key is called output.{key}.{nearest(str(key), OUTPUT)}")
    if not whole:
        raise ConfigError(
            f"{where}: output.{next(iter(given))} is half of the run's folder, and the other half would be lost. "
            "Give run.output=..., e.g. run.output=runs/mine."
        )
    return str(PurePosixPath(str(given.get("checkpoint_dir") or "runs")) / str(given.get("project_name") or ""))


def _triplet(given: Any, where: str) -> dict[str, Any]:
    """Our keys of `loss` for its section, which switches the tree-triplet loss on. Raises `ConfigError`."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: {SUBSECTION} is {given!r}; it must be a mapping, e.g. {{max_samples: 200}}.")
    for key in given:
        if key in UNUSED_TRIPLET:
            log.info("%s: %s.%s is not used: %s", where, SUBSECTION, key, UNUSED_TRIPLET[key])
        elif key not in TRIPLET:
            known = nearest(str(key), TRIPLET | UNUSED_TRIPLET)
            raise ConfigError(f"{where}: no key is called {SUBSECTION}.{key}.{known}")
    return {"triplet_weight": 1.0, **{ours: given[key] for key, ours in TRIPLET.items() if key in given}}


def _drop_idle_embedding(out: dict[str, dict[str, Any]], loss: Any, where: str) -> None:
    """Its files give the embedding a width also where no loss compares embeddings; then there is none here."""
    given = {**out.get("loss", {}), **(loss if isinstance(loss, Mapping) else {})}
    if "embedding" in out.get("model", {}) and not given.get("triplet_weight"):
        del out["model"]["embedding"]
        log.info("%s: model.projection_dim is not used: without training.triplet there is no embedding", where)


def _encoder(backbone: Mapping[str, Any], where: str) -> str:
    kind = str(backbone.get("type") or "resnet").lower()
    foreign = sorted(backbone.keys() - {"type", "depth", "variant", "pretrained"})
    if foreign:
        known = nearest(foreign[0], ["type", "depth", "variant", "pretrained"])
        raise ConfigError(f"{where}: no key is called backbone.{foreign[0]}.{known}")
    _refuse_idle(backbone, kind, where)
    if kind not in ENCODERS:
        return kind
    key, default, name = ENCODERS[kind]
    return name.format(str(backbone.get(key) or default).lower()).replace("-", "_")


def _refuse_idle(backbone: Mapping[str, Any], kind: str, where: str) -> None:
    """Raises `ConfigError` for a depth or a variant that this type has not: it would do nothing."""
    key, default, _ = ENCODERS.get(kind, ("type", "resnet50", ""))
    for idle in ("depth", "variant"):
        if idle != key and backbone.get(idle) is not None:
            raise ConfigError(
                f"{where}: backbone.{idle} is {backbone[idle]!r}, but which {kind} it is, backbone.{key} says alone. "
                f"Give that, e.g. {key}: {default}, and leave {idle} out."
            )
