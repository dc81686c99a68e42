"""Accelerate and DeepSpeed behind the few methods that the loop calls."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import Tensor, nn

from segwright.engine import zero
from segwright.engine.asked import agrees_with_launcher, sharing
from segwright.engine.averaging import Averaging
from segwright.engine.precision import keep_memory, precision, share_cores
from segwright.engine.processes import Group, use_gpu
from segwright.errors import ConfigError
from segwright.launch import Launch, launched

log = logging.getLogger("segwright")


class Engine:
    """Wraps what the loop needs: prepare, autocast, backward, clip; and what the processes do in common."""

    def __init__(
        self,
        amp: bool = True,
        device: str | None = None,
        distributed: str = "none",
        accumulate: int = 1,
        processes: int | None = None,
    ) -> None:
        """Waits for the other processes where there are some.

        device: `cpu`, `cuda`, or None for the GPU if there is one.
        distributed: one of `SHARING`.
        accumulate: batches whose mean gradient makes a step.
        processes: how many there must be.

        Raises:
            ConfigError: a GPU, processes, a precision or a kind of sharing that was asked for is not to be had.
            MissingPackageError: DeepSpeed is not installed.
        """
        launch = launched()
        self.distributed = sharing(distributed, launch, processes)
        on_cpu = device == "cpu" or not torch.cuda.is_available()
        if device == "cuda" and on_cpu:
            raise ConfigError("train.device is cuda, but torch sees no GPU. Leave it out, or set train.device=cpu.")
        self.precision, self.accumulate = precision(amp, on_cpu), accumulate
        agrees_with_launcher(self.precision, self.distributed, device)
        if on_cpu:
            keep_memory()
            share_cores(launch)
        else:
            use_gpu(launch)
        self.device = torch.device("cpu") if on_cpu else torch.device("cuda", torch.cuda.current_device())
        self._group = Group(launch, self.device)
        self.rank, self.processes = launch.rank, launch.processes
        self._sharded: zero.ShardedOptimizer | None = None
        self._accelerator = accelerator(on_cpu, self.precision, launch)
        if not self.is_main:
            log.setLevel(logging.ERROR)

    @property
    def is_main(self) -> bool:
        """Whether this process writes, logs and draws."""
        return self.rank == 0

    def prepare(self, model: nn.Module, optimizer: Any = None) -> Any:
        """The model on the device (channels-last) and the optimizer, wrapped; without an optimizer the model alone, for
        forward passes of this process."""
        if self.processes > 1 and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        sharded = optimizer is not None and self.distributed.startswith("zero")
        order = torch.contiguous_format if sharded else torch.channels_last  # DeepSpeed makes all weights flat
        whole = self._accelerator.prepare_model(model.to(memory_format=order), evaluation_mode=True)
        if optimizer is None:
            return whole
        if sharded:
            engine, self._sharded = zero.shard(whole, optimizer, stage=int(self.distributed[-1]))
            return engine, self._sharded
        shared = Averaging(whole, self.device) if self.distributed == "ddp" else whole
        return shared, self._accelerator.prepare_optimizer(optimizer)

    def unwrap(self, model: nn.Module) -> nn.Module:
        """The model as it was built, with autocast: for its state dict, and for forward passes of one process alone."""
        bare: nn.Module = model.module if isinstance(model, Averaging) or self._sharded else model  # type: ignore[assignment]
        return bare

    def share_buffers(self, model: nn.Module) -> None:
        """The main process's batch norm statistics into the model of all: those that a checkpoint holds."""
        self._group.share(list(model.buffers()))

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of `loss / accumulate`, scaled where float16 needs it."""
        part = loss / self.accumulate if self.accumulate > 1 else loss
        if self._sharded:
            self._sharded.backward(part)
        else:
            self._accelerator.backward(part)

    @contextmanager
    def accumulating(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Forward and backward of one batch; the processes exchange gradients on a step's last alone, which then holds
        the mean over the processes."""
        if self._sharded:
            self.share_buffers(model)
            context: AbstractContextManager[Any] = self._sharded.accumulating(last)
        else:
            context = model.apart() if isinstance(model, Averaging) and not last else nullcontext()
        with context:
            yield

    def clip(self, parameters: Iterable[Tensor], max_norm: float) -> float:
        """Scales all gradients so that their common norm is at most `max_norm`. Gives the norm that they had."""
        if self._sharded:
            return self._sharded.clip(max_norm)
        return float(self._accelerator.clip_grad_norm_(parameters, max_norm))

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, on all of them."""
        return self._group.sum(value)

    def any(self, flag: bool) -> bool:
        """Whether it is true on one of the processes."""
        return self._group.any(flag)

    def broadcast(self, value: Any) -> Any:
        """What the main process gave (a plain value), on all."""
        return self._group.broadcast(value)

    def wait(self) -> None:
        """Until all processes are here."""
        self._group.wait()

    def first(self) -> AbstractContextManager[None]:
        """The main process goes through this block before the others do: they find what it made."""
        return self._group.first()

    def together(self) -> AbstractContextManager[None]:
        """An error that ends one process within this block ends all, and all say it."""
        return self._group.together()

    def optimizer_state(self, optimizer: Any, folder: Path) -> dict[str, Any]:
        """What belongs into `last.pth`; called on all processes. Under ZeRO the state lies beside it."""
        if isinstance(optimizer, zero.ShardedOptimizer):
            return optimizer.save(folder, self._group)
        state: dict[str, Any] = optimizer.state_dict()
        return state

    def load_optimizer_state(self, optimizer: Any, state: dict[str, Any], folder: Path) -> None:
        """Puts back what `optimizer_state` gave, after the weights; called on all processes. Raises `ConfigError`."""
        if isinstance(optimizer, zero.ShardedOptimizer):
            optimizer.restore(folder, state, self._group)
        elif "parts" in state:
            raise ConfigError(
                f"the run was saved under ZeRO, its optimizer in {state['parts']} parts in {folder / zero.FOLDER}. Go "
                f"on with the train.distributed that it began with, and {state['parts']} processes."
            )
        else:
            optimizer.load_state_dict(state)

    @property
    def overflows(self) -> bool:
        """Whether a gradient that is not finite is the scaler's business (float16), who then skips the step itself."""
        return self._accelerator.scaler is not None

    def state_dict(self) -> dict[str, Any]:
        """The gradient scaler's state; empty without one."""
        return self._accelerator.scaler.state_dict() if self._accelerator.scaler is not None else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the gradient scaler back."""
        if self._accelerator.scaler is not None and state:
            self._accelerator.scaler.load_state_dict(state)


def accelerator(on_cpu: bool, precision: str, launch: Launch) -> Accelerator:
    """Accelerate for this process, or `ConfigError` where it is not what was asked of it."""
    AcceleratorState._reset_state(True)  # else a second run in one process could not have another precision
    told = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("ACCELERATE_")}
    try:  # its variables would change precision, sharing or device behind our back
        made = Accelerator(cpu=on_cpu, mixed_precision=precision)
    finally:
        os.environ.update(told)
    alone = launch.processes == 1
    kinds = {DistributedType.NO} if alone else {DistributedType.MULTI_CPU if on_cpu else DistributedType.MULTI_GPU}
    if alone and launch.by != "nobody":
        kinds |= {DistributedType.MULTI_CPU, DistributedType.MULTI_GPU}
    got = (made.num_processes, made.process_index, made.mixed_precision)
    if got != (launch.processes, launch.rank, precision) or made.distributed_type not in kinds:
        raise ConfigError(
            f"asked for process {launch.rank} of {launch.processes} in {precision}, but Accelerate made process "
            f"{got[1]} of {got[0]} in {got[2]} ({made.distributed_type.value}). Start the run with torchrun or srun, "
            "and tell us Accelerate's version."
        )
    return made
