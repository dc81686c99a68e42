"""`segwright infer`: masks and overlays for a file, a folder or a glob."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segwright.drawing.classes import class_colours
from segwright.drawing.overlays import overlay
from segwright.errors import SegwrightError
from segwright.files import refuse_file, write_text
from segwright.images import TO_LOOK_AT, read_image, reason_of, write_png
from segwright.progress import bar
from segwright.transforms import Size, resize
from segwright.verbs.infer_names import ENDINGS, output_names, stop_on_long_name, stop_on_others
from segwright.verbs.inputs import find_images
from segwright.verbs.loading import Loaded, load_model

log = logging.getLogger("segwright")

MEANING = "mask_classes.json"
"""Beside masks of several classes; no reader takes it for a table of the data's."""


@dataclass
class Inference:
    """What was written, and which files could not be read."""

    folder: Path
    written: list[Path] = field(default_factory=list)
    """The masks."""
    failed: dict[str, str] = field(default_factory=dict)
    """File -> what is wrong with it."""


def infer(
    weights: str | Path,
    inputs: str | Path,
    save: str | Path = "outputs/infer",
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Inference:
    """Writes `<stem>_mask.png` and `<stem>_overlay.png` for each image.

    A mask holds 0 and 255 for one class, else the class ids, with a palette of the classes' colours. With a tree of
    classes there are `<stem>_<level>_mask.png` and `<stem>_<level>_overlay.png` of its upper levels, too.
    With several classes `mask_classes.json` says what the values stand for.
    All are marked as predictions (`segwright.images.is_prediction`), so that no search for masks takes them for truth.
    A file that cannot be read, or whose name leaves no room for that, is reported and left out; the others are done.

    Raises:
        DataError: `inputs` names no image, or a file that is no marked prediction would be overwritten.
        WeightsError: the weights cannot be used.
        SegwrightError: a file is in the way of the folder `save`.
    """
    files = find_images(inputs)
    refuse_file(save, "--save")
    loaded = load_model(weights, config, flags, overrides)
    result = Inference(Path(save))
    names = output_names(files, endings(loaded))
    stop_on_others(result.folder, [name + ending for name in names for ending in endings(loaded)])
    with bar("infer", len(files)) as progress:
        for path, name in zip(files, names, strict=True):
            try:
                result.written.append(infer_one(loaded, path, result.folder / name))
            except NotPredicted as error:
                log.error("%s", error)
                result.failed[str(path)] = str(error)
            progress.advance()
    if result.written and len(loaded.classes) > 1:
        write_text(result.folder / MEANING, json.dumps(meaning(loaded), indent=1, ensure_ascii=False))
    return result


def meaning(loaded: Loaded) -> dict[str, list[dict[str, Any]]]:
    """Of each kind of mask by the end of its name what its values stand for: id, name and RGB of each class."""
    kinds = {"mask": (loaded.classes, class_colours(loaded.classes, loaded.colours))}
    if loaded.predictor.tree is not None:
        tree = loaded.predictor.tree.hierarchy
        for number, level in enumerate(tree.level_names[:-1]):
            kinds[f"{level}_mask"] = (list(tree.names(number)), class_colours(tree.names(number)))
    return {
        kind: [{"id": place, "name": name, "color": [*map(int, rgb[:3])]} for place, (name, rgb) in enumerate(pairs)]
        for kind, pairs in ((kind, zip(names, colours, strict=False)) for kind, (names, colours) in kinds.items())
    }


class NotPredicted(SegwrightError):
    """One image among many that cannot be read or predicted."""


def infer_one(loaded: Loaded, path: Path, stem: Path) -> Path:
    """Predicts one file and writes both pictures. Gives the mask's path. Raises `NotPredicted`."""
    try:
        stop_on_long_name(stem.name + endings(loaded)[-1])
        image = read_image(path)
    except SegwrightError as error:
        raise NotPredicted(
            f"{path} is no image that can be read: {reason_of(error, path)}. Give a whole PNG or JPEG."
        ) from None
    try:
        masks = level_masks(loaded, image)
    except SegwrightError as error:
        raise NotPredicted(str(error) if path.name in str(error) else f"{path}: {error}") from None
    except MemoryError:
        raise NotPredicted(f"{path} does not fit into memory. Shrink it, or set input.size.") from None
    for level, (mask, colours) in masks.items():
        binary = len(loaded.classes) == 1
        named = f"{stem.name}_{level}" if level else stem.name
        palette = None if binary else colours[:, :3]
        write_png(stem.with_name(named + "_mask.png"), mask * 255 if binary else mask, palette, prediction=True)
        laid = overlay(image, mask, colours)
        write_png(stem.with_name(named + "_overlay.png"), laid, effort=TO_LOOK_AT, prediction=True)
    return stem.with_name(stem.name + "_mask.png")


def endings(loaded: Loaded) -> list[str]:
    """What follows an image's name in the names of its pictures, the longest last."""
    tree = loaded.predictor.tree
    levels = ["", *(f"_{level}" for level in tree.hierarchy.level_names[:-1])] if tree else [""]
    return sorted((level + kind for level in levels for kind in ENDINGS), key=len)


def level_masks(loaded: Loaded, image: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mask (H, W) and colours (K, 4) of the classes, under "", and of a tree's upper levels under their names."""
    predictor, logits = loaded.predictor, network_logits(loaded, image)
    height, width = image.shape[:2]
    own = class_colours(loaded.classes, loaded.colours)
    if predictor.tree is None:
        return {"": (predictor.ids(logits, (height, width)), own)}
    tree = predictor.tree.hierarchy
    found, _ = predictor.levels(logits, (height, width))
    upper = zip(tree.level_names[:-1], found, strict=False)
    masks = {name: (mask, class_colours(tree.names(number))) for number, (name, mask) in enumerate(upper)}
    return masks | {"": (found[-1], own)}


def predict_image(loaded: Loaded, image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> probabilities (K, H, W) at the image's own size."""
    height, width = image.shape[:2]
    return loaded.predictor.at_size(network_logits(loaded, image), (height, width))


def network_logits(loaded: Loaded, image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 RGB -> logits (K, h, w) as the predictor's other methods take them."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    height, width = image.shape[:2]
    own: Size = (height, width)
    tensor, _ = resize(tensor, torch.zeros(own, dtype=torch.uint8), loaded.settings.input.pixels() or own)
    return loaded.predictor.logits(tensor[None], resize=False)[0]
