"""Images and masks in folders, a mask for each image, paired by name.

Where they lie is found by the names of folders (`train/images` + `train/masks`, `images/train` + `masks/train`,
`images` + `masks`, `a.jpg` + `a_mask.png`, and their likes), or given as two patterns (folder_layout.py). What the
masks' values mean is found from the masks and from the classes (folder_masks.py), which are given, lie beside the data
(class_table.py), or are numbered as the masks have them. One class: a binary task, all else is background.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from segwright.datasets import class_table, folder_layout
from segwright.datasets.base import Finding, Notes, Source, sound
from segwright.datasets.class_table import Colour
from segwright.datasets.folder_codes import CODES
from segwright.datasets.folder_example import example
from segwright.datasets.folder_layout import Layout
from segwright.datasets.folder_meaning import meaning, table_for
from segwright.datasets.pairs import Pair, PairSplit, holds
from segwright.errors import ConfigError, DataError
from segwright.png import PREDICTED, is_prediction

__all__ = ["Config", "build", "example", "recognises", "scan"]

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class Config:
    root: str
    """Folder that holds all of it."""
    images: str | None = None
    """Pattern of the images, e.g. `leftImg8bit/{split}/*/*_leftImg8bit.png`; none: found."""
    masks: str | None = None
    """Pattern of the masks, whose `*` stand for the same, e.g. `gtFine/{split}/*/*_labelTrainIds.png`; none: found."""
    train: str | None = None
    """Name of the training images' folder where it is none of train, training."""
    valid: str | None = None
    """Name of the validation images' folder where it is none of valid, val, validation, dev."""
    test: str | None = None
    """Name of the test images' folder where it is none of test, testing."""
    kind: Literal["auto", "index", "colours", "binary"] = "auto"
    """What masks hold: class ids (palette images too), colours, or black and white; auto: found."""
    classes: Any = None
    """A list of names, a mapping of names to ids or colours, a list of {name, id, color}, or a file; none: found."""
    ignore: Any = None
    """Further mask values ([0, 7]) or colours ([[0, 0, 0]]) not to be scored; `rest`: all that stand for no class."""

    def __post_init__(self) -> None:
        if (self.images is None) != (self.masks is None):
            given, other = ("images", "masks") if self.images else ("masks", "images")
            raise ConfigError(
                f"data.{given} is a pattern, but data.{other} is none, and one alone pairs nothing. Give both, or none."
            )
        for name in ("images", "masks"):
            pattern = getattr(self, name)
            if pattern is not None and ("*" not in pattern.rpartition("/")[2] or pattern.startswith(("/", "."))):
                raise ConfigError(
                    f"data.{name} is '{pattern}'; it must lie inside data.root and have a * in its last part, which "
                    "stands for what an image and its mask have in common, e.g. '{split}/images/*'."
                )
        try:
            if self.classes is not None and not isinstance(self.classes, str):
                class_table.parse(self.classes)
            self.ignored()
        except ValueError as error:
            raise ConfigError(f"data.classes or data.ignore cannot be used: {error}") from None

    def ignored(self) -> tuple[list[int], list[Colour], bool]:
        """Values, colours, and whether everything that stands for no class."""
        if self.ignore is None or self.ignore == "rest":
            return [], [], self.ignore == "rest"
        items = self.ignore if isinstance(self.ignore, list | tuple) else [self.ignore]
        colours = [class_table.rgb(item) for item in items if not isinstance(item, int)]
        return [class_table.whole(item) for item in items if isinstance(item, int)], colours, False


def recognises(root: Path) -> bool:
    """Whether the folder holds images with masks as this reader finds them by itself."""
    files, known = folder_layout.listing(root), folder_layout.words(dict.fromkeys(SPLITS))
    try:
        return folder_layout.find(files, known, _predicted(root)) is not None
    except DataError:  # more than one way to read it
        return True


def build(config: Config) -> Source:
    """The data set. `DataError`, with everything that is wrong, if anything makes it unusable."""
    return sound(scan(config), config.root)


def scan(config: Config) -> Source:
    """The pairs, and as findings what is wrong with the rest. Looks over masks, but at no image.

    `DataError` where there is nothing to read: no such folder, no pair, no way to tell the classes.
    """
    root, notes = Path(config.root), Notes(CODES)
    if not root.is_dir():
        raise DataError(
            f"the data folder {root} cannot be used: {holds(root)}. Name the folder of the data (data.root)."
        )
    files = folder_layout.listing(root)
    pairs = _pairs(root, files, config, notes)
    masks = [pair.mask for group in pairs.values() for pair in group]
    table = table_for(root, masks, config.classes)
    code, table = meaning(root, masks, config.kind, table, config.ignored(), notes)
    splits = {name: PairSplit(name, tuple(group), code) for name, group in pairs.items()}
    findings = [_with_origin(finding, table.origin) for finding in notes.findings()]
    return Source(table.names, splits, findings, table.colours)


def _with_origin(finding: Finding, origin: str) -> Finding:
    """The same; of what stands for no class, with the file that lists the classes as the place to list it, too."""
    if finding.code not in {"unknown-value", "unknown-colour"} or origin in {"data.classes", "the masks"}:
        return finding
    there = f"in {origin}, from which the others come (or all of them in data.classes)"
    return replace(finding, fix=finding.fix.replace("in data.classes", there))


def _pairs(root: Path, files: list[str], config: Config, notes: Notes) -> dict[str, list[Pair]]:
    """Split -> its pairs by name. `DataError` if there are none at all."""
    known, predicted = folder_layout.words({name: getattr(config, name) for name in SPLITS}), _predicted(root)
    layout = _layout(root, files, config, known, predicted)
    if config.masks is None:
        files = _without_predictions(files, layout, known, predicted, notes)
    masks, doubled = folder_layout.matched(files, layout.masks, known)
    taken = {*masks.values(), *(file for pair in doubled for file in pair)}
    images, more = folder_layout.matched([file for file in files if file not in taken], layout.images, known)
    for two in (*doubled, *more):
        notes.see("same-name", two)
    pairs = folder_layout.pairs(images, masks)
    if not pairs:
        raise DataError(
            f"no image in {root} has a mask: data.images finds {len(images)} images{_first(images)}, data.masks "
            f"{len(masks)} masks{_first(masks)}, but what their * stand for is never the same. Mend the patterns."
        )
    notes.see("layout", "", f"images {layout.images}, masks {layout.masks}")
    strays = {file for key, file in images.items() if key not in pairs and file.endswith(PREDICTED) and predicted(file)}
    images = {key: file for key, file in images.items() if file not in strays}
    _unpaired(images, masks, {key[0] for key in pairs}, pairs, notes)
    _outside(files, {*images.values(), *masks.values(), *taken, *(file for two in more for file in two)}, notes)
    names = sorted({key[0] for key in images}, key=lambda name: SPLITS.index(name or "train"))
    grouped = {name or "train": _of_split(root, pairs, name) for name in names}
    for name in SPLITS if "{split}" in layout.images else ():
        if name not in grouped:
            notes.see("missing-split", name)
    for name in [name for name, group in grouped.items() if not group]:
        del grouped[name]
        if name == "test":
            notes.see("test-without-masks", "")
        else:
            notes.see("empty-split", name)
    return grouped


def _of_split(root: Path, pairs: folder_layout.Pairs, split: str) -> list[Pair]:
    return [Pair(root / image, root / mask) for (name, _), (image, mask) in sorted(pairs.items()) if name == split]


def _predicted(root: Path) -> Callable[[str], bool]:
    """Whether `segwright infer` wrote a file, by its relative path; each header is read once."""
    return cache(lambda file: file.lower().endswith(".png") and is_prediction(root / file))


def _without_predictions(
    files: list[str], layout: Layout, known: dict[str, str], predicted: Callable[[str], bool], notes: Notes
) -> list[str]:
    """All files but those among the masks that a model made."""
    masks, doubled = folder_layout.matched(files, layout.masks, known)
    made = {file for file in (*masks.values(), *(one for two in doubled for one in two)) if predicted(file)}
    for file in sorted(made):
        notes.see("predicted-mask", file)
    return [file for file in files if file not in made]


def _layout(
    root: Path, files: list[str], config: Config, known: dict[str, str], predicted: Callable[[str], bool]
) -> Layout:
    if config.images is not None and config.masks is not None:
        return Layout(config.images, config.masks)
    try:
        layout = folder_layout.find(files, known, predicted)
    except DataError as error:
        raise DataError(f"in the data folder {root} {error}") from None
    if layout is None:
        made = sum(map(predicted, files))
        folders = Counter(file.rpartition("/")[0] or "." for file in files).most_common(6)
        held = "; ".join(f"{count} images in {folder}/" for folder, count in folders) or f"no image ({holds(root)})"
        raise DataError(
            f"{root} holds no images with masks that could be told by the names of folders; there are: {held}"
            f"{f' ({made} of them predictions of segwright infer, which are no truth)' if made else ''}. Put them "
            "into images/ and masks/ under the same names, or say where they are, e.g. "
            "data.images='{split}/photos/*' data.masks='{split}/truth/*_mask.png'."
        )
    return layout


def _unpaired(
    images: folder_layout.Found,
    masks: folder_layout.Found,
    with_masks: set[str],
    pairs: folder_layout.Pairs,
    notes: Notes,
) -> None:
    used = {mask for _, mask in pairs.values()}
    for (split, key), file in sorted(images.items()):
        if (split, key) not in pairs and (split != "test" or split in with_masks):
            notes.see("missing-mask", file)
    for file in sorted(set(masks.values()) - used):
        notes.see("missing-image", file)


def _outside(files: list[str], read: set[str], notes: Notes) -> None:
    for file in files:
        if file not in read:
            notes.see("not-in-layout", file)


def _first(found: folder_layout.Found) -> str:
    return f" ({next(iter(found.values()))}, ...)" if found else ""
