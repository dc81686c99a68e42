"""A moving average of the weights, which generalises better than the last ones.

Polyak and Juditsky 1992, https://doi.org/10.1137/0330046, in the exponential form of Tarvainen and Valpola 2017,
https://arxiv.org/abs/1703.01780: average = d average + (1 - d) weights after each step, with
d = min(decay, (1 + n) / (10 + n)) at step n, so that the first weights are soon forgotten.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """Of all floating-point parameters and buffers of a model, batch-norm statistics among them."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._weights = {name: tensor.detach().clone() for name, tensor in _floats(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """After each step that was taken."""
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        current = _floats(model)
        torch._foreach_lerp_([*self._weights.values()], [current[name].detach() for name in self._weights], share)

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """Within this, the model has the averaged weights."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, tensor in _floats(model).items():
            kept = tensor.detach().clone()
            tensor.copy_(self._weights[name])
            self._weights[name].copy_(kept)

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """A state dict of the model: the averages, and what cannot be averaged as it is."""
        return {**model.state_dict(), **self._weights}

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor], updates: int) -> None:
        """Puts back what `weights` gave after so many updates."""
        self.updates = updates
        for name, tensor in self._weights.items():
            tensor.copy_(weights[name])


def _floats(model: nn.Module) -> dict[str, Any]:
    """The model's own tensors, not copies."""
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
