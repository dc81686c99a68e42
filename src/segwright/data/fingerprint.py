"""What a split's pixels are, as a hash: the content of its files, not their names and dates, which lie."""

import hashlib
import json
import pickle
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from segwright import __version__
from segwright.datasets.base import Split
from segwright.transforms import Size

FORMAT = 2
"""Of the block; another one makes other names."""


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


def _file_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()  # processors have instructions for this one


def _short(parts: Iterable[bytes]) -> str:
    total = hashlib.blake2b(digest_size=10)
    for part in parts:
        total.update(part)
    return total.hexdigest()
