"""`segwright submission`: the zip that the SPARK challenge takes (2024, stream 1), checked before it stands.

One `<image>_layer.npz` for each test image, at the top of the archive, each with one array `data`, (H, W, 3) uint8,
that holds the classes' exact colours. SPARK's own: 4000 images, test_00000, ..., of 1024 x 1024 pixels; black, red
(body), blue (panels). https://cvi2.uni.lu/spark2024/
"""

import io
import logging
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from segwright.datasets.spark import TEST
from segwright.errors import DataError, WeightsError
from segwright.files import write_atomic
from segwright.images import IMAGE_SUFFIXES, image_size, read_image
from segwright.progress import bar
from segwright.verbs.infer import network_logits
from segwright.verbs.loading import Loaded, load_model

log = logging.getLogger("segwright")

SHOWN = 5
ARRAY = "data"


@dataclass(frozen=True)
class Rules:
    """What a submission must be, beside its form; the challenge's by default. None: anything."""

    images: int | None = 4000
    """How many."""
    size: tuple[int, int] | None = (1024, 1024)
    """(height, width) in pixels."""
    name: str | None = r"test_\d{5}"
    """Of an image, without `_img`: a regular expression."""
    colours: tuple[tuple[int, int, int], ...] | None = ((0, 0, 0), (255, 0, 0), (0, 0, 255))
    """RGB of the classes."""


OWN_DATA = Rules(None, None, None, None)
"""For images that are not the challenge's."""


@dataclass(frozen=True)
class Submission:
    """A submission that was written, read back and found right."""

    path: Path
    images: int


@dataclass(frozen=True)
class Entry:
    """What was put into the archive under a name."""

    shape: tuple[int, ...]
    digest: int


def submission(
    weights: str | Path,
    inputs: str | Path | None = None,
    output: str | Path = "submission.zip",
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    rules: Rules | None = None,
) -> Submission:
    """Predicts the test images and writes the archive, whole or not at all: it is read back under another name first.

    inputs: their folder; none: `stream-1-test` beside the training images.

    Raises:
        DataError: images or a result that break a rule, with the rule.
        WeightsError: the weights' data set gave its classes no colours.
    """
    rules = rules or Rules()
    loaded = load_model(weights, config, flags, overrides)
    colours = palette(loaded, weights, rules)
    folder = Path(inputs) if inputs is not None else test_folder(loaded)
    files = test_images(folder, rules)

    def write(file: BinaryIO) -> None:
        try:
            entries = write_archive(file, loaded, files, colours)
            file.flush()
            check(Path(file.name), entries, colours, rules)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise

    write_atomic(output, write)
    log.info("written, read back and right: %s, %d images", output, len(files))
    return Submission(Path(output), len(files))


def palette(loaded: Loaded, weights: str | Path, rules: Rules) -> np.ndarray:
    """(K, 3) uint8 colours of the classes. Raises `WeightsError`."""
    if loaded.colours is None or len(loaded.classes) < 2:
        raise WeightsError(
            f"{weights} knows no colours of its classes ({', '.join(loaded.classes)}), and a submission is made of "
            "them. Train on data in SPARK's layout, data.name=spark."
        )
    own = {tuple(colour) for colour in loaded.colours}
    if rules.colours is not None and own != set(rules.colours):
        raise WeightsError(
            f"{weights} has classes in the colours {sorted(own)}, but the challenge's are {sorted(rules.colours)}, so "
            "its masks would be refused there. Train on the challenge's classes; for data of your own give --own-data."
        )
    return np.array(loaded.colours, np.uint8)


def test_folder(loaded: Loaded) -> Path:
    """`stream-1-test` in the data's folder or beside it. Raises `DataError`."""
    root = Path(loaded.settings.data.config.root)
    places = [root / TEST, root / "data" / TEST, root.parent / TEST]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise DataError(
            f"there is no folder {TEST} in {root} or beside it, so there is nothing to predict. Name the folder of "
            "the test images with --input."
        )
    return found


def test_images(folder: Path, rules: Rules) -> dict[str, Path]:
    """Name without `_img` -> file, in the names' order. Raises `DataError` for a set that breaks the rules."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder, so it holds no test images. Name one with --input.")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    problems = []
    files: dict[str, Path] = {}
    for path in paths:
        name = path.stem.removesuffix("_img")
        if name in files:
            problems.append(f"{path} and {files[name]} would both be {name}")
        files.setdefault(name, path)
    other = [n for n in files if rules.name is not None and not re.fullmatch(rules.name, n)]
    problems += [f"{len(other)} images are not called test_ and five digits, {_some(other)}"] if other else []
    if rules.images is not None and len(files) != rules.images:
        problems.append(f"there are {len(files)} images, not {rules.images}")
    problems += _wrong_sizes(files, rules)
    _raise(problems or ([] if files else ["there is no image"]), f"the test images in {folder}")
    return dict(sorted(files.items()))


def _wrong_sizes(files: Mapping[str, Path], rules: Rules) -> list[str]:
    if rules.size is None:
        return []
    sizes = {name: image_size(path) for name, path in files.items()}
    other = [f"{name} ({size[1]} x {size[0]})" for name, size in sizes.items() if size != rules.size]
    return [f"{len(other)} images are not {rules.size[1]} x {rules.size[0]} pixels, {_some(other)}"] if other else []


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _raise(problems: Sequence[str], what: str) -> None:
    if problems:
        raise DataError(
            f"{what} break the challenge's rules, so nothing was written:"
            + "".join(f"\n  - {problem}" for problem in problems)
            + "\nMend that; for images that are not the challenge's, give --own-data."
        )


def write_archive(file: BinaryIO, loaded: Loaded, files: Mapping[str, Path], colours: np.ndarray) -> dict[str, Entry]:
    """Predicts and packs each image. Gives what the archive must hold."""
    entries = {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive, bar("submission", len(files)) as progress:
        for name, path in files.items():
            image = read_image(path)
            layer = colours[loaded.predictor.ids(network_logits(loaded, image), (image.shape[0], image.shape[1]))]
            packed = io.BytesIO()
            np.savez_compressed(packed, **{ARRAY: layer})
            entry = zipfile.ZipInfo(f"{name}_layer.npz")  # without the time, so that equal masks make equal files
            archive.writestr(entry, packed.getvalue())
            entries[entry.filename] = Entry(layer.shape, zlib.crc32(layer.tobytes()))
            progress.advance()
    return entries


def check(path: Path, entries: Mapping[str, Entry], colours: np.ndarray, rules: Rules) -> None:
    """Reads an archive back as the challenge would. Raises `DataError` for whatever breaks a rule."""
    try:
        with zipfile.ZipFile(path) as archive, bar("check", len(entries)) as progress:
            names = archive.namelist()
            problems = [] if sorted(names) == sorted(entries) else ["the archive's names are not those of the images"]
            for name in names:
                problems += [f"{name}: {flaw}" for flaw in flaws(archive.read(name), entries.get(name), colours, rules)]
                progress.advance()
    except (OSError, zipfile.BadZipFile) as error:
        problems = [f"the archive cannot be read back: {error}"]
    _raise(problems[:SHOWN], "the masks that were written")


def flaws(packed: bytes, entry: Entry | None, colours: np.ndarray, rules: Rules) -> list[str]:
    """What is wrong with one file of an archive."""
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as held:
            keys, layer = list(held), held[ARRAY]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        return [f"it cannot be read as an array '{ARRAY}': {error}"]
    found = [] if keys == [ARRAY] else [f"it holds {', '.join(keys)}, not '{ARRAY}' alone"]
    if layer.dtype != np.uint8 or layer.ndim != 3 or layer.shape[2] != 3:
        return [*found, f"it is {layer.dtype} of shape {layer.shape}, not uint8 (height, width, 3)"]
    if rules.size is not None and layer.shape[:2] != rules.size:
        found.append(f"it is {layer.shape[1]} x {layer.shape[0]} pixels, not {rules.size[1]} x {rules.size[0]}")
    if not _only(layer, colours):
        found.append("it has a colour that is no class's")
    if entry is not None and (layer.shape != entry.shape or zlib.crc32(layer.tobytes()) != entry.digest):
        found.append("it is not what was predicted")
    return found


def _only(layer: np.ndarray, colours: np.ndarray) -> bool:
    """Whether every pixel has one of the colours."""
    codes = layer.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    wanted = colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    return bool(np.logical_or.reduce([codes == code for code in wanted]).all())
