"""Writing files whole or not at all. Floor 1.

A file is written under a temporary name in its own folder, synced to the disk, and renamed; what stood there before
stands until the new one is whole.
"""

import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from segwright.errors import SegwrightError

DRAFT = re.compile(r"\..+\.\d+\.tmp")
NAME_BYTES = 255
"""The longest name of a file that the usual file systems take."""


def write_atomic(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` with a file that becomes `path` only when all of it is on the disk. Makes the folder.

    Raises:
        SegwrightError: the folder cannot be written or the disk is full; what stood at `path` still stands, as it does
            after any other error of `write`, or a Ctrl-C.
    """
    path = Path(path)
    temporary = draft_of(path)
    try:
        with _told(path, file=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    except BaseException:
        _forget(temporary)
        raise


def draft_of(path: Path) -> Path:
    """Under which name this process writes `path`: beside it, and short, as its own name may be very long."""
    told_apart = zlib.crc32(os.fsencode(path.name))
    return path.with_name(f".{path.name[:20]}.{told_apart:08x}.{os.getpid()}.tmp")


@contextmanager
def draft_folder(folder: Path, last: str | None = None) -> Iterator[Path]:
    """A new folder, whose files take their places in `folder` at the end of the block, and not if that fails.

    All at once where there is no `folder` yet; else each in place of the file of its name, the one named `last` behind
    the others, and what else lies there stays.

    Raises:
        SegwrightError: a folder cannot be made or written, in the block too.
    """
    draft = folder / draft_of(Path("all")).name if folder.exists() else draft_of(folder)
    try:
        with _told(folder):
            draft.mkdir(parents=True)
        with _told(folder, kinds=(OSError,)):
            yield draft
        with _told(folder, "Some of its files may be the new ones already."):
            if not folder.exists():
                os.replace(draft, folder)
                _sync_folder(folder.parent)
                return
            for path in sorted(draft.iterdir(), key=lambda path: (path.name == last, path.name)):
                os.replace(path, folder / path.name)
            _sync_folder(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _told(
    path: Path, before: str = "", file: bool = False, kinds: tuple[type[Exception], ...] = (OSError, RuntimeError)
) -> Iterator[None]:
    """What the system refuses, in words; `file`: the path is to be one."""
    try:
        yield
    except kinds as error:
        refuse_file(path.parent)
        if file and path.is_dir():
            raise SegwrightError(f"{path} is a folder, and a file is to be written there. Name a file.") from None
        unclear = isinstance(error, RuntimeError)  # PyTorch's, which does not say what the system said
        what = "no space is left on the disk" if unclear and _is_full(path) else str(error)
        said = before or ("What stood there before is unharmed." if path.exists() else "Nothing is left of it.")
        raise SegwrightError(
            f"{path} could not be written ({what}). {said} Free some space, or choose a folder that can be written."
        ) from None


def _is_full(path: Path) -> bool:
    """Whether the disk under a path that could not be written has less than 64 kB."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    return shutil.disk_usage(there).free < 1 << 16


def refuse_file(folder: str | Path, flag: str = "") -> None:
    """Raises `SegwrightError` where a file is in the way of a folder that is to be written into; `flag` names it."""
    for path in (Path(folder), *Path(folder).parents):
        if path.exists() and not path.is_dir():
            inside = "" if path == Path(folder) else f" for {folder}"
            how = f" with {flag}" if flag else ""
            raise SegwrightError(
                f"{path} is a file, where a folder is needed{inside}. Choose another name{how}, or move the file away."
            )


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut; Windows has no handle for a folder."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _forget(temporary: Path) -> None:
    """Removes the draft; a folder that could not be made has none."""
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        return


def printable(name: object) -> str:
    """The name of a file as text that can be written: bytes that are no UTF-8 become question marks."""
    return str(name).encode("utf-8", "replace").decode()


def write_bytes(path: str | Path, data: bytes) -> None:
    """A binary file, whole or not at all. Raises `SegwrightError`."""
    write_atomic(path, lambda file: file.write(data))


def write_text(path: str | Path, text: str) -> None:
    """A UTF-8 text file, whole or not at all. Raises `SegwrightError`."""
    write_bytes(path, text.encode())


def is_draft(path: Path) -> bool:
    """Whether the name is one under which `write_atomic` writes."""
    return DRAFT.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Temporary files that a kill left behind."""
    for leftover in folder.glob(".*.tmp"):
        if is_draft(leftover) and not leftover.is_dir():
            leftover.unlink(missing_ok=True)
