"""Precision, memory and threads of this process.

On a CPU, `amp` means bfloat16 where the processor multiplies it in hardware, else float32: emulated it is slower. On a
GPU it means bfloat16 where the GPU has it, else float16 with a gradient scaler.
"""

import ctypes
import logging
import os
import sys
from functools import cache
from pathlib import Path

import torch

from segwright.ahead import cores
from segwright.launch import Launch

log = logging.getLogger("segwright")

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt(3), from malloc.h."""


def precision(amp: bool, on_cpu: bool) -> str:
    """Accelerate's word for the precision: `no`, `bf16` or `fp16`."""
    if not amp:
        return "no"
    if not on_cpu:
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if cpu_has_bf16() else "no"


@cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX), by what Linux says of it."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return False
    words = set(info.read_text(errors="replace").split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


@cache
def keep_memory() -> bool:
    """Tells glibc to keep freed memory: giving large tensors back to the kernel after each step costs a quarter of a
    CPU step in page faults. Works only before the first large allocation. True where it took effect."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # Older glibc refuses more than 32 MiB; where it refuses even that, the rest would do harm.
    if not any(mallopt(M_MMAP_THRESHOLD, size) == 1 for size in (1 << 30, 32 << 20)):
        return False
    return mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1) == 1 and mallopt(M_TOP_PAD, 256 << 20) == 1


def share_cores(launch: Launch) -> None:
    """Threads for this process's part of the machine, unless OMP_NUM_THREADS says how many."""
    if launch.processes == 1 or os.environ.get("OMP_NUM_THREADS"):
        return
    of_task = os.environ.get("SLURM_CPUS_PER_TASK", "") if launch.by == "srun" else ""
    own = int(of_task) if of_task.isdigit() else max(1, cores() // launch.local_processes)
    os.environ["OMP_NUM_THREADS"] = str(own)
    torch.set_num_threads(own)
