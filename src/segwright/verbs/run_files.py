"""What a run writes into its folder, by name; whether a folder holds a run; taking a run away and nothing else."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from segwright.files import is_draft

BEST, CONFIG = "best.pth", "config.yaml"
FILES = {
    BEST, "last.pth", CONFIG, "training_params.yaml", "training_params.json", "log.csv", "curves.png", "report.html",
    "split.json", "train.log", "adapters.safetensors", "class_weights.json", "data.json", "tracker.json",
    "hierarchy.txt", "hierarchy.png",
}  # fmt: skip
INSIDE = {
    "samples": re.compile(r"(best|worst)_\d+_[\w.-]*\.png"),
    "tensorboard": re.compile(r"events\.out\.tfevents\..+"),
    "last.engine": re.compile(r"\d+/part-\d+\.pth"),
    "wandb": re.compile(r"(offline-)?run-[^/]+(/.*)?|latest-run|debug[^/]*\.log|settings|\.gitignore", re.DOTALL),
    "evaluation": re.compile(r"metrics_.+\.json|per_image_.+\.csv|confusion_.+\.(csv|png)|evaluation_.+\.html"),
}
"""Its folders, and the paths of the files in each. `evaluation` is where `compare` looks for a run's scores."""
SECTIONS = {"model", "encoder", "head", "data", "split", "input", "augment", "loss", "optim", "train", "predict", "run"}
"""A run writes its whole config, where a person writes some of it."""
AT_WORK = ("train.log", "last.pth", BEST, "log.csv", "training_params.json")
"""Any of these beside its config says that it began; the log is opened at once."""


def holds_a_run(folder: Path) -> bool:
    """Whether a run wrote into this folder. Names alone don't tell: config.yaml and samples/ are many a project's."""
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    whole = isinstance(config, dict) and config.keys() >= SECTIONS
    return whole and any((folder / name).is_file() for name in AT_WORK)


def foreign(folder: Path) -> list[str]:
    """The paths below `folder` that no run writes, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in _contents(folder) if not _is_ours(path, folder))


def remove_run(folder: Path) -> None:
    """Removes what a run writes, and the folder if nothing else lies in it."""
    for path in list(_contents(folder)):
        if _is_ours(path, folder):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something foreign is in it, or it is gone
        for name in INSIDE:
            _remove_empty(folder / name)
        folder.rmdir()


def _contents(folder: Path) -> Iterator[Path]:
    """All that lies in `folder`; of a folder that may be a run's, the files and links in it."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in INSIDE and path.is_dir() and not path.is_symlink():
            for top, folders, names in os.walk(path):
                yield from (Path(top, name) for name in names)
                yield from (Path(top, name) for name in folders if Path(top, name).is_symlink())
        else:
            yield path


def _is_ours(path: Path, folder: Path) -> bool:
    """Whether a run in `folder` writes a file or link of this name."""
    first, _, rest = path.relative_to(folder).as_posix().partition("/")
    if rest:
        return INSIDE[first].fullmatch(rest) is not None or is_draft(path)
    if path.is_symlink():
        return first in FILES | INSIDE.keys() or path.readlink() == Path(BEST)
    return not path.is_dir() and (first in FILES or is_draft(path))


def _remove_empty(folder: Path) -> None:
    """The folder and those in it, as far as they hold nothing."""
    for top, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(top)
