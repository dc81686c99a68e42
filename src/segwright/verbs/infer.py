"""`segwright infer`: masks and overlays for a file, a folder or a glob."""

import glob
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segwright.drawing.overlays import overlay
from segwright.errors import DataError, SegwrightError
from segwright.images import IMAGE_SUFFIXES, read_image, write_png
from segwright.progress import bar
from segwright.transforms import Size, resize
from segwright.verbs.evaluate import Loaded, load_model

log = logging.getLogger("segwright")

MADE_BY_US = ("_mask.png", "_overlay.png")


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
    """Writes `<stem>_mask.png` (0 and 255 for one class, else class ids) and `<stem>_overlay.png` for each image.

    A file that cannot be read is reported and left out; the others are done.

    Raises:
        DataError: `inputs` names no image.
        WeightsError: the weights cannot be used.
    """
    files = find_images(inputs)
    loaded = load_model(weights, config, flags, overrides)
    result = Inference(Path(save))
    names = output_names(files)
    with bar("infer", len(files)) as progress:
        for path, name in zip(files, names, strict=True):
            try:
                result.written.append(infer_one(loaded, path, result.folder / name))
            except NotPredicted as error:
                log.error("%s", error)
                result.failed[str(path)] = str(error)
            progress.advance()
    log.info("%d masks in %s, %d files could not be read", len(result.written), result.folder, len(result.failed))
    return result


def find_images(inputs: str | Path) -> list[Path]:
    """The image files that a path or glob names, sorted; our own outputs are left out."""
    path = Path(inputs)
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    elif path.is_file():
        return [path]
    else:
        found = [Path(p) for p in glob.glob(str(inputs), recursive=True) if Path(p).suffix.lower() in IMAGE_SUFFIXES]
    files = sorted(p for p in found if not p.name.endswith(MADE_BY_US) and not p.name.startswith("."))
    if not files:
        raise DataError(f"{inputs} names no image. Give a file, a folder or a pattern of {', '.join(IMAGE_SUFFIXES)}.")
    return files


def output_names(files: Sequence[Path]) -> list[str]:
    """A name for each file's outputs: its stem, or its whole name where two files share a stem."""
    stems = Counter(path.stem for path in files)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in files]
    times = Counter(names)
    return [name if times[name] == 1 else f"{i:06d}_{name}" for i, name in enumerate(names)]


class NotPredicted(SegwrightError):
    """One image among many that cannot be read or predicted."""


def infer_one(loaded: Loaded, path: Path, stem: Path) -> Path:
    """Predicts one file and writes both pictures. Gives the mask's path. Raises `NotPredicted`."""
    try:
        image = read_image(path)
        mask = loaded.predictor.mask(predict_image(loaded, image))
    except SegwrightError as error:
        raise NotPredicted(str(error) if path.name in str(error) else f"{path}: {error}") from None
    except MemoryError:
        raise NotPredicted(f"{path} does not fit into memory. Shrink it, or set input.size.") from None
    mask_path = stem.with_name(stem.name + "_mask.png")
    write_png(mask_path, mask * 255 if len(loaded.classes) == 1 else mask)
    write_png(stem.with_name(stem.name + "_overlay.png"), overlay(image, mask))
    return mask_path


def predict_image(loaded: Loaded, image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> probabilities (K, H, W) at the image's own size."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    height, width = image.shape[:2]
    own: Size = (height, width)
    tensor, _ = resize(tensor, torch.zeros(own, dtype=torch.uint8), loaded.settings.input.pixels() or own)
    return loaded.predictor.at_size(loaded.predictor.logits(tensor[None])[0], own)
