"""Two steps at once, where a CPU only infers: oneDNN adds a GELU or a sum to what it has just computed, while that is
still in the cache. Measured on mit_b0 at 512 x 512: 5 % of the whole inference in fp32, more in bfloat16.

PyTorch has these products as the operators that its own compiler makes of the plain ones; where they are absent, and
wherever gradients are taken, a layer is wrapped, or the code is recorded, the plain steps run.

Shapes: B batch, N tokens, C channels.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HAVE = hasattr(torch.ops.mkldnn, "_convolution_pointwise") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
KINDS = {torch.float32}
"""What these operators compute in; they raise an error in bfloat16 on a processor without instructions for it."""
if HAVE and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    KINDS.add(torch.bfloat16)


def conv_gelu(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """gelu(conv(maps)): (B, C_in, H, W) -> (B, C, h, w)."""
    dtype = _fusible(conv, maps, nn.Conv2d)
    if dtype is None or isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return F.gelu(conv(maps))
    weight, bias = _as(conv, dtype)
    shape = (conv.padding, conv.stride, conv.dilation, conv.groups)
    fused: Tensor = torch.ops.mkldnn._convolution_pointwise(maps.to(dtype), weight, bias, *shape, "gelu", [], "none")
    return fused


def add_linear(onto: Tensor, layer: nn.Module, x: Tensor) -> Tensor:
    """onto + layer(x): (B, N, C) and (B, N, C_in) -> (B, N, C)."""
    dtype = _fusible(layer, x, nn.Linear)
    if dtype is None or onto.dtype != dtype:  # the sum would be rounded to the product's type
        return onto + layer(x)
    assert isinstance(layer, nn.Linear)
    fused: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x.to(dtype), onto, *_as(layer, dtype), "add")
    return fused


def _as(layer: nn.Linear | nn.Conv2d, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)


def _fusible(layer: nn.Module, x: Tensor, kind: type[nn.Module]) -> torch.dtype | None:
    """The type to compute in; None where the plain steps must run."""
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if not HAVE or recorded or torch.is_grad_enabled() or x.device.type != "cpu" or not torch.backends.mkldnn.enabled:
        return None
    if type(layer) is not kind or layer._forward_hooks or layer._forward_pre_hooks:
        return None
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return dtype if dtype in KINDS and x.numel() else None


def _flops(x_shape: Any, other_shape: Any, *shapes: Any, out_shape: Any, **_: Any) -> int:
    """Of a product whose weights are (C_out, ...): two for each weight of a channel and value that comes out."""
    weight = other_shape if len(other_shape) == 4 else shapes[0]
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


FUSED_FLOPS = (
    {
        torch.ops.mkldnn._convolution_pointwise: _flops,
        torch.ops.mkldnn._linear_pointwise: _flops,
    }
    if HAVE
    else {}
)
"""For `torch.utils.flop_counter`, which does not know these operators."""
