"""Leaving well when the system asks: SIGTERM (a machine that is needed) and SIGUSR1 (a time limit that comes near).

A handler only notes the signal; the loop ends the step that it is in, saves, and leaves with `errors.Stopped`, whose
exit status a batch system can tell from a failure.
"""

import logging
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, Self

log = logging.getLogger("segwright")

SIGNALS = ("SIGTERM", "SIGUSR1")


class Interrupted(Exception):
    """Raised out of a `Watched` loop; caught by the training loop, and by nobody else."""


class StopRequest:
    """A context manager: within it, the signals are noted. Outside the main thread, which alone gets any, it does
    nothing."""

    def __init__(self) -> None:
        self.asked: str | None = None
        """The first signal that came."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]  # Windows has no SIGUSR1
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.asked is None:
            self.asked = signal.Signals(number).name

    def watched(self, batches: Any) -> "Watched":
        """The same batches; the loop over them ends with `Interrupted` where a signal has come."""
        return Watched(batches, self)


class Watched:
    """Batches that are given out until a stop is asked for."""

    def __init__(self, batches: Iterable[Any], request: StopRequest) -> None:
        self._batches, self._request = batches, request

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            if self._request.asked:
                raise Interrupted
            yield batch
