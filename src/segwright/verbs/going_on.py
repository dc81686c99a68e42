"""Whether a run begins or goes on: what was asked for, beside what lies in its folder. Looks at no data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segwright.errors import ConfigError, WeightsError
from segwright.files import refuse_file
from segwright.verbs.folder import ASIDE, BEST

SHOWN = 5
"""Runs that a message names."""
LAST = "last.pth"


def goes_on(folder: Path, resume: bool, resume_anyway: bool, go_on: bool, flags: Mapping[str, Any]) -> bool:
    """Whether the run in `folder` is to go on.

    Raises:
        ConfigError: two wishes that exclude each other. A config's own `run.overwrite` is none: it is for new runs.
        SegwrightError: a file lies where the folder is to be.
        WeightsError: the run is to go on, but there is none.
    """
    resume = resume or resume_anyway
    asked = {"--resume": resume, "--continue": go_on, "--overwrite": bool(flags.get("run.overwrite"))}
    words = [word for word, given in asked.items() if given]
    if len(words) > 1:
        raise ConfigError(
            f"{' and '.join(words)} exclude each other: --resume goes on with the run in {folder}, --continue goes on "
            "or begins one where there is none, --overwrite begins anew. Give one of them."
        )
    refuse_file(folder, "--output")
    if resume:
        refuse_nothing(folder)
    return resume or (go_on and (folder / "config.yaml").is_file())


def refuse_nothing(folder: Path) -> None:
    """Raises `WeightsError` where no run can go on. One that was stopped before its first checkpoint can: anew."""
    begun = (folder / "config.yaml").is_file() and not (folder / BEST).exists()
    if begun or (folder / LAST).is_file():
        return
    beside = sorted(path.parent.name for path in folder.parent.glob(f"*/{LAST}") if path.parent.suffix != ASIDE)
    more = ", ..." if len(beside) > SHOWN else ""
    there = f" Beside it can go on: {', '.join(beside[:SHOWN])}{more}; name one with --output." if beside else ""
    raise WeightsError(
        f"there is no run to go on with in {folder}: it holds no {LAST}.{there} To begin a run, leave out --resume, or "
        "give --continue, which begins one where there is none."
    )
