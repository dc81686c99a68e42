"""The folder of a run: found, claimed, emptied, tidied; and the log that goes into it."""

import contextlib
import glob
import logging
from collections.abc import Callable, Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

import yaml

from segwright.errors import SegwrightError
from segwright.files import is_draft, remove_leftovers, write_text
from segwright.verbs.run_files import BEST, CONFIG, foreign, holds_a_run, remove_run
from segwright.verbs.settings import Settings

log = logging.getLogger("segwright")

SHOWN = 5
ASIDE = ".replaced"
"""Behind the name of a run that --overwrite keeps until the new one has saved its first epoch."""


def run_folder(settings: Settings) -> Path:
    """Where the run lies unless another is there."""
    return Path(settings.run.output or Path("runs") / settings.name)


def claim_folder(settings: Settings, resume: bool) -> Path:
    """The run's folder, with its config in it. A run that is there is never overwritten unless asked."""
    folder = run_folder(settings)
    if resume:
        warn_of_younger(folder)
        remove_leftovers(folder)
        write_text(folder / CONFIG, yaml.safe_dump(settings.dump(), sort_keys=False))
        return folder
    if settings.run.overwrite and folder.is_dir() and any(folder.iterdir()):
        set_aside(folder)
    try:
        folder = make_free(folder)
    except OSError as error:
        raise SegwrightError(
            f"the run's folder {folder} cannot be made ({error}). Choose another with --output."
        ) from None
    write_text(folder / CONFIG, yaml.safe_dump(settings.dump(), sort_keys=False))
    if settings.run.best_as:
        name_again(folder, settings.run.best_as)
    return folder


def warn_of_younger(folder: Path) -> None:
    """Says which runs began in `folder.2`, ..., because one was here, and have been at work since: one may be meant."""
    own = folder / "last.pth"
    began = own.stat().st_mtime if own.exists() else 0.0
    others = folder.parent.glob(f"{glob.escape(folder.name)}.*/last.pth")
    numbered = (path for path in others if path.parent.name.removeprefix(f"{folder.name}.").isdigit())
    later = [str(path.parent) for path in numbered if path.stat().st_mtime > began]
    if later:
        log.warning(
            "going on with %s, and there is younger: %s. If you mean that one, stop this and give --output with it",
            folder,
            ", ".join(sorted(later)),
        )


def name_again(folder: Path, name: str) -> None:
    """Links another name to best.pth, which need not be there yet, so that both are always the same weights."""
    try:
        (folder / name).symlink_to(BEST)
    except OSError as error:
        log.warning("%s cannot be linked to %s here (%s); use %s", name, BEST, error, folder / BEST)


def make_free(folder: Path) -> Path:
    """Makes `folder`, or `folder.2`, `folder.3`, ... where something is there; no two runs get the same."""
    number, candidate = 1, folder
    while True:
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            if candidate.is_dir() and not any(candidate.iterdir()):
                return candidate
        number += 1
        candidate = folder.with_name(f"{folder.name}.{number}")
        if number == 2:
            log.info("%s exists and is left alone; this run goes to the next free name", folder)


def set_aside(folder: Path) -> None:
    """Renames a run that is to be overwritten: it costs nothing while the new one has saved nothing. `settle` ends it.

    Raises:
        SegwrightError: the folder holds anything but a run, or cannot be renamed.
    """
    stop_on_foreign(folder)
    try:
        settle(folder)  # an earlier one may have been killed
        if aside(folder).is_dir():  # it was, in its first epoch
            remove_run(folder)
        else:
            folder.rename(aside(folder))
    except OSError as error:
        raise SegwrightError(f"{folder} cannot be renamed ({error}). Choose another folder with --output.") from None


def stop_on_foreign(folder: Path) -> None:
    """Raises `SegwrightError` where `folder` holds anything but a run."""
    others = foreign(folder)
    if others:
        raise SegwrightError(
            f"{folder} holds what no run writes ({_few(others)}), so --overwrite would cost more than a run. "
            "Move it away, or choose another folder with --output."
        )
    if not holds_a_run(folder) and not all(is_draft(path) for path in folder.iterdir()):
        raise SegwrightError(
            f"{folder} holds {_few(sorted(path.name for path in folder.iterdir()))}, but no run: that leaves its whole "
            f"config as {CONFIG} and a train.log or weights beside it. --overwrite replaces runs alone, so nothing was "
            "touched. Move it away, or choose another folder with --output."
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def aside(folder: Path) -> Path:
    """Where the run that stood in `folder` waits."""
    return folder.with_name(folder.name + ASIDE)


def settle(folder: Path) -> None:
    """Of a run and the one that it is to replace, keeps the new one if it has saved an epoch; both, if it was stopped
    in its first; else the old one."""
    old = aside(folder)
    if not old.is_dir():
        return
    if (folder / BEST).exists():
        remove_run(old)
        return
    if (folder / "last.pth").exists():
        log.info("%s has no epoch yet; until it has, the run that it replaces is kept as %s", folder, old)
        return
    remove_run(folder)
    if folder.exists():
        log.warning("%s holds what no run writes; the run that was to be overwritten is kept as %s", folder, old)
        return
    old.rename(folder)
    log.info("%s: the run that was to be overwritten stands again", folder)


@contextlib.contextmanager
def tidy(folder: Path, fresh: bool = True) -> Iterator[None]:
    """Removes what a run that failed before anything of it was saved has written; says how a stopped one goes on.

    fresh: the folder is this run's own; one that a resumed run found stays as it is.
    """
    try:
        yield
    except BaseException as error:
        saved = (folder / "last.pth").exists()
        if isinstance(error, KeyboardInterrupt) and saved:
            log.warning("stopped; the run goes on from its last epoch with --resume --output %s", folder)
        if isinstance(error, Exception | KeyboardInterrupt):
            if not saved and fresh:
                remove_run(folder)
            settle(folder)
        raise
    settle(folder)


@contextlib.contextmanager
def logged(here: bool = True) -> Iterator[Callable[[Path], None]]:
    """Keeps what is logged until the run has a folder; calling the yielded function writes it all into that file.
    Where it is not to be done `here`, another process does it."""
    if not here:
        yield lambda path: None
        return
    buffer = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
    level = log.level
    log.setLevel(min(log.getEffectiveLevel(), logging.INFO))
    log.addHandler(buffer)

    def into_file(path: Path) -> None:
        handler = logging.FileHandler(path)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        buffer.setTarget(handler)
        buffer.flush()
        log.removeHandler(buffer)
        log.addHandler(handler)
        opened.append(handler)

    opened: list[logging.Handler] = []
    try:
        yield into_file
    finally:
        log.setLevel(level)
        for handler in (buffer, *opened):
            log.removeHandler(handler)
            handler.close()
