"""Gradient checkpointing: parts of an encoder are computed again in the backward pass instead of being kept.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", https://arxiv.org/abs/1604.06174
Which parts is the model's own choice: a Mix Transformer's and a ViT's blocks, the stages of most others.
"""

from functools import partial
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from segwright.errors import ConfigError


def recompute(net: Any, name: str) -> None:
    """Turns it on for timm's `net`; `name` is for the message. `ConfigError`: the model has none."""
    target = net if hasattr(net, "set_grad_checkpointing") else getattr(net, "model", net)
    try:
        target.set_grad_checkpointing(enable=True)
    except (AssertionError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"encoder.grad_checkpointing is true, but the encoder '{name}' has no gradient checkpointing. Leave it "
            "off; a smaller batch or input.size needs less memory too."
        ) from error
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_still)
            module.register_forward_hook(partial(_moving, module.momentum), always_call=True)


def _still(norm: Any, _: Any) -> None:
    """A batch norm that is computed a second time must not count its batch twice."""
    if norm.training and torch._C._current_graph_task_id() != -1:  # -1: not within a backward pass
        norm.momentum = 0.0
        norm.num_batches_tracked -= 1


def _moving(momentum: float | None, norm: Any, *_: Any) -> None:
    norm.momentum = momentum
