"""DeepSpeed's ZeRO stages 1 and 2: the optimizer's state (1), and the gradients too (2), are split over the processes.

Rajbhandari et al. 2020, "ZeRO", https://arxiv.org/abs/1910.02054; https://github.com/deepspeedai/DeepSpeed
(Apache-2.0), used as a library. The weights stay whole and in float32 on
every process: precision is autocast's, as without ZeRO, so that a checkpoint is the same file in every mode. Only
this file knows DeepSpeed.
"""

import contextlib
import importlib.util
import io
import logging
import math
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from segwright.engine.processes import Group
from segwright.errors import ConfigError, MissingPackageError, WeightsError
from segwright.files import write_atomic
from segwright.launch import Launch

FOLDER = "last.engine"
"""Beside `last.pth`: one folder a save, in it one file a process."""


def require(wanted: str) -> None:
    """Raises `MissingPackageError` where DeepSpeed is not installed."""
    if importlib.util.find_spec("deepspeed") is None:
        raise MissingPackageError("deepspeed", f"train.distributed={wanted}", "deepspeed")


def shard(model: nn.Module, optimizer: torch.optim.Optimizer, stage: int) -> tuple[nn.Module, "ShardedOptimizer"]:
    """DeepSpeed's engine around the model, and its optimizer with the loop's usual methods."""
    if not dist.is_initialized():
        group_of_one(next(model.parameters()).device)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints, on every process
        import deepspeed

        deepspeed.utils.logger.setLevel(logging.ERROR)
        # An all-reduce through shared memory, compiled for a minute at a CPU's first run, is not worth its compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings(model, stage))
    if engine.zero_optimization_stage() != stage:
        raise ConfigError(
            f"ZeRO stage {stage} was asked for, but DeepSpeed made stage {engine.zero_optimization_stage()}. "
            "Set train.distributed=ddp, and tell us DeepSpeed's version."
        )
    return engine, ShardedOptimizer(engine, optimizer)


def group_of_one(device: torch.device) -> None:
    """DeepSpeed wants a process group, and its launcher's variables, also of a process that shares with nobody."""
    os.environ.update(Launch().variables())
    backend = "gloo" if device.type == "cpu" else "nccl"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def settings(model: nn.Module, stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration. Batches and their accumulation are counted by the loop, clipping set at each step."""
    elements = sum(parameter.numel() for parameter in model.parameters())
    bucket = min(elements + elements % 2, 500_000_000)  # even, as it wants; its default, the latter, is 2 GB of buffer
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "steps_per_print": None,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket},
    }


class ShardedOptimizer(torch.optim.Optimizer):
    """The part of the optimizer that this process holds, with the methods that loops and schedules call."""

    def __init__(self, engine: Any, base: torch.optim.Optimizer) -> None:
        self._engine, self._zero, self._base = engine, engine.optimizer, base
        self._trained = {
            id(group["params"][0]): list(parameters)
            for group, parameters in zip(base.param_groups, self._zero.bit16_groups, strict=True)
        }
        self._named: int | None = None
        """The save that the `last.pth` names which stands now."""
        base.register_step_pre_hook(self._leave_frozen)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups with this process's flat parts as their parameters; a schedule sets their rates."""
        return self._base.param_groups

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """As the optimizer was made."""
        return self._base.defaults

    @property
    def state(self) -> Any:  # type: ignore[override]
        """Moments of this process's parts."""
        return self._base.state

    def _leave_frozen(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """ZeRO gives frozen parameters a gradient of zeros, and weight decay and the count of steps would go on."""
        for group in optimizer.param_groups:
            for flat in group["params"]:
                if not any(parameter.requires_grad for parameter in self._trained[id(flat)]):
                    flat.grad = None

    @contextlib.contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Gradients are added up over the processes on the last batch of a step."""
        self._engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        """Adds the loss's gradient."""
        self._engine.backward(loss)

    def clip(self, max_norm: float) -> float:
        """The norm of all gradients of all processes, not a number where one is not finite; `step` then scales them so
        that it is at most `max_norm`."""
        self._zero.clip_grad = 0.0 if math.isinf(max_norm) else max_norm
        norm = float(self._zero.scaled_global_norm())
        return norm if norm >= 0 else math.nan  # DeepSpeed says -1

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Each process moves its part, and all get the others'."""
        self._engine.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients, also those of a step that was left out."""
        zero = self._zero
        zero.zero_grad(set_to_none=True)
        for held in (zero.averaged_gradients, zero.all_grad_tensors):
            for key in held:
                held[key] = None

    def save(self, folder: Path, group: Group) -> dict[str, Any]:
        """Writes every process's part beside what stands there, and gives what `last.pth` must say to find it again.

        The save that the `last.pth` names which still stands is kept; others go.
        """
        number = group.broadcast(max(saves(folder), default=0) + 1)
        if group.rank == 0:
            for old in set(saves(folder)) - {self._named}:
                shutil.rmtree(folder / FOLDER / str(old), ignore_errors=True)
        group.wait()  # none of the new parts may be there when the old ones go
        write_atomic(part(folder, number, group.rank), lambda file: torch.save(self._base.state_dict(), file))
        group.wait()
        self._named = number
        return {"parts": group.processes, "save": number}

    def restore(self, folder: Path, state: dict[str, Any], group: Group) -> None:
        """Puts back this process's part, after the weights. Raises `ConfigError`, `WeightsError`."""
        if "parts" not in state:
            raise ConfigError(
                "the run was saved without ZeRO, so its optimizer lies in one piece. Go on with the train.distributed "
                "that it began with."
            )
        if state["parts"] != group.processes:
            raise ConfigError(
                f"the optimizer was saved in {state['parts']} parts by as many processes, and {group.processes} were "
                f"started now. Start {state['parts']}."
            )
        path = part(folder, state["save"], group.rank)
        if not path.is_file():
            raise WeightsError(f"{path} is missing, a part of the optimizer's state. Restore it, or train anew.")
        try:
            own = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            raise WeightsError(f"{path}, a part of the optimizer's state, is damaged. Restore it.") from error
        self._base.load_state_dict(own)
        self._zero.refresh_fp32_params()
        self._named = state["save"]


def saves(folder: Path) -> list[int]:
    """The numbers of the saves that lie in a run's folder, the newest last."""
    return sorted(int(path.name) for path in (folder / FOLDER).glob("*") if path.name.isdigit())


def part(folder: Path, number: int, rank: int) -> Path:
    """The file of one process."""
    return folder / FOLDER / str(number) / f"part-{rank}.pth"
