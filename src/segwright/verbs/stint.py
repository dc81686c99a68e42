"""One contender in a process of its own: `python -m segwright.verbs.stint JSON` builds it and works when it is told to.

Settings of the process, the allocator's for one, can then differ between contenders, and each one's peak memory is its
own: in one process what the others left behind would count too, and importing a library is not the model's memory. So
the process imports everything, notes what it holds, builds the model, and answers words on its standard input.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch

from segwright.errors import SegwrightError
from segwright.model import count_parameters
from segwright.training.records import peak_memory_mb
from segwright.verbs.peers import OURS, build, check_peers
from segwright.verbs.workload import Load, count_macs, device_of, prepare, settle

STATUS = Path("/proc/self/status")


class Stint:
    """A contender at work. A context manager, which ends the process.

    Raises:
        SegwrightError: the process ended by itself: it has no such model, cannot do the work, or was out of memory.
    """

    def __init__(self, name: str, load: Load) -> None:
        self._name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        job = json.dumps({"name": name, "load": asdict(load)})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "segwright.verbs.stint", job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def step(self) -> None:
        """Does the work once."""
        self._ask("step")

    def peak_mb(self) -> float:
        """The highest memory so far in MiB, above what the imports take. On a GPU: of the GPU."""
        return float(self._ask("peak"))

    def sizes(self) -> tuple[int, int]:
        """(parameters, multiplications of a forward pass of one image)."""
        parameters, macs = self._ask("sizes")
        return parameters, macs

    def _ask(self, word: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> SegwrightError:
        self._process.wait()
        self._errors.seek(0)
        last = (self._errors.read().strip().splitlines() or ["it was killed"])[-1]
        return SegwrightError(
            f"{self._name} could not do this work in a process of its own ({last}). Give a smaller --size or --batch."
        )


def peak_mb(name: str, load: Load) -> float:
    """Peak memory in MiB of building the contender and working twice, above what its imports take; in a new process.

    Raises:
        SegwrightError: the process failed.
    """
    with Stint(name, load) as stint:
        stint.step()
        stint.step()
        return stint.peak_mb()


def answers(name: str, load: Load) -> dict[str, Callable[[], object]]:
    """What this process does at which word."""
    settle(load)
    check_peers([name] if name != OURS else [])
    before = resident_mb()
    model = build(name, load.design)
    if model is None:
        raise SegwrightError(f"{name} has no {load.design.encoder} with {load.design.head}")
    return {
        "step": prepare(model, load),
        "peak": lambda: _peak(load, before),
        "sizes": lambda: (count_parameters(model), count_macs(model, load)),
    }


def _peak(load: Load, before_mb: float) -> float:
    if device_of(load).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return highest_mb() - before_mb


def resident_mb() -> float:
    """What the process holds now, in MiB; where that is not known, the most it has held."""
    return _status("VmRSS") or peak_memory_mb()


def highest_mb() -> float:
    """The most that this process has held, in MiB. Linux's getrusage counts what the parent held at the fork too."""
    return _status("VmHWM") or peak_memory_mb()


def _status(key: str) -> float | None:
    if not STATUS.is_file():
        return None
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return next((int(words[1]) / 1024 for words in lines if words and words[0] == f"{key}:"), None)


def serve(name: str, load: Load) -> None:
    """Answers each word of the standard input by a line of JSON."""
    known = answers(name, load)
    for word in sys.stdin:
        said = known[word.strip()]()
        if device_of(load).type == "cuda":
            torch.cuda.synchronize()
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    serve(job["name"], Load.from_dict(job["load"]))
