"""Several processes that work as one: they meet, add up, tell each other plain values, wait, and die together.

Gloo between CPUs, NCCL between GPUs. P processes, counted from 0.
"""

import atexit
import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from segwright.errors import ConfigError, SegwrightError, Stopped, TrainingError
from segwright.launch import Launch

log = logging.getLogger("segwright")

MEETING_S = float(os.environ.get("SEGWRIGHT_MEETING_S", "180"))
"""How long the processes wait for each other at the start: nodes of a cluster may start a minute apart."""
COLLECTIVE = timedelta(minutes=30)
"""The longest that one may wait for another in a sum: the main process draws and writes meanwhile."""
LAST_WORDS_S = 5.0
"""How long one waits for the error of another that left it."""

_calls = count()
"""Of `first`, by all runs of this process."""
_met: dist.Store | None = None
"""Where they met: a process meets the others once, however many runs it makes."""
_broken = False
"""Whether an error ended a run, so that another process may be waited for in vain."""


class Group:
    """This process and the others of its run; of one alone, every operation gives back what it was given."""

    def __init__(self, launch: Launch, device: torch.device) -> None:
        """Waits until all are there. Raises `ConfigError` where they are not who the launcher says."""
        self.rank, self.processes, self.device = launch.rank, launch.processes, device
        self._store = meet(launch, device) if launch.processes > 1 else None

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, on all of them."""
        if self._store is None:
            return value
        total = value.detach().to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(value.device)

    def any(self, flag: bool) -> bool:
        """Whether it is true on one of them."""
        return flag if self._store is None else bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def broadcast(self, value: Any) -> Any:
        """What the main process gave (a plain value), on all."""
        if self._store is None:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, device=self.device)
        return held[0]

    def wait(self) -> None:
        """Until all are here."""
        if self._store is not None:
            self.sum(torch.zeros(1, device=self.device))

    @contextmanager
    def first(self) -> Iterator[None]:
        """The main process goes through this block before the others, who wait as long as it takes."""
        key = f"segwright/first/{next(_calls)}"
        while self._store is not None and self.rank > 0 and not self._store.check([key]):
            if (word := self._word()) is not None:
                raise TrainingError(word)
            time.sleep(0.1)
        yield
        if self._store is not None and self.rank == 0:
            self._store.set(key, "done")

    def share(self, tensors: list[Tensor]) -> None:
        """The main process's values into those of all; of one kind of number at a time, in one message each."""
        if self._store is None:
            return
        for kind in sorted({tensor.dtype for tensor in tensors}, key=str):
            own = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in own])
            dist.broadcast(flat, src=0)
            for tensor, values in zip(own, flat.split([tensor.numel() for tensor in own]), strict=True):
                tensor.detach().copy_(values.view_as(tensor))

    @contextmanager
    def together(self) -> Iterator[None]:
        """An error that ends one process within this ends all, and all say it."""
        try:
            yield
            self.wait()  # a launcher may end the others some time after the first has left, and the main one writes
        except Stopped:
            self.wait()  # all stop at the same step
            raise
        except BaseException as error:
            if self._store is None:
                raise
            global _broken
            _broken = True
            if left_by_others(error):
                raise TrainingError(self._last_words()) from error
            self._tell(error)
            raise

    def _tell(self, error: BaseException) -> None:
        """Leaves word for the others. Who holds the place where they met stays until they can have read it."""
        what = str(error) if isinstance(error, SegwrightError) else f"{type(error).__name__}: {error}"
        try:
            if self._word() is None:
                self._store.set("segwright/died", f"process {self.rank} of {self.processes} ended: {what}")  # type: ignore[union-attr]
        except RuntimeError:
            return  # the place is gone with the process that held it
        if self.rank == 0:
            time.sleep(LAST_WORDS_S)

    def _last_words(self) -> str:
        """What another process died of, as far as it could say."""
        ends = time.monotonic() + LAST_WORDS_S
        while time.monotonic() < ends:
            try:
                if (word := self._word()) is not None:
                    return word
            except RuntimeError:
                break
            time.sleep(0.2)
        return (
            "another process of this run died without a word (killed, out of memory, a lost machine?), so it cannot go "
            "on; the checkpoints hold the last good state. Look at that process's output, and go on with --resume."
        )

    def _word(self) -> str | None:
        assert self._store is not None
        return self._store.get("segwright/died").decode() if self._store.check(["segwright/died"]) else None


def left_by_others(error: BaseException) -> bool:
    """Whether an error says that another process has gone, as Gloo, NCCL and the store word it."""
    text = str(error).lower()
    known = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "recvvalue failed")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in known)
    )


def meet(launch: Launch, device: torch.device) -> dist.Store:
    """All processes of a run, each there once. Raises `ConfigError`: some are missing, or two claim one place."""
    global _met
    if _met is not None:
        return _met
    os.environ.update({**launch.variables(), **({"LOCAL_RANK": str(device.index)} if device.index is not None else {})})
    patience = timedelta(seconds=MEETING_S)
    try:
        store = next(iter(dist.rendezvous("env://", timeout=patience)))[0]
        call_the_roll(store, launch, device)
    except dist.DistError as error:
        raise ConfigError(
            f"process {launch.rank} of {launch.processes} did not meet the others at {launch.address}:{launch.port} "
            f"within {MEETING_S:g} s ({str(error).splitlines()[0]}). Were all started, and does a firewall or a port "
            "that is taken keep them apart? MASTER_ADDR and MASTER_PORT name another place."
        ) from None
    dist.init_process_group(
        "gloo" if device.type == "cpu" else "nccl",
        store=dist.PrefixStore("segwright", store),
        rank=launch.rank,
        world_size=launch.processes,
        timeout=COLLECTIVE,
    )
    _met = store
    atexit.register(leave)
    return store


def leave() -> None:
    """Ends the group and, where nothing else holds it, its threads before the interpreter ends: one that wakes in the
    middle of that aborts the process, and a run that was finished, or saved at a signal, looks as if it had failed."""
    if dist.is_initialized() and not _broken:
        dist.destroy_process_group()
        gc.collect()


def end_at_once(status: int) -> None:
    """Ends this process, if it is one of several, without the interpreter's own end: DeepSpeed's engine holds the
    group, and so its threads (see `leave`), to the last. What was registered to be done at exit is done."""
    if _met is not None:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def call_the_roll(store: dist.Store, launch: Launch, device: torch.device) -> None:
    """Every process says its rank and its GPU, and waits for the others."""
    if store.add(f"segwright/here/{launch.rank}", 1) > 1:
        raise ConfigError(
            f"two processes say that they are process {launch.rank} of {launch.processes}, so the launcher gives ranks "
            "twice. Start the run with torchrun, accelerate launch, deepspeed or srun, and only once."
        )
    on_gpu = f"{socket.gethostname()} {gpu_of()}" if device.type == "cuda" else None
    store.set(f"segwright/place/{launch.rank}", on_gpu or f"process {launch.rank}")
    everyone = [f"segwright/place/{rank}" for rank in range(launch.processes)]
    ends = time.monotonic() + MEETING_S
    while not store.check(everyone):
        if time.monotonic() > ends:
            absent = [rank for rank, key in enumerate(everyone) if not store.check([key])]
            raise ConfigError(
                f"the launcher speaks of {launch.processes} processes, but after {MEETING_S:g} s there is none "
                f"with the rank {', '.join(map(str, absent))}. Start as many as WORLD_SIZE says, or unset "
                "RANK and WORLD_SIZE."
            )
        time.sleep(0.05)
    places = [store.get(key).decode() for key in everyone]
    if len(set(places)) < len(places):
        raise ConfigError(
            f"of the {launch.processes} processes some share one GPU ({', '.join(places)}). Start one process a GPU, "
            "or set train.device=cpu."
        )


def gpu_of() -> str:
    """The identity of the GPU that this process will use."""
    return str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)


def use_gpu(launch: Launch) -> None:
    """Makes this process's GPU the current one, also for those who go by LOCAL_RANK."""
    index = gpu_index(launch)
    torch.cuda.set_device(index)
    if launch.processes > 1:
        os.environ["LOCAL_RANK"] = str(index)


def gpu_index(launch: Launch) -> int:
    """Which of the GPUs that this process sees is its own: a batch system may show each process its own alone.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    seen = torch.cuda.device_count()
    if seen == 1 and launch.local_processes > 1 and os.environ.get("CUDA_VISIBLE_DEVICES", ""):
        return 0
    if launch.local_rank >= seen:
        raise ConfigError(
            f"{launch.local_processes} processes were started on this machine, but it has {seen} GPUs. Start one "
            "process a GPU, or set train.device=cpu."
        )
    return launch.local_rank
