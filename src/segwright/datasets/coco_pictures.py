"""Which images of a COCO file can be used: names that stay in the folder, files that are there and fit."""

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from segwright.datasets.base import Notes
from segwright.datasets.coco_file import Picture
from segwright.errors import DataError
from segwright.images import IMAGE_SUFFIXES, image_size


def usable(folder: Path, pictures: list[Picture], notes: Notes) -> list[Picture]:
    """Those of the pictures that can be used, by their order in the file; a note on each of the others."""
    there = _files(folder)
    good, ids, names = [], set(), set()
    for picture in pictures:
        label = f"{folder.name}/{picture.file_name}"
        name = PurePosixPath(picture.file_name).as_posix()
        if picture.id in ids:
            notes.see("duplicate-image-id", label, f"id {picture.id}")
        elif leaves(picture.file_name):
            notes.see("unsafe-path", label)
        elif name in names:
            notes.see("duplicate-file-name", label)
        elif name not in there and not (folder / name).is_file():  # the latter for links and for case-blind disks
            notes.see("missing-image", label)
        elif _fits(folder, picture, label, notes):
            good.append(picture)
        ids.add(picture.id)
        names.add(name)
    for name in sorted(there - names):
        if name.lower().endswith(IMAGE_SUFFIXES):
            notes.see("unlisted-image", f"{folder.name}/{name}")
    return good


def leaves(name: str) -> bool:
    """Whether a file name is absolute or may lead out of its folder, on any system. Links are not followed."""
    paths = (PurePosixPath(name), PureWindowsPath(name))
    return "\0" in name or any(path.anchor or path.drive or ".." in path.parts for path in paths)


def _files(folder: Path) -> set[str]:
    """Names of all files in the folder and below it, relative to it, with forward slashes."""
    return {
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    }


def _fits(folder: Path, picture: Picture, label: str, notes: Notes) -> bool:
    try:
        height, width = image_size(folder / picture.file_name)
    except DataError as error:
        notes.see("unreadable-image", label, str(error))
        return False
    if (height, width) != (picture.height, picture.width):
        seen, said = f"{width} x {height}", f"{picture.width} x {picture.height}"
        notes.see("size-mismatch", label, f"is {seen}, annotated as {said}")
        return False
    return True
