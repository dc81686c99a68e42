"""SPARK 2024, stream 1: spacecraft, their bodies and their solar panels.

    images/<craft>/{train,val}/*_img.jpg    mask/<craft>/{train,val}/*_layer.jpg    train.csv  val.csv  stream-1-test/

The masks are colours stored as JPEG, so every pixel gets the class whose colour is nearest. `PairSplit.group(index)` is
the craft, for scores by craft. SPARK: https://cvi2.uni.lu/spark2024/
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from segwright.datasets import spark_table
from segwright.datasets.base import Notes, Source, sound
from segwright.datasets.class_table import MOST_CLASSES, rgb
from segwright.datasets.mask_files import read_colours
from segwright.datasets.pairs import Pair, PairSplit, by_stem, holds, paired, shown
from segwright.datasets.spark_codes import CODES
from segwright.datasets.spark_example import example
from segwright.errors import ConfigError, DataError
from segwright.images import IMAGE_SUFFIXES

__all__ = ["CRAFTS", "Config", "build", "example", "recognises", "scan"]

CRAFTS = (
    "VenusExpress",
    "Cheops",
    "LisaPathfinder",
    "ObservationSat1",
    "Proba2",
    "Proba3",
    "Proba3ocs",
    "Smart1",
    "Soho",
    "XMM Newton",
)
"""Names of the folders in the order of the challenge's ids, 0 to 9."""
SPLITS = {"train": "train", "valid": "val"}
TEST = "stream-1-test"


@dataclass(frozen=True, kw_only=True)
class Config:
    root: str
    """Folder that holds images/ and mask/, or data/ with both in it."""
    classes: tuple[str, ...] = ("background", "spacecraft body", "solar panels")
    """Names in id order."""
    colours: tuple[str, ...] = ("#000000", "#FF0000", "#0000FF")
    """Each class's colour in the masks, #RRGGBB."""

    def __post_init__(self) -> None:
        if not len(self.classes) == len(self.colours) >= 2:
            raise ConfigError(
                f"data.classes has {len(self.classes)} names and data.colours {len(self.colours)} colours; each class "
                "needs one of both, and the background is a class."
            )
        if len(self.classes) > MOST_CLASSES:
            raise ConfigError(
                f"data.classes has {len(self.classes)} names; masks of 8 bits can tell {MOST_CLASSES} apart. "
                "Merge some."
            )
        try:
            self.palette()
        except ValueError as error:
            raise ConfigError(f"data.colours: {error} Red is '#FF0000'.") from None

    def palette(self) -> np.ndarray:
        """(K, 3) uint8 RGB of the classes."""
        return np.array([rgb(text) for text in self.colours], np.uint8)


def recognises(root: Path) -> bool:
    """Whether a folder looks like this layout: images/ and mask/ alone could be anybody's."""
    base = _base(Path(root))
    return base is not None and any(
        path.is_dir() for folder in SPLITS.values() for path in (base / "images").glob(f"*/{folder}")
    )


def build(config: Config) -> Source:
    """The data set. `DataError`, with everything that is wrong, if anything makes it unusable."""
    return sound(scan(config), config.root)


def scan(config: Config) -> Source:
    """The pairs that are there, and as findings what is wrong with the rest.

    A few masks of each split are looked at, to say how far their colours are off and whether the tables' boxes fit.
    `DataError` only where there is nothing to read.
    """
    root, base = Path(config.root), _base(Path(config.root))
    if base is None:
        raise DataError(
            f"the data folder {root} has neither images/ and mask/ nor data/ with both; {holds(root)}. Name the folder "
            "that holds images/<craft>/train and mask/<craft>/train (data.root)."
        )
    notes = Notes(CODES)
    palette = config.palette()
    splits = {}
    for name, folder in SPLITS.items():
        pairs = _pairs(base, folder, notes)
        if not pairs:
            notes.see("empty-split" if name == "train" else "missing-split", folder)
            continue
        splits[name] = split = PairSplit(name, tuple(pairs), partial(_read, palette=palette))
        looked = spark_table.look(split, palette, base, notes)
        table = _beside(base, f"{folder}.csv")
        if table is not None:
            spark_table.compare(table, split, looked, base, notes)
    _test_images(base, notes)
    return Source(config.classes, splits, notes.findings(), [rgb(text) for text in config.colours])


def _base(root: Path) -> Path | None:
    """The folder that holds images/ and mask/."""
    places = (root, root / "data")
    return next((place for place in places if (place / "images").is_dir() and (place / "mask").is_dir()), None)


def _beside(base: Path, name: str) -> Path | None:
    """A file or folder beside images/, or one floor above."""
    return next((place / name for place in (base, base.parent) if (place / name).exists()), None)


def _pairs(base: Path, folder: str, notes: Notes) -> list[Pair]:
    """One split's samples, by craft in id order (unknown ones after the known), then by name."""
    crafts = {path.name for kind in ("images", "mask") for path in (base / kind).iterdir() if path.is_dir()}
    if crafts & set(CRAFTS) and folder == SPLITS["train"]:
        for missing in [craft for craft in CRAFTS if craft not in crafts]:
            notes.see("missing-craft", "", missing)
    pairs = []
    for craft in sorted(crafts, key=lambda name: (CRAFTS.index(name) if name in CRAFTS else len(CRAFTS), name)):
        images = by_stem(base / "images" / craft / folder, base, notes, "_img")
        masks = by_stem(base / "mask" / craft / folder, base, notes, "_layer")
        pairs += paired(images, masks, base, notes, craft)
    return pairs


def _test_images(base: Path, notes: Notes) -> None:
    folder = _beside(base, TEST)
    if folder is not None:
        count = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*"))
        notes.see("test-without-masks", shown(folder, base), f"{count} images")


def _read(path: Path, palette: np.ndarray) -> np.ndarray:
    return read_colours(path, palette)[0]
