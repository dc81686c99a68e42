"""One process of a run over several: `python parallel_driver.py CONFIG.json [--resume]`, started by a launcher.

The config may have a section `test`. `still`: batch norms and dropout do nothing that depends on who has which images,
so that the number of processes cannot matter. `ends`: [process, step, how]; that process ends itself before that step,
by `kill` or by an `error`, and leaves the time in the file `died`. `poisoned`: [process, step]; there the loss of that
process is not a number.

Each process leaves in `left<rank>` whether it was out of its group when it ended, and how many of Gloo's threads were
there still.
"""

import atexit
import functools
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

import segwright
from segwright.engine import processes
from segwright.errors import DataError
from segwright.training import loop, optim

BY_IMAGES = torch.nn.modules.batchnorm._BatchNorm | torch.nn.modules.dropout._DropoutNd
STEADY = 1e-3
"""Of AdamW: at its own 1e-8 a gradient that is nothing but rounding, which on some processors differs between batches
of four and of two, is a step of the whole learning rate."""
PATH = next(Path(word) for word in sys.argv if word.endswith(".json"))
SETTINGS = json.loads(PATH.read_text())
TEST = SETTINGS.pop("test", {})
begin, step, calls = loop.begin_epoch, loop.train_step, [0]


def begin_still(model: torch.nn.Module, *args: object) -> bool:
    frozen = begin(model, *args)
    for module in model.modules():
        if isinstance(module, BY_IMAGES):
            module.eval()
    return frozen


def end_in(*args: object) -> object:
    calls[0] += 1
    process, at, how = TEST["ends"]
    if (int(os.environ["RANK"]), calls[0]) == (process, at):
        PATH.with_name("died").write_text(str(time.time()))
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise DataError("a spoiled image")
    return step(*args)


def poisoned(t: loop.Training, *args: object) -> object:
    calls[0] += 1
    if [int(os.environ["RANK"]), calls[0]] != TEST["poisoned"]:
        return step(t, *args)
    good, t.loss.forward = t.loss.forward, lambda logits, mask: logits.sum() * torch.nan
    try:
        return step(t, *args)
    finally:
        t.loss.forward = good


@atexit.register
def say_whether_it_left() -> None:
    """After all that a run leaves to the end of its process."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    told = {"left": not torch.distributed.is_initialized(), "threads": names.count("pt_gloo_runloop")}
    PATH.with_name(f"left{os.environ.get('RANK', '')}").write_text(json.dumps(told))


if TEST.get("still"):
    loop.begin_epoch = begin_still
    optim.AdamW = functools.partial(optim.AdamW, eps=STEADY)
if "ends" in TEST and "--resume" not in sys.argv:
    loop.train_step = end_in
if "poisoned" in TEST:
    loop.train_step = poisoned
segwright.train(SETTINGS, resume="--resume" in sys.argv)
if torch.distributed.is_initialized():  # as an engine does whose parts name each other
    holder = [torch.distributed.group.WORLD]
    holder.append(holder)
    del holder
processes.end_at_once(0)
