"""What was asked for, and whether the launcher has given it: how many processes, and how they share the work.

`accelerate launch` tells through ACCELERATE_* variables
(https://huggingface.co/docs/accelerate/package_reference/launchers), which may contradict the config.
"""

import os

import torch

from segwright.engine import zero
from segwright.errors import ConfigError, nearest
from segwright.launch import Launch, alone_among

SHARING = ("auto", "auto_zero1", "auto_zero2", "none", "ddp", "zero1", "zero2")
"""How processes share a run. Those with `auto`: as many as were started, perhaps one; `auto` itself by DDP, or as
`accelerate launch --use_deepspeed` was told."""


def sharing(wanted: str, launch: Launch, processes: int | None) -> str:
    """`none`, `ddp`, `zero1` or `zero2`: what `wanted` means for the processes that were started.

    Raises:
        ConfigError: it cannot be had with them, or they are not as many as `processes`.
    """
    if wanted not in SHARING:
        raise ConfigError(f"train.distributed is '{wanted}', which is not known.{nearest(wanted, SHARING)}")
    started = launch.processes
    if processes is not None and started != processes:
        raise ConfigError(
            f"train.processes is {processes}, but {started} take part: the launcher started fewer or more, or each by "
            f"itself. Start the run with torchrun --nproc-per-node={processes}, or with srun."
        )
    if wanted == "none" and started > 1:
        raise ConfigError(
            f"{started} processes were started for what one does alone; each would do all of it. Start it without a "
            "launcher, or, to train, set train.distributed=auto."
        )
    if wanted != "none" and (tasks := alone_among()) > 1 and processes is None:
        raise ConfigError(
            f"Slurm gave this job {tasks} tasks, but the run was not started by srun, so one process would train. "
            "Put srun before the command, or set train.processes=1."
        )
    if wanted in ("ddp", "zero1", "zero2") and started == 1 and processes is None:
        raise ConfigError(
            f"train.distributed is {wanted}, but this process is alone. Start it with torchrun --nproc-per-node=N or "
            "srun; for one process set train.distributed=none, or train.processes=1 if it shall share with nobody."
        )
    return settled(wanted, started)


def settled(wanted: str, started: int) -> str:
    """`sharing` without its questions."""
    if wanted == "auto":
        wanted = "auto_" + (of_accelerate_launch() or "ddp")
    kind = wanted.removeprefix("auto_")
    if kind == "ddp" or wanted.startswith("auto_"):
        kind = kind if started > 1 else "none"
    if kind.startswith("zero"):
        zero.require(kind)
    return kind


def of_accelerate_launch() -> str | None:
    """The kind of sharing that `accelerate launch` was told by its flags or its own file. Raises `ConfigError`."""
    for name in ("FSDP", "MEGATRON_LM"):
        if flag(f"ACCELERATE_USE_{name}"):
            raise ConfigError(
                f"accelerate launch was told to use {name}, which this does not do. Choose DDP, or DeepSpeed's ZeRO "
                "stage 1 or 2 (--use_deepspeed --zero_stage 1)."
            )
    if not flag("ACCELERATE_USE_DEEPSPEED"):
        return None
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if stage not in ("1", "2"):
        raise ConfigError(f"accelerate launch was told ZeRO stage {stage}; there are 1 and 2. Give --zero_stage 1.")
    return f"zero{stage}"


def agrees_with_launcher(own: str, kind: str, device: str | None) -> None:
    """Raises `ConfigError` where `accelerate launch` was told another precision, device or kind of sharing."""
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if told not in ("no", own):
        raise ConfigError(
            f"accelerate launch was told --mixed_precision {told}, but this run computes in "
            f"{'float32' if own == 'no' else own} (train.amp and the device decide). Leave the flag out."
        )
    if flag("ACCELERATE_USE_CPU") and device != "cpu" and torch.cuda.is_available():
        raise ConfigError("accelerate launch was told --cpu, but train.device is not. Set train.device=cpu as well.")
    if kind == "zero1" or kind == "zero2":
        if (asked := of_accelerate_launch()) not in (None, kind):
            raise ConfigError(f"accelerate launch was told {asked}, but train.distributed is {kind}. Say one of them.")
        if own == "fp16":
            raise ConfigError(
                "this GPU has no bfloat16, so train.amp means float16, which ZeRO does not do here. "
                "Set train.distributed=ddp, or train.amp=false."
            )


def flag(name: str) -> bool:
    """Whether a variable of the environment says yes."""
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
