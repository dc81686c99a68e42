"""Who can do the work, and the seconds of everybody's turns, for `segwright bench`."""

import logging
import math
import time
from collections.abc import Callable

import torch

from segwright.errors import SegwrightError
from segwright.progress import bar
from segwright.verbs.peers import OURS

log = logging.getLogger("segwright")

WARM_UP = 2
"""Rounds before those that count, beside the first call of all, whose time is kept apart."""

TURN_S = 0.6
"""Seconds of a turn, in steps that are quicker. After a single step of another process a quick step would pay for cold
caches, as nobody does who goes through a folder of images: in bfloat16 segformer_b0 took 65 ms that way, not 59."""

Steps = dict[str, Callable[[], None]]


def begun(steps: Steps, device: torch.device) -> tuple[Steps, dict[str, float]]:
    """The steps of those who can do the work, and the seconds of their first call, in which a model is compiled too."""
    seconds = {name: first_call(name, step, device) for name, step in steps.items()}
    done = {name: value for name, value in seconds.items() if value is not None}
    return {name: steps[name] for name in done}, done


def first_call(name: str, step: Callable[[], None], device: torch.device) -> float | None:
    """Seconds of the first call; None for a contender that cannot do the work: peers have sizes and batches that they
    do not take."""
    try:
        return timed(step, device)
    except (RuntimeError, ValueError, SegwrightError) as error:
        if name == OURS:
            raise
        log.warning("%s cannot do this work and is left out: %s", name, str(error).splitlines()[0])
        return None


def take_turns(steps: Steps, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every step in every round; every second round goes backwards.

    A turn is as many steps as take `TURN_S`, and its seconds are their mean.
    """
    quickest = dict.fromkeys(steps, math.inf)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    with bar("bench", WARM_UP + rounds) as progress:
        for turn in range(WARM_UP + rounds):
            for name in list(steps)[:: 1 if turn % 2 else -1]:
                if turn < WARM_UP:
                    quickest[name] = min(quickest[name], timed(steps[name], device))
                else:
                    calls = max(1, round(TURN_S / quickest[name]))
                    seconds[name].append(timed(steps[name], device, calls))
            progress.advance(1)
    return seconds


def timed(step: Callable[[], None], device: torch.device, calls: int = 1) -> float:
    """Seconds of one call, the mean of `calls` in a row, the device's work included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start_s = time.perf_counter()
    for _ in range(calls):
        step()
    wait()
    return (time.perf_counter() - start_s) / calls
