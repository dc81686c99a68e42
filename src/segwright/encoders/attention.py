"""Scaled dot-product attention, by whichever of PyTorch's ways is quickest for the type and the processor.

On a CPU in bfloat16 plain products are 1.7 times as fast as PyTorch's fused attention (AMD EPYC with avx512_bf16, two
threads, first stage of mit_b0, batch 2 at 512 x 512, forward and backward: 22 ms, and 36 fused in fp32); in fp32 the
fused one is faster.

Products round the scores to bfloat16, so their own result is less exact: of scores with a standard deviation of 1, 4
and 10 it is off by 0.5, 1.0 and 1.4 %, fused by 0.2 %. A model's is not: what else is rounded outweighs it. The logits
of segformer_b0, its weights scaled to such scores, are 0.77 to 0.83 % off fp32 both ways, those of transformers in
bfloat16 0.81 to 0.86 %, and the gradients 3.8 to 4.1 % both ways.

Shapes: B batch, N queries, M keys, d channels of a head.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MOST_BYTES = 64 * 2**20
"""Of the scores of one attention, which training keeps for every block; fused attention keeps none. 8 images of
512 x 512 px in the first stage of mit_b0."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(d)) value: (B, heads, N, d), (B, heads, M, d) twice -> (B, heads, N, d)."""
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or recorded:
        return F.scaled_dot_product_attention(query, key, value)
    if math.prod(query.shape[:-1]) * key.shape[-2] * query.element_size() <= MOST_BYTES:
        return (query @ (key * query.shape[-1] ** -0.5).transpose(-1, -2)).softmax(dim=-1) @ value
    if not query.requires_grad:
        return F.scaled_dot_product_attention(query, key, value)
    with torch.autocast("cpu", enabled=False):  # backward, PyTorch's own bfloat16 is no faster and rounds more
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(query.dtype)
