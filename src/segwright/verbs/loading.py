"""A checkpoint's model, ready to predict, or as it is."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright import checkpoint, lora
from segwright.config import as_mapping
from segwright.engine import Engine
from segwright.engine.rounding import round_weights
from segwright.errors import ConfigError, WeightsError
from segwright.inference import Predictor
from segwright.model import Segmenter, build_model
from segwright.verbs.settings import Settings, gather
from segwright.verbs.trees import channels, decoder

log = logging.getLogger("segwright")

FROM_A_FILE = {"data", "classes", "split", "predict"}
"""Sections that a config file gives for trained weights."""
SHAPING = {"model", "encoder", "head", "hierarchy", "input"}
"""Sections that shape what a checkpoint's weights mean; a file that says otherwise is told so."""
OF_THE_DATA = {("encoder", "pretrained"), ("hierarchy", "coarse_labels")}
"""Keys in them that do not shape the weights' meaning."""


@dataclass(frozen=True)
class Loaded:
    """Trained weights, ready to predict."""

    settings: Settings
    model: Segmenter
    engine: Engine
    predictor: Predictor
    classes: list[str]
    colours: list[list[int]] | None = None
    """RGB of each class, where the data set had its own."""
    division: dict[str, list[str]] | None = None
    """How the run divided its images, where nothing else is asked for."""
    trained_on: tuple[str, ...] = ()
    """Paths of the images that it trained on, from its data's root; empty where the data came divided."""


def load_model(
    weights: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Loaded:
    """A model from a checkpoint alone; overrides and flags change what the checkpoint's own config says.

    A config file gives its sections `FROM_A_FILE`; the rest is left to the checkpoint, which was perhaps trained with
    flags on top of that file: then the file alone would build another model.

    Raises:
        WeightsError: the file is no checkpoint of ours, or belongs to another model than the config names.
    """
    weights = weights_file(weights)
    payload = checkpoint.load(weights)
    try:
        settings = gather(_about_the_data(config, payload["config"]), flags, overrides, base=payload["config"])
    except ConfigError as error:
        raise ConfigError(f"{error}\n(on top of the config that {weights} carries)") from None
    engine = Engine(settings.train.amp, settings.train.device)
    bare = restore(payload, settings, weights)
    round_weights(bare, engine.precision)
    tree = decoder(settings, payload["classes"])
    predictor = Predictor(engine.prepare(bare).eval(), bare, engine, settings.predict, tree)
    made = payload.get("split")
    own_split = made if settings.dump()["split"] == payload["config"].get("split") else None
    learnt = tuple((made or {}).get("train", ()))
    return Loaded(
        settings, bare, engine, predictor, list(payload["classes"]), payload.get("colours"), own_split, learnt
    )


def weights_file(weights: str | Path) -> Path:
    """The file itself, or of a run's folder its best.pth. `WeightsError`: the folder has none."""
    path = Path(weights)
    if not path.is_dir():
        return path
    best = path / "best.pth"
    if not best.is_file():
        raise WeightsError(
            f"the folder {path} holds no best.pth, so it is no run's that has ended an epoch. Give the folder of such "
            "a run, or a checkpoint's path."
        )
    log.info("weights: %s", best)
    return best


def _about_the_data(config: str | Path | Mapping[str, Any] | None, own: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the sections of the model; says which of its values the checkpoint overrules."""
    values = as_mapping(config)
    for section in SHAPING & values.keys():
        for key, value in (values[section] or {}).items():
            used = own.get(section, {}).get(key)
            if (section, key) not in OF_THE_DATA and key in own.get(section, {}) and used != value:
                log.info("%s.%s is %s, as the checkpoint was trained, not the config's %s", section, key, used, value)
    given = {section: value for section, value in values.items() if section in FROM_A_FILE}
    coarse = (values.get("hierarchy") or {}).get("coarse_labels")  # what masks mean, not what weights mean
    return given | ({"hierarchy": {"coarse_labels": coarse}} if coarse else {})


def load(weights: str | Path) -> Segmenter:
    """The trained model in a checkpoint of ours, in evaluation mode on the CPU.

    Its input is (B, 3, H, W) float, normalised with `model.encoder.mean` and `.std`; its output logits (B, K, H, W).
    """
    weights = weights_file(weights)
    payload = checkpoint.load(weights)
    return restore(payload, gather(payload["config"]), weights)


def restore(payload: dict[str, Any], settings: Settings, weights: str | Path) -> Segmenter:
    """The model of a checkpoint that was read from `weights`, in evaluation mode on the CPU; adapters are merged."""
    names = channels(settings, payload["classes"])
    model = build_model(settings.model, settings.encoder, settings.head, len(names), pretrained=False)
    own = payload["config"].get("lora", {})
    tensors = lora.merged(payload["model"], own.get("lora_alpha", lora.Config.lora_alpha))
    checkpoint.load_weights(model, payload | {"model": tensors}, weights)
    remember(model, payload)
    model.classes = names
    return model.eval()


def remember(model: Segmenter, payload: Mapping[str, Any]) -> None:
    """Gives a model what a checkpoint knows beside weights: normalisation, classes, origin of the first weights."""
    encoder = model.encoder
    encoder.mean, encoder.std = tuple(payload["mean"]), tuple(payload["std"])
    model.classes = tuple(payload["classes"])
    first = payload.get("weights", {})
    encoder.origin, encoder.licence = first.get("origin", encoder.origin), first.get("licence", encoder.licence)
    encoder.trained_from = first.get("trained_from")
