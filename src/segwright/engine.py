"""Where a run computes: device, precision, memory. The only file that knows Accelerate.

One process. On a CPU, `amp` means bfloat16 where the processor multiplies it in hardware, else float32: emulated it is
slower. On a GPU it means bfloat16 where the GPU has it, else float16 with a gradient scaler.
"""

import ctypes
import logging
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from segwright.errors import ConfigError

log = logging.getLogger("segwright")

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt(3), from malloc.h."""


class Engine:
    """Wraps what the loop needs of Accelerate: prepare, autocast, backward, clip."""

    def __init__(self, amp: bool = True, device: str | None = None) -> None:
        """`device`: `cpu`, `cuda`, or None for the GPU if there is one. Raises `ConfigError` for a GPU that is not."""
        on_cpu = device == "cpu" or not torch.cuda.is_available()
        if device == "cuda" and on_cpu:
            raise ConfigError("train.device is cuda, but torch sees no GPU. Leave it out, or set train.device=cpu.")
        self.precision = precision(amp, on_cpu)
        if on_cpu:
            keep_memory()
        AcceleratorState._reset_state(True)  # else a second run in one process could not have another precision
        self._accelerator = Accelerator(cpu=on_cpu, mixed_precision=self.precision)
        self.device = self._accelerator.device

    def prepare(self, *objects: Any) -> Any:
        """The model on the device (channels-last) and the optimizer, wrapped."""
        objects = tuple(
            thing.to(memory_format=torch.channels_last) if isinstance(thing, nn.Module) else thing for thing in objects
        )
        return self._accelerator.prepare(*objects)

    def unwrap(self, model: nn.Module) -> nn.Module:
        """The model as it was built, for its state dict."""
        return self._accelerator.unwrap_model(model)

    def backward(self, loss: Tensor) -> None:
        """The gradient of a loss, scaled where float16 needs it."""
        self._accelerator.backward(loss)

    def clip(self, parameters: Iterable[Tensor], max_norm: float) -> float:
        """Scales all gradients so that their common norm is at most `max_norm`. Gives the norm that they had."""
        return float(self._accelerator.clip_grad_norm_(parameters, max_norm))

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


def precision(amp: bool, on_cpu: bool) -> str:
    """Accelerate's word for the precision: `no`, `bf16` or `fp16`."""
    if not amp:
        return "no"
    if not on_cpu:
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if cpu_has_bf16():
        return "bf16"
    log.info("AMP: this processor has no bfloat16 instructions, so the run uses float32")
    return "no"


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
