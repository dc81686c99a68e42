"""What a split's pixels are, as a hash: the content of its files, not their names and dates, which lie."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
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
CENSUS = 2
"""Version of a census; a run that was begun with an earlier one goes on."""
WORDS = {1: 2, 2: 3}
"""Version -> words about an image: the first had no hash of the images' ends."""
END_BYTES = 1 << 16


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
    """Image -> three words: its size in bytes, a hash of its annotation file, and one of its own first and last
    `END_BYTES`. It is what a run notes down, to see later whether the data are still the same.

    Images are not read whole, for there may be thousands on a slow disk: in one without compression, whose size says
    nothing, a change in the middle alone is not seen. Names are relative to the data's root where they lie in it.

    Raises:
        DataError: a file that cannot be read.
    """
    annotations = [split.annotation(index) for index in range(len(split))]
    images = [split.path(index) for index in range(len(split))]
    try:
        with ThreadPoolExecutor(READERS) as pool:
            whole = _digests(annotations, _file_hash, pool)
            ends = _digests(images, _ends_hash, pool)
        sizes = [path.stat().st_size for path in images]
    except OSError as error:
        raise DataError(f"a file of the split {split.name} cannot be read: {error}. Put it back.") from None
    rows = zip(images, sizes, annotations, strict=True)
    return {_relative(path, root): f"{size} {whole[annotation]} {ends[path]}" for path, size, annotation in rows}


def _digests(paths: Iterable[Path], of: Callable[[Path], bytes], pool: Executor) -> dict[Path, str]:
    """Twelve hexadecimal digits of each file, read once."""
    files = list(dict.fromkeys(paths))
    return dict(zip(files, (found.hex()[:12] for found in pool.map(of, files)), strict=True))


def digest(files: Mapping[str, str], version: int = CENSUS) -> str:
    """A hash of a census, the order of the images included: it decides the order in training. `version`: as a census
    of that version would have it."""
    return _short(f"{name} {cut(fact, version)}\n".encode() for name, fact in files.items())


def cut(fact: str, version: int) -> str:
    """The words that a census of that version has of an image."""
    return " ".join(fact.split(" ")[: WORDS[version]])


def version_of(fact: str) -> int:
    """The version of a census, by what it says of an image."""
    return {words: version for version, words in WORDS.items()}.get(fact.count(" ") + 1, CENSUS)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _file_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()  # processors have instructions for this one


def _ends_hash(path: Path) -> bytes:
    """Of the first and the last bytes; of a small file, of all."""
    with path.open("rb") as file:
        first = file.read(END_BYTES)
        file.seek(max(END_BYTES, file.seek(0, os.SEEK_END) - END_BYTES))
        return hashlib.sha256(first + file.read()).digest()


def _short(parts: Iterable[bytes]) -> str:
    total = hashlib.blake2b(digest_size=10)
    for part in parts:
        total.update(part)
    return total.hexdigest()
