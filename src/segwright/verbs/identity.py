"""Whether a run that goes on is still the same run: its config, its data, and how many images a step takes.

Going on with anything else would give weights that neither the old nor the new settings give, so it is refused, with
what changed, unless it was asked for.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segwright import checkpoint
from segwright.config import read_yaml
from segwright.data.fingerprint import CENSUS, census, cut, digest, version_of
from segwright.datasets.base import Source
from segwright.engine import Engine
from segwright.errors import ConfigError, WeightsError
from segwright.files import write_text
from segwright.training.schedules import SCHEDULES
from segwright.verbs.folder import run_folder
from segwright.verbs.settings import Settings, settings_from

log = logging.getLogger("segwright")

DATA_FILE = "data.json"
"""In a run's folder: every image of every split, with its size and hashes of its annotation and of its ends."""
SHOWN = 5

FREE = {
    "run.*": "where a run lies and who keeps its records",
    "input.workers": "samples do not depend on who makes them",
    "input.cache": "where preloaded images lie",
    "input.preload": "between ram and disk; decoding anew each time may give other crops",
    "train.device": "the same run on another machine, equal but for rounding",
    "train.distributed": "if a step takes as many images; not to or from ZeRO",
    "train.processes": "if a step takes as many images; not under ZeRO",
    "train.accumulate": "if a step takes as many images",
    "train.epochs": "with a schedule that does not look at the run's end (plateau)",
    "train.early_stopping": "when to stop, not how to train",
    "train.save_every_steps": "when to save, not how to train",
    "train.on_nan": "what has happened so far is in the checkpoint",
}
"""What may change between the parts of a run, and why; docs/training.md shows the same table."""


@dataclass(frozen=True)
class Identity:
    """What must be found again."""

    classes: list[str]
    data: dict[str, dict[str, str]]
    """Split -> its `census`."""
    images_per_step: int
    """Of all processes."""

    def short(self) -> dict[str, Any]:
        """With a hash for each split's images, and the version of the census that it is of."""
        splits = {
            name: {"images": len(files), "hash": digest(files), "census": CENSUS} for name, files in self.data.items()
        }
        return asdict(self) | {"data": splits}


def identify(settings: Settings, source: Source, engine: Engine) -> Identity:
    """Looks at the files of the splits that training uses. Raises `DataError` for one that cannot be read."""
    t, root = settings.train, Path(settings.data.config.root)
    seen = {name: census(source.splits[name], root) for name in ("train", "valid")} if engine.is_main else {}
    names = list((source.whole or source).classes)
    return Identity(names, engine.broadcast(seen), t.batch_size * t.accumulate * engine.processes)


def write_data(folder: Path, identity: Identity) -> None:
    """`data.json`."""
    text = {"classes": identity.classes, "splits": identity.data}
    write_text(folder / DATA_FILE, json.dumps(text, indent=0, ensure_ascii=False))


def resume_point(settings: Settings, identity: Identity, anyway: bool = False) -> dict[str, Any] | None:
    """The checkpoint to go on from; None where the run was stopped before its first. Writes nothing.

    Raises:
        ConfigError: config, data or images a step changed in a way that matters; with `anyway` that is logged.
    """
    folder = run_folder(settings)
    if (folder / "config.yaml").is_file() and not any((folder / name).exists() for name in ("last.pth", "best.pth")):
        judge(changed_config(read_yaml(folder / "config.yaml"), settings), anyway)
        log.info("%s was stopped before its first checkpoint was saved; it begins anew", folder)
        return None
    payload = checkpoint.load(folder / "last.pth")
    if "identity" not in payload:
        raise WeightsError(
            f"{folder / 'last.pth'} was written by an earlier version, which noted too little for a run to go on. Its "
            "weights can be evaluated and used all the same; train anew."
        )
    changes = changed_config(payload["config"], settings)
    judge(changes + changed_identity(payload["identity"], identity, folder), anyway)
    return payload


def judge(changes: list[str], anyway: bool) -> None:
    """Raises `ConfigError` for what changed, or logs it."""
    if not changes:
        return
    if not anyway:
        raise ConfigError(
            "the run was begun with something else, so going on would be neither of the two:\n"
            + "".join(f"  - {change}\n" for change in changes)
            + "Resume with what it began with, begin a new run without --resume, or go on with --resume-anyway."
        )
    for change in changes:
        log.warning("going on all the same, though it changed: %s", change)


def changed_config(old: Mapping[str, Any], settings: Settings) -> list[str]:
    """The keys that matter and have another value than the run began with."""
    before, now = settings_from(old).dump(), settings.dump()  # keys that are newer than the run have their defaults
    changed = []
    for section, values in now.items():
        for key, value in values.items():
            had = before[section].get(key, value)  # absent: a key of another part, or a loss that was chosen later
            if had != value and not may_change(f"{section}.{key}", had, value, settings):
                changed.append(f"{section}.{key}: {had!r} -> {value!r}")
    return changed


def may_change(key: str, had: Any, value: Any, settings: Settings) -> bool:
    """Whether a run may go on with this other value of a key."""
    if key == "train.epochs":
        return not is_bound(settings)
    if key == "input.preload":
        return {had, value} in ({"ram", "disk"}, {None, "none"})
    return key in FREE or f"{key.partition('.')[0]}.*" in FREE


def is_bound(settings: Settings) -> bool:
    """Whether the schedule looks at the run's end; one that does not say so is taken to."""
    return getattr(SCHEDULES.part(settings.schedule.name), "LOOKS_AT_THE_END", True)


def changed_identity(old: Mapping[str, Any], now: Identity, folder: Path) -> list[str]:
    """What changed of classes, data and images a step."""
    changes = []
    if old["classes"] != now.classes:
        changes.append(f"the classes: {', '.join(old['classes'])} -> {', '.join(now.classes)}")
    if old["images_per_step"] != now.images_per_step:
        changes.append(
            f"the images a step takes: {old['images_per_step']} -> {now.images_per_step} (train.batch_size x "
            "train.accumulate x the number of processes)"
        )
    changed = [name for name, files in now.data.items() if not is_of(files, old["data"][name])]
    return changes + [f"the images of {name}: {difference(name, now, folder)}" for name in changed]


def is_of(files: Mapping[str, str], old: Mapping[str, Any]) -> bool:
    """Whether a census has the hash that a run noted down, by the version that it had then."""
    return digest(files, old.get("census", 1)) == old["hash"]


def difference(name: str, now: Identity, folder: Path) -> str:
    """In words, as far as the run's folder still has its list of images."""
    path = folder / DATA_FILE
    if not path.is_file():
        return f"they are not what they were ({DATA_FILE}, which would say more, is not in {folder})"
    old, new = json.loads(path.read_text(encoding="utf-8"))["splits"][name], now.data[name]
    kinds = {
        "new": sorted(new.keys() - old.keys()),
        "gone": sorted(old.keys() - new.keys()),
        "changed": sorted(
            file for file in new.keys() & old.keys() if cut(new[file], version_of(old[file])) != old[file]
        ),
    }
    said = [f"{len(files)} {kind} ({_few(files)})" for kind, files in kinds.items() if files]
    return "; ".join(said) or "the same, in another order"


def _few(files: list[str]) -> str:
    return ", ".join(files[:SHOWN]) + (", ..." if len(files) > SHOWN else "")
