"""Which images `infer` is to predict: a file, a folder's, or a pattern's."""

import glob
import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from segwright.errors import DataError
from segwright.images import IMAGE_SUFFIXES
from segwright.png import PREDICTED, is_prediction

log = logging.getLogger("segwright")

SHOWN = 5
"""Files that are named."""


def find_images(inputs: str | Path) -> list[Path]:
    """The image files that a path or glob names, sorted. Masks and overlays beside them are left out, which is
    logged.

    Raises:
        DataError: there is no such path, or it names no image; where they lie, as far as it can be seen.
    """
    path = Path(inputs)
    if path.is_file():
        return [path]
    named = list(path.iterdir()) if path.is_dir() else [Path(one) for one in glob.glob(str(inputs), recursive=True)]
    found = [one for one in named if one.suffix.lower() in IMAGE_SUFFIXES]
    files = _without_pictures(sorted({one for one in found if not one.name.startswith(".")}))
    if not files:
        raise DataError(_nothing(path, str(inputs)))
    _say_others(named)
    return files


def _without_pictures(files: Sequence[Path]) -> list[Path]:
    """Leaves out what infer wrote, and what an image beside it makes a mask or overlay by its name; says how many."""
    named = [path for path in files if path.name.endswith(PREDICTED)]
    beside = {folder: _names_in(folder) for folder in {path.parent for path in named}}
    ours = {path for path in named if is_prediction(path)}
    others = {path for path in named if _image_of(path) in beside[path.parent]} - ours
    if ours or others:
        log.warning(
            "%d of %d images are left out: %d that infer wrote, and %d that are called as the mask or overlay of an "
            "image beside them%s. Give such a file by its own path if it is a photograph",
            len(ours) + len(others),
            len(files),
            len(ours),
            len(others),
            f" (as {min(others)})" if others else "",
        )
    return [path for path in files if path not in ours | others]


def _names_in(folder: Path) -> set[str]:
    """What images of this folder are called, with and without their suffix."""
    images = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    return {path.stem for path in images} | {path.name for path in images}


def _image_of(picture: Path) -> str:
    """Name of the image that a mask or overlay belongs to, as far as its own name tells."""
    return next(picture.name.removesuffix(ending) for ending in PREDICTED if picture.name.endswith(ending))


def _nothing(path: Path, inputs: str) -> str:
    """Why there is no image."""
    kinds = ", ".join(IMAGE_SUFFIXES)
    if not path.is_dir() and glob.has_magic(inputs):
        return f"no image matches the pattern {inputs}. Give a file, a folder or a pattern of {kinds}."
    if not path.is_dir():
        return f"{inputs} does not exist. Give an image, a folder of images, or a pattern in quotes."
    for folder in sorted(one for one in path.rglob("*") if one.is_dir()):
        held = sorted(one for one in folder.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES)
        if held:
            return (
                f"the folder {inputs} itself holds no image, and its subfolders are not searched; {folder} holds "
                f"{len(held)}. Give that folder, or a pattern in quotes: '{path}/**/*{held[0].suffix}'."
            )
    return f"the folder {inputs} names no image: it holds none of {kinds}. Give another folder, a file or a pattern."


def _say_others(named: Sequence[Path]) -> None:
    """Says which pictures of other kinds are passed over."""
    known = Image.registered_extensions().keys() - set(IMAGE_SUFFIXES)
    others = sorted(one.name for one in named if one.suffix.lower() in known and one.is_file())
    if others:
        more = ", ..." if len(others) > SHOWN else ""
        log.warning(
            "%d files are passed over, since only %s are taken from folders and patterns: %s%s. Give each alone with "
            "--input, or convert them",
            len(others),
            ", ".join(IMAGE_SUFFIXES),
            ", ".join(others[:SHOWN]),
            more,
        )
