"""The errors that a user may meet. Floor 0: imports nothing of ours.

A message has three parts: what was seen, why it cannot work, what to do.
"""

import difflib
from collections.abc import Iterable

REQUEUE = 85
"""Exit status of a run that a signal ended and that `--resume` goes on with: a batch system may put it back in line.
No shell or tool of ours uses it otherwise (126 and more are the shell's, 64 to 78 sysexits.h's)."""


class SegwrightError(ValueError):
    """Something that the user can mend. The command line prints its message without a traceback."""

    exit_status = 1
    """The command's."""


class ConfigError(SegwrightError):
    """A configuration that cannot work."""


class DataError(SegwrightError):
    """Images, masks or annotations that cannot be used."""


class WeightsError(SegwrightError):
    """A checkpoint or weight file that cannot be read or does not fit."""


class TrainingError(SegwrightError):
    """A run that cannot go on."""


class Stopped(SegwrightError):
    """A run that was asked to end, and has saved all that it takes to go on."""

    exit_status = REQUEUE


class MissingPackageError(SegwrightError, ImportError):
    """A package that is needed is not installed."""

    def __init__(self, package: str, purpose: str, extra: str | None = None) -> None:
        command = f"pip install 'segwright[{extra}]'" if extra else f"pip install {package}"
        super().__init__(f"The package '{package}' is not installed; {purpose} needs it. Install it with: {command}")


def counted(number: int, noun: str) -> str:
    """`1 mask`, `2 masks`, `0 fixes`."""
    plural = f"{noun}es" if noun.endswith(("s", "x", "sh", "ch")) else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


LOOK_ALIKE = str.maketrans("oilsz-", "01152_")
"""Letters that are typed for a figure, or read as one."""
MOST_NAMED = 6


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known word that is most alike, or all that are equally so; else what is known."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=len(words) or 1, cutoff=0.6)
    likeness = {name: _likeness(word, name) for name in close}
    best = [name for name in close if likeness[name] == max(likeness.values())]
    if best:
        *others, last = (f"'{name}'" for name in sorted(best)[:MOST_NAMED])
        return f" Did you mean {', '.join(others)}{' or ' if others else ''}{last}?"
    shown = ", ".join(words[:20]) + (", ..." if len(words) > 20 else "")
    return f" There are: {shown}." if words else ""


def _likeness(word: str, name: str) -> tuple[float, float]:
    """How alike they are with figures for the letters that look like them, and as they stand."""
    typed, meant = (text.lower().translate(LOOK_ALIKE) for text in (word, name))
    return difflib.SequenceMatcher(None, typed, meant).ratio(), difflib.SequenceMatcher(None, word, name).ratio()
