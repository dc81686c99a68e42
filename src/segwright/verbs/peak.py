"""Peak memory of one contender, measured in a process of its own: `python -m segwright.verbs.peak JSON`.

In one process with others, what those left behind would count too, and importing a library is not the model's memory.
So the process imports everything, notes what it holds, builds the model, works twice, and prints the difference.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from segwright.errors import SegwrightError
from segwright.training.records import peak_memory_mb
from segwright.verbs.peers import OURS, build, check_peers
from segwright.verbs.workload import Load, device_of, prepare, settle

STATUS = Path("/proc/self/status")


def peak_mb(name: str, load: Load) -> float:
    """Peak memory in MiB of building the contender and working twice, above what its imports take; in a new process.

    On a GPU: of the GPU.

    Raises:
        SegwrightError: the process failed, out of memory perhaps.
    """
    words = [sys.executable, "-m", "segwright.verbs.peak", json.dumps({"name": name, "load": asdict(load)})]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise SegwrightError(
            f"{name} could not be run to measure its memory ({last}). Give a smaller --size or --batch."
        )
    return float(done.stdout.strip().splitlines()[-1])


def measure(name: str, load: Load) -> float:
    """The same, in this process: to be called once."""
    settle(load)
    check_peers([name] if name != OURS else [])
    before = resident_mb()
    model = build(name, load.design)
    assert model is not None, f"{name} has no such model"
    step = prepare(model, load)
    for _ in range(2):
        step()
    if device_of(load).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return highest_mb() - before


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


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    print(measure(job["name"], Load.from_dict(job["load"])))
