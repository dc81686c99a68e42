"""Under which names `segwright infer` writes its pictures, and what they must not overwrite."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from segwright.errors import DataError
from segwright.files import NAME_BYTES
from segwright.png import is_prediction

SHOWN = 3


def output_names(files: Sequence[Path], endings: Sequence[str]) -> list[str]:
    """A name for each file's pictures, which are called that and one of the endings each: its stem; where two pictures
    would be called the same, the whole names of their files, then their paths from the folder that holds all of them,
    with _ between its parts, and then a number before those."""
    root = os.path.commonpath([path.parent for path in files])
    paths = ["_".join(Path(os.path.relpath(path, root)).parts) for path in files]
    ways = [
        (path.stem, path.name, long, f"{number:06d}_{long}")
        for number, (path, long) in enumerate(zip(files, paths, strict=True))
    ]
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
