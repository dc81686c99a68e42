"""What a split's pixels are, as a hash: the content of its files, not their names and dates, which lie."""

import hashlib
import json
import pickle
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from segwright import __version__
from segwright.datasets.base import Split
from segwright.errors import DataError
from segwright.transforms import Size

FORMAT = 2
"""Of the block; another one makes other names."""
READERS = 8
"""Threads that wait for files."""


def content_hash(split: Split, threads: int) -> str:
    """A hash of every image file and annotation file in the split's order, each file read once, several at a time."""
    order = [path for index in range(len(split)) for path in (split.path(index), split.annotation(index))]
    files = list(dict.fromkeys(order))
    with ThreadPoolExecutor(threads) as pool:
        digests = dict(zip(files, pool.map(_file_hash, files), strict=True))
    return _short(digests[path] for path in order)


def place_hash(split: Split, size: Size | None, own_masks: bool, identity: Any) -> str:
    """A hash of everything else: which files, at which size, read how. `identity`: plain values, as JSON holds them.

    The split itself, as its pickle, says what a mask's values or colours become: tables that lie beside the data, and
    what `classes` makes of them.
    """
    files = [str(split.path(index).absolute()) for index in range(len(split))]
    facts = json.dumps([FORMAT, __version__, size, own_masks, identity, files], sort_keys=True)
    return _short([facts.encode(), pickle.dumps(split)])


def census(split: Split, root: Path) -> dict[str, str]:
    """Image -> its size in bytes and a hash of its annotation file: what a run notes down, to see later whether the
    data are still the same. Images are not read. Names are relative to the data's root where they lie in it.

    Raises:
        DataError: a file that cannot be read.
    """
    annotations = [split.annotation(index) for index in range(len(split))]
    files = list(dict.fromkeys(annotations))
    images = [split.path(index) for index in range(len(split))]
    try:
        with ThreadPoolExecutor(READERS) as pool:
            digests = dict(zip(files, (found.hex()[:12] for found in pool.map(_file_hash, files)), strict=True))
        sizes = [path.stat().st_size for path in images]
    except OSError as error:
        raise DataError(f"a file of the split {split.name} cannot be read: {error}. Put it back.") from None
    rows = zip(images, sizes, annotations, strict=True)
    return {_relative(path, root): f"{size} {digests[annotation]}" for path, size, annotation in rows}


def digest(files: Mapping[str, str]) -> str:
    """A hash of a census, the order of the images included: it decides the order in training."""
    return _short(f"{name} {fact}\n".encode() for name, fact in files.items())


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _file_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()  # processors have instructions for this one


def _short(parts: Iterable[bytes]) -> str:
    total = hashlib.blake2b(digest_size=10)
    for part in parts:
        total.update(part)
    return total.hexdigest()
