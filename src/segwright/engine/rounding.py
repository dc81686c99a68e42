"""A transformer's weights in half precision for good, where a model only infers.

Autocast rounds every weight anew in every call. What it gives is kept here instead: the same logits to the last bit,
and half the memory for the weights. Only in Mix Transformers and plain ViTs, whose layers are many beside the work, and
known to use their weights for nothing but the products that autocast rounds for: other nets of timm make positions, or
whole layers, from the weights' type.
"""

import torch
from torch import nn

from segwright.encoders.mit import BlockConv2d, MixTransformer
from segwright.encoders.vit import PlainVit

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What `precision.precision` calls them."""
NETS = (MixTransformer, PlainVit)
LAYERS = {nn.Linear, nn.Conv2d, BlockConv2d}
"""Exact types: a subclass may do more with its weights than multiply by them."""


def round_weights(model: nn.Module, precision: str) -> None:
    """Rounds in place what autocast would round in each call; nothing in full precision. Afterwards the model can no
    longer be trained, saved in full precision, or run without autocast."""
    dtype = HALVES.get(precision)
    nets = [module for module in model.modules() if isinstance(module, NETS)]
    for layer in (layer for net in nets for layer in net.modules()):
        if dtype is not None and type(layer) in LAYERS:
            layer.to(dtype)
