"""The folder of a run: found, claimed, emptied, tidied; and the log that goes into it."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import yaml

from segwright import checkpoint
from segwright.config import read_yaml
from segwright.errors import ConfigError, SegwrightError
from segwright.files import remove_leftovers, write_text
from segwright.verbs.settings import Settings, settings_from

log = logging.getLogger("segwright")

OF_A_RUN = {
    "best.pth", "last.pth", "config.yaml", "training_params.yaml", "training_params.json", "log.csv", "curves.png",
    "report.html", "samples", "split.json", "tensorboard", "train.log", "adapters.safetensors", "class_weights.json",
}  # fmt: skip
"""Every name that a run writes into its folder; --overwrite removes these and nothing else."""
ASIDE = ".replaced"
"""Behind the name of a run that --overwrite keeps until the new one has saved its first epoch."""


def run_folder(settings: Settings) -> Path:
    """Where the run lies unless another is there."""
    return Path(settings.run.output or Path("runs") / settings.name)


def resume_point(settings: Settings) -> dict[str, Any] | None:
    """The checkpoint to go on from; None where the run was stopped before its first. Writes nothing."""
    folder = run_folder(settings)
    if (folder / "config.yaml").is_file() and not any((folder / name).exists() for name in ("last.pth", "best.pth")):
        same_config(read_yaml(folder / "config.yaml"), settings)
        log.info("%s was stopped before its first epoch was saved; it begins anew", folder)
        return None
    payload = checkpoint.load(folder / "last.pth")
    same_config(payload["config"], settings)
    return payload


def claim_folder(settings: Settings, resume: bool) -> Path:
    """The run's folder, with its config in it. A run that is there is never overwritten unless asked."""
    folder = run_folder(settings)
    if resume:
        remove_leftovers(folder)
        return folder
    if settings.run.overwrite and folder.is_dir() and any(folder.iterdir()):
        set_aside(folder)
    try:
        folder = make_free(folder)
    except OSError as error:
        raise SegwrightError(
            f"the run's folder {folder} cannot be made ({error}). Choose another with --output."
        ) from None
    write_text(folder / "config.yaml", yaml.safe_dump(settings.dump(), sort_keys=False))
    return folder


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
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in OF_A_RUN and path.suffix != ".tmp")
    if foreign:
        raise SegwrightError(
            f"{folder} holds what no run writes ({', '.join(foreign[:5])}), so --overwrite would cost more than a run. "
            "Move it away, or choose another folder with --output."
        )
    try:
        settle(folder)  # an earlier one may have been killed
        folder.rename(aside(folder))
    except OSError as error:
        raise SegwrightError(f"{folder} cannot be renamed ({error}). Choose another folder with --output.") from None


def aside(folder: Path) -> Path:
    """Where the run that stood in `folder` waits."""
    return folder.with_name(folder.name + ASIDE)


def settle(folder: Path) -> None:
    """Of a run and the one that it is to replace, keeps the new one if it has saved an epoch, else the old one."""
    old = aside(folder)
    if not old.is_dir():
        return
    if (folder / "last.pth").exists():
        remove_run(old)
        return
    remove_run(folder)
    if folder.exists():
        log.warning("%s holds what no run writes; the run that was to be overwritten is kept as %s", folder, old)
        return
    old.rename(folder)
    log.info("%s: the run that was to be overwritten stands again", folder)


def remove_run(folder: Path) -> None:
    """Removes what a run writes, and the folder if nothing else lies in it."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        if path.name in OF_A_RUN or (path.name.startswith(".") and path.suffix == ".tmp"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something foreign is in it, or it is gone
        folder.rmdir()


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
            log.warning("stopped; the run goes on from its last epoch with --resume")
        if isinstance(error, Exception | KeyboardInterrupt):
            if not saved and fresh:
                remove_run(folder)
            settle(folder)
        raise
    settle(folder)


def same_config(old: Mapping[str, Any], settings: Settings) -> None:
    """Raises `ConfigError` where a run would go on with another config than it began with."""
    old, new = settings_from(old).dump(), settings.dump()  # keys that are newer than the run have their defaults
    free = {("run", key) for key in new["run"]} | {("input", "workers"), ("input", "cache"), ("train", "device")}
    changed = [
        f"{section}.{key}: {old[section][key]!r} -> {value!r}"
        for section, values in new.items()
        for key, value in values.items()
        if (section, key) not in free and key in old[section] and old[section][key] != value
    ]
    if changed:
        raise ConfigError(
            "the run was begun with another config, so going on would be neither of the two: "
            + "; ".join(changed)
            + ". Resume with the same config, or begin a new run without --resume."
        )


@contextlib.contextmanager
def logged() -> Iterator[Callable[[Path], None]]:
    """Keeps what is logged until the run has a folder; calling the yielded function writes it all into that file."""
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
