"""The errors that a user may meet. Floor 0: imports nothing of ours.

A message has three parts: what was seen, why it cannot work, what to do.
"""

import difflib
from collections.abc import Iterable


class SegwrightError(ValueError):
    """Something that the user can mend. The command line prints its message without a traceback."""


class ConfigError(SegwrightError):
    """A configuration that cannot work."""


class DataError(SegwrightError):
    """Images, masks or annotations that cannot be used."""


class WeightsError(SegwrightError):
    """A checkpoint or weight file that cannot be read or does not fit."""


class TrainingError(SegwrightError):
    """A run that cannot go on."""


class MissingPackageError(SegwrightError, ImportError):
    """A package that is needed is not installed."""

    def __init__(self, package: str, purpose: str, extra: str | None = None) -> None:
        command = f"pip install 'segwright[{extra}]'" if extra else f"pip install {package}"
        super().__init__(f"The package '{package}' is not installed; {purpose} needs it. Install it with: {command}")


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known word that is most alike, else the list of the known words."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    shown = ", ".join(words[:20]) + (", ..." if len(words) > 20 else "")
    return f" There are: {shown}." if words else ""
