"""A block of uint8 on the disk that holds the images and masks of a split: where each lies, writing it, room for it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import numpy as np

from segwright.files import remove_leftovers, write_atomic
from segwright.transforms import Size

CHUNK = 1 << 24
"""Bytes read at a time to bring a block into memory."""
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Layout:
    """Where each image and each mask lies: rows of (offset, height, width), (N, 3) int64 each."""

    images: np.ndarray
    masks: np.ndarray
    nbytes: int

    @classmethod
    def of(cls, image_sizes: list[Size], mask_sizes: list[Size]) -> "Layout":
        """All images one after the other, then all masks."""
        areas = [3 * h * w for h, w in image_sizes] + [h * w for h, w in mask_sizes]
        offsets = np.cumsum([0, *areas])
        rows = np.column_stack([offsets[:-1], np.array(image_sizes + mask_sizes).reshape(-1, 2)]).astype(np.int64)
        return cls(rows[: len(image_sizes)], rows[len(image_sizes) :], int(offsets[-1]))

    def image(self, block: np.ndarray, index: int) -> np.ndarray:
        """(h, w, 3): a view of the block, no copy."""
        offset, height, width = self.images[index].tolist()
        return block[offset : offset + 3 * height * width].reshape(height, width, 3)

    def mask(self, block: np.ndarray, index: int) -> np.ndarray:
        """(h, w): a view of the block, no copy."""
        offset, height, width = self.masks[index].tolist()
        return block[offset : offset + height * width].reshape(height, width)


def write_block(path: Path, nbytes: int, fill: Callable[[np.ndarray], None]) -> None:
    """Calls `fill` with the block, (nbytes,) uint8, which becomes `path` whole or not at all, also on a SIGTERM.

    Raises:
        SegwrightError: the folder cannot be written, or has no room.
    """

    def write(file: BinaryIO) -> None:
        with _removed_by_sigterm(Path(file.name)):
            _reserve(file, nbytes)
            block = np.memmap(file.name, np.uint8, "r+", shape=(nbytes,))
            fill(block)
            block.flush()

    write_atomic(path, write)


@contextmanager
def _removed_by_sigterm(draft: Path) -> Iterator[None]:
    """Within it SIGTERM takes the file away and ends the process as ever; not where it was given another meaning."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        draft.unlink(missing_ok=True)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _reserve(file: BinaryIO, nbytes: int) -> None:
    """Takes the room now: a disk that fills up later would end the process without a word, by a bus error."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, nbytes)
    else:
        file.truncate(nbytes)


def open_block(path: Path) -> np.ndarray:
    """The block, (nbytes,) uint8. Its pages are shared with everybody who has it open; what is written is not."""
    return np.asarray(np.memmap(path, np.uint8, "c"))


def warm(path: Path) -> None:
    """Brings a block into memory, so that the first pass is as fast as the second."""
    with path.open("rb", buffering=0) as file:
        while file.read(CHUNK):
            pass


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time, so that of a machine's ranks one decodes and the others wait for it.

    Nobody else writes meanwhile, so the drafts that lie there are of killed processes, and are removed. Where the file
    system has no locks they all decode, and the last one's equal block stands.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            remove_leftovers(folder)
        except (ImportError, OSError):
            pass
        yield


def available_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/proc/self/cgroup")) -> int | None:
    """Memory that is free or can be freed, also by the limit of a container or a Slurm job; None where unknown."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        machine = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    return min([machine, *_cgroup_room(cgroup)])


def _cgroup_room(cgroup: Path) -> Iterator[int]:
    """What each control group (version 2) that this process lies in has left; its file pages can be freed."""
    try:
        own = cgroup.read_text().strip().rsplit("::", 1)[-1].lstrip("/")
    except OSError:
        return
    for folder in (CGROUPS / own, *(CGROUPS / own).parents):
        if not folder.is_relative_to(CGROUPS):
            return
        try:
            limit = int((folder / "memory.max").read_text())  # "max" where there is none
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield limit - int((folder / "memory.current").read_text()) + int(stat["file"])
        except (OSError, KeyError, ValueError):
            continue
