"""SegHiero's YAML in our own keys: tables, and the few places where one of its values makes two of ours.

Its sections are `dataset`, `classes`, `backbone`, `head`, `training`, `transform` and `output`; each is translated
wherever it stands, so a part of such a file can be used, too.
"""

import logging
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from segwright.errors import ConfigError, nearest

log = logging.getLogger("segwright")

KEYS: dict[str, str] = {
    "training.epochs": "train.epochs",
    "training.batch_size": "train.batch_size",
    "training.device": "train.device",
    "training.lr": "optim.lr",
    "training.weight_decay": "optim.weight_decay",
    "training.num_workers": "input.workers",
    "training.fine_weight": "loss.fine_weight",
    "training.coarse_weight": "loss.coarse_weight",
    "training.super_weight": "loss.super_weight",
    "training.hiera_loss_multiplier": "loss.tree_weight",
    "transform.resize": "input.size",
    "transform.hflip_prob": "augment.hflip",
    "head.type": "head.name",
    "head.proj_dim": "head.width",
    "backbone.pretrained": "encoder.pretrained",
    "model.projection_dim": "model.embedding",
}
"""Its key -> ours. A size is (height, width), as everywhere here."""
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
    "model.pretrained_model": "backbone says it",
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
SECTIONS = {"dataset", "backbone", "training", "transform", "output"}
"""Those that are its alone; `classes`, `head` and `model` are told by their keys."""


def translate_sections(values: Mapping[str, Any], where: str, whole: bool) -> dict[str, Any]:
    """Our sections for its; sections that are not its stay as they are. In a `whole` config a backbone without a head,
    or a head without a backbone, has its default beside it.

    Raises:
        ConfigError: a section that is no mapping, or has a key that SegHiero's has not.
    """
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


def _section(section: str, given: Mapping[str, Any], out: dict[str, dict[str, Any]], where: str, whole: bool) -> None:
    """One of its sections into ours."""
    if section == "dataset":
        out.setdefault("data", {}).update(name="seghiero", dataset=dict(given))
    elif section == "classes":
        out.setdefault("data", {}).update(name="seghiero", classes=dict(given))
        if given.keys() & (TREE_KEYS - {"fine_names"}):
            out["hierarchy"] = {"classes": dict(given)}
    elif section == "output":
        place = PurePosixPath(str(given.get("checkpoint_dir") or "runs")) / str(given.get("project_name") or "")
        out["run"] = {"output": str(place)}
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
            ours, name = KEYS[full].split(".")
            out.setdefault(ours, {})[name] = value
        elif full in UNUSED:
            log.info("%s: %s is not used: %s", where, full, UNUSED[full])
        elif section in {"head", "model"}:
            out.setdefault(section, {})[key] = value
        else:
            known = [*KEYS, *UNUSED, SUBSECTION]
            raise ConfigError(f"{where}: no key is called {full}.{nearest(full, known)}")


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
    if kind not in ENCODERS:
        return kind
    key, default, name = ENCODERS[kind]
    return name.format(str(backbone.get(key) or default).lower()).replace("-", "_")
