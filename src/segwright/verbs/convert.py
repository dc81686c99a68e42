"""`segwright convert`: a data set in another layout, its masks unchanged."""

import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from segwright.datasets import coco_write, folder_write, nnunet_write
from segwright.datasets.base import Source
from segwright.datasets.detect import detect
from segwright.datasets.writing import Advance
from segwright.errors import ConfigError, SegwrightError, nearest
from segwright.hierarchy import Config as TreeConfig
from segwright.progress import bar
from segwright.verbs.settings import gather
from segwright.verbs.source import read_source

log = logging.getLogger("segwright")

NNUNET_NAME = re.compile(r"Dataset(\d{3})_(.+)")


@dataclass(frozen=True)
class Converted:
    """A written data set."""

    folder: Path
    images: int
    data: dict[str, Any]
    """The config's section `data` with which it is read."""

    def yaml(self) -> str:
        """That section as YAML."""
        return yaml.safe_dump({"data": self.data}, sort_keys=False, allow_unicode=True)


def convert(
    root: str | Path,
    output: str | Path,
    to: str,
    *,
    reader: str | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Converted:
    """Writes the data set in `root` as `to` into the new folder `output`, whole or not at all.

    Image files are copied (nnU-Net: written as PNG), masks decoded and written without loss. Classes are merged,
    renamed and dropped as the config says; the splits are those of the data, or made with split.val_fraction.

    Args:
        to: coco, folder or nnunet (`output` is then called DatasetNNN_Name).
        reader: what `root` is; none: as the config says, or as it looks.

    Raises:
        ConfigError: `output` exists, or for nnunet another data set of its number; an unknown `to` or `reader`.
        DataError: the data cannot be used.
    """
    output = Path(output)
    if to not in WRITERS:
        raise ConfigError(f"--to is '{to}'; data are written as: {', '.join(WRITERS)}.{nearest(to, WRITERS)}")
    if output.exists():
        raise ConfigError(f"{output} exists, and nothing is overwritten. Choose another --output, or take it away.")
    if to == "nnunet":
        stop_on_same_number(output)
    if reader is None and config is None and not any(word.startswith("data.name=") for word in overrides):
        reader = detect(root)
        log.info("%s is read as %s", root, reader)
    flags = {"data.root": str(root), "data.name": reader}
    settings = gather(config, flags, overrides, base={"split": {"val_fraction": 0}})
    source = read_source(replace(settings, hierarchy=TreeConfig()))  # a coarse label is a class like any other here
    for finding in source.findings:
        if finding.level == "warning":
            log.warning("%s %s", finding.message, finding.fix)
    images = sum(len(split) for split in source.splits.values())
    options = _write_whole(source, output, WRITERS[to], images)
    return Converted(output, images, {"name": to, "root": str(output), **options})


def stop_on_same_number(output: Path) -> None:
    """Raises `ConfigError` where a data set of nnU-Net beside `output` has its number."""
    match = NNUNET_NAME.fullmatch(output.name)
    same = sorted(path.name for path in output.parent.glob(f"Dataset{match[1]}_*") if path.is_dir()) if match else []
    if same:
        raise ConfigError(
            f"{output.parent} holds {same[0]} already, and nnU-Net finds a data set by its number and refuses two of "
            f"one. Give {output.name} a free number, or take the other away."
        )


Writer = Callable[[Source, Path, Advance], dict[str, Any]]


def _write_whole(source: Source, output: Path, write: Writer, images: int) -> dict[str, Any]:
    """Into a folder beside `output` that is renamed when all of it is there."""
    beside = output.parent / f".{output.name}.{os.getpid()}.tmp"
    try:
        beside.mkdir(parents=True)
        with bar("convert", images) as progress:
            options = write(source, beside / output.name, progress.advance)
        os.replace(beside / output.name, output)
    except OSError as error:
        raise SegwrightError(
            f"{output} could not be written ({error}); nothing is left of it. Free some space, or choose a folder that "
            "can be written."
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return options


def _nnunet(source: Source, folder: Path, advance: Advance) -> dict[str, Any]:
    match = NNUNET_NAME.fullmatch(folder.name)
    if match is None:
        raise ConfigError(
            f"--output ends in '{folder.name}', and nnU-Net finds a data set by its folder's name alone. Call it "
            f"DatasetNNN_Name, e.g. Dataset501_{re.sub('[^A-Za-z0-9]', '', folder.name) or 'Mine'}."
        )
    nnunet_write.write(source, folder.parent, match[2], int(match[1]), advance)
    return {"fold": 0} if "valid" in source.splits else {}


WRITERS: dict[str, Writer] = {"folder": folder_write.write, "coco": coco_write.write, "nnunet": _nnunet}
