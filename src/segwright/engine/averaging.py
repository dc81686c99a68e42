"""DDP over the parameters that are trained just now.

Torch's DDP holds those that it found when it was made, so a frozen encoder that thaws would not be exchanged. The flag
that lets it look for unused parameters costs a walk through the graph in every step, and says so on every process.
"""

import gc
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn


class Averaging(nn.Module):
    """The model, whose gradients are the mean over all processes after a backward pass."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module = module
        self._gpus = [device.index] if device.type == "cuda" else None
        self._held: list[nn.parallel.DistributedDataParallel] = []  # in a list, so that it is no part of this module
        self._trained: list[bool] = []

    def forward(self, *args: Any, **options: Any) -> Any:
        """The model's own."""
        return self._current()(*args, **options)

    def apart(self) -> AbstractContextManager[None]:
        """Within this, gradients stay on their process."""
        return self._current().no_sync()

    def _current(self) -> nn.parallel.DistributedDataParallel:
        """DDP, made anew where other parameters are trained than before; so on all processes at the same step."""
        trained = [parameter.requires_grad for parameter in self.module.parameters()]
        if trained != self._trained:
            self._held.clear()
            gc.collect()  # its buckets are as large as the gradients
            self._held.append(nn.parallel.DistributedDataParallel(self.module, device_ids=self._gpus))
            self._trained = trained
        return self._held[0]
