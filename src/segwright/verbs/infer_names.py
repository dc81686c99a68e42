"""The files of `segwright infer`: which images a path names, and under which names their pictures are written."""

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from segwright.errors import DataError
from segwright.files import NAME_BYTES
from segwright.images import IMAGE_SUFFIXES, is_prediction

log = logging.getLogger("segwright")

ENDINGS = ("_mask.png", "_overlay.png")
"""Behind an image's name: what its pictures are called."""
SHOWN = 3


def find_images(inputs: str | Path) -> list[Path]:
    """The image files that a path or glob names, sorted. Masks and overlays beside them are left out, which is logged.

    Raises:
        DataError: there are none.
    """
    path = Path(inputs)
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    elif path.is_file():
        return [path]
    else:
        found = [Path(p) for p in glob.glob(str(inputs), recursive=True) if Path(p).suffix.lower() in IMAGE_SUFFIXES]
    files = _without_pictures(sorted(p for p in found if not p.name.startswith(".")))
    if not files:
        raise DataError(f"{inputs} names no image. Give a file, a folder or a pattern of {', '.join(IMAGE_SUFFIXES)}.")
    return files


def _without_pictures(files: Sequence[Path]) -> list[Path]:
    """Leaves out what infer wrote, and what an image beside it makes a mask or overlay by its name; says how many."""
    named = [path for path in files if path.name.endswith(ENDINGS)]
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
    return next(picture.name.removesuffix(ending) for ending in ENDINGS if picture.name.endswith(ending))


def output_names(files: Sequence[Path], endings: Sequence[str]) -> list[str]:
    """A name for each file's pictures, which are called that and one of the endings each: its stem; where two pictures
    would be called the same, the whole names of their files, and then those with a number."""
    ways = [(path.stem, path.name, f"{number:06d}_{path.name}") for number, path in enumerate(files)]
    chosen = [0] * len(files)
    while True:
        names = [way[which] for way, which in zip(ways, chosen, strict=True)]
        times = Counter(name + ending for name in names for ending in endings)
        clashing = [row for row, name in enumerate(names) if any(times[name + ending] > 1 for ending in endings)]
        if not clashing:
            return names
        for row in clashing:  # numbers differ, so that this comes to an end
            chosen[row] = min(chosen[row] + 1, len(ways[row]) - 1)


def stop_on_others(folder: Path, names: Iterable[str]) -> None:
    """Raises `DataError` where pictures of these names would overwrite what is not known for a prediction."""
    standing = [name for name in names if os.path.lexists(folder / name) and not is_prediction(folder / name)]
    if standing:
        shown = ", ".join(standing[:SHOWN]) + (", ..." if len(standing) > SHOWN else "")
        raise DataError(
            f"{folder} holds {len(standing)} files that would be overwritten ({shown}) and that nothing marks as "
            "predictions: they may be true masks (or predictions of an earlier version, which marked none). Choose "
            "another --save, or move them away."
        )


def stop_on_long_name(name: str) -> None:
    """Raises `DataError` for a name that no file can have."""
    if (length := len(os.fsencode(name))) > NAME_BYTES:
        raise DataError(
            f"its picture would be called {name}, {length} bytes, and the name of a file has at most {NAME_BYTES}. "
            "Give the image a shorter name."
        )
