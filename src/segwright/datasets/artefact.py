"""ARTeFACT: damage on artworks and other media, 15 kinds of it and clean; what lies around the object is ignored.

Ivanova et al. 2025, "ARTeFACT: Benchmarking Segmentation Models on Diverse Analogue Media Damage",
https://arxiv.org/abs/2412.04580; data: https://huggingface.co/datasets/danielaivanova/damaged-media (AFL-3.0)

    image/<id>.png    annotation/<id>.png    [annotation_rgb/<id>.png]    [metadata.csv: id, material, content, ...]

or the parquet files in which it is published; those are unpacked once (`artefact_parquet`). It has one split only, so
all of it is `train` here. The images are large (up to 244 million pixels), and `images.MAX_PIXELS` lets them in.
"""

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segwright.datasets import artefact_parquet, pairs
from segwright.datasets.artefact_example import example
from segwright.datasets.base import Level, Notes, Source, sound
from segwright.datasets.class_table import rgb
from segwright.datasets.mask_files import read_ids
from segwright.datasets.pairs import Pair, PairSplit, by_stem, holds, paired
from segwright.errors import ConfigError, DataError

__all__ = ["CLASSES", "Config", "build", "example", "recognises", "scan"]

CLASSES = {
    "Clean": "#000000",
    "Material loss": "#1CE6FF",
    "Peel": "#FF34FF",
    "Dust": "#FF4A46",
    "Scratch": "#008941",
    "Hair": "#006FA6",
    "Dirt": "#A30059",
    "Fold": "#FFA500",
    "Writing": "#7A4900",
    "Cracks": "#0000A6",
    "Staining": "#63FFAC",
    "Stamp": "#004D43",
    "Sticker": "#8FB0FF",
    "Puncture": "#997D87",
    "Burn marks": "#809693",
    "Lightleak": "#F6FF1B",
}
"""Name -> colour in `annotation_rgb`, in id order from 0. Id 255, `Background` (#5A0007), is ignored."""

GROUPS = ("material", "content")
CODES: dict[str, tuple[Level, str, str]] = pairs.CODES | {
    "no-metadata": (
        "info",
        "no metadata.csv with the columns wanted, so results cannot be told apart by them",
        "",
    ),
    "not-in-metadata": ("warning", "images that metadata.csv does not list, so they belong to no group", "List them."),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    root: str
    """Folder that holds image/ and annotation/, or the parquet files, or data/ with them."""
    unpacked: str = "unpacked"
    """Folder that parquet files are unpacked into once, inside root if relative; as large as they are."""
    group_by: str = "material"
    """Column of metadata.csv that results are told apart by: material or content."""

    def __post_init__(self) -> None:
        if self.group_by not in GROUPS:
            raise ConfigError(f"data.group_by is '{self.group_by}'; metadata.csv has: {', '.join(GROUPS)}.")


def recognises(root: Path) -> bool:
    """Whether a folder looks like this layout: image/ and annotation/ alone could be anybody's."""
    root = Path(root)
    own = (root / "annotation_rgb").is_dir() or (root / "metadata.csv").is_file()
    return (_is_unpacked(root) and own) or bool(artefact_parquet.files(root))


def build(config: Config) -> Source:
    """The data set. `DataError`, with everything that is wrong, if anything makes it unusable."""
    return sound(scan(config), config.root)


def scan(config: Config) -> Source:
    """The pairs that are there, and as findings what is wrong with the rest.

    Raises:
        DataError: there is nothing to read, or a parquet file is broken.
        MissingPackageError: parquet files, but no pyarrow.
    """
    root = _unpacked(config)
    notes = Notes(CODES)
    images, masks = (by_stem(root / name, root, notes) for name in ("image", "annotation"))
    groups = _groups(root, config.group_by, notes)
    found = [
        Pair(pair.image, pair.mask, groups.get(pair.image.stem, "")) for pair in paired(images, masks, root, notes)
    ]
    for pair in found if groups else ():
        if not pair.group:
            notes.see("not-in-metadata", pair.image.name)
    if not found:
        notes.see("empty-split", "image")
    splits = {"train": PairSplit("train", tuple(found), partial(read_ids, classes=len(CLASSES)))} if found else {}
    return Source(tuple(CLASSES), splits, notes.findings(), [rgb(text) for text in CLASSES.values()])


def _is_unpacked(root: Path) -> bool:
    return (root / "image").is_dir() and (root / "annotation").is_dir()


def _unpacked(config: Config) -> Path:
    """The folder with image/ and annotation/; parquet files are unpacked if that was not done yet."""
    root = Path(config.root)
    if _is_unpacked(root):
        return root
    target = root / config.unpacked
    files = artefact_parquet.files(root)
    if _is_unpacked(target):
        return target
    if not files:
        raise DataError(
            f"the data folder {root} has neither image/ and annotation/ nor parquet files; {holds(root)}. Name the "
            "folder that holds them (data.root)."
        )
    artefact_parquet.unpack(files, target)
    return target


def _groups(root: Path, column: str, notes: Notes) -> dict[str, str]:
    """Id -> material or content."""
    path = root / "metadata.csv"
    if not path.is_file():
        notes.see("no-metadata", "", holds(root))
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        notes.see("no-metadata", path.name, str(error))
        return {}
    if not rows or not {"id", column} <= rows[0].keys():
        notes.see("no-metadata", path.name, f"'id' and '{column}' are wanted")
        return {}
    return {Path(row["id"] or "").stem: (row[column] or "").strip() for row in rows}
