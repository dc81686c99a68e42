"""Scaled dot-product attention, by whichever of PyTorch's ways is quickest for the type and the processor.

On a CPU in bfloat16 plain products are 1.7 times as fast as PyTorch's fused attention (AMD EPYC with avx512_bf16, two
threads, first stage of mit_b0, batch 2 at 512 x 512, forward and backward: 22 ms, and 36 fused in fp32); in fp32 the
fused one is faster.

Products round the scores to bfloat16, so their own result is less exact: of scores with a standard deviation of 1, 4
and 10 it is off by 0.5, 1.0 and 1.4 %, fused by 0.2 %. A model's is not: what else is rounded outweighs it. The logits
of segformer_b0, its weights scaled to such scores, are 0.77 to 0.83 % off fp32 both ways, those of transformers in
bfloat16 0.81 to 0.86 %, and the gradients 3.8 to 4.1 % both ways.

Where no gradients are taken, the products are made of a few queries at a time, so that their scores stay in the cache
from one product to the other: in fp32 on an AMD EPYC with AVX2, two threads, 9.1 ms instead of 15.1 in the first stage
of mit_b0 at 512 x 512, 5.8 instead of 8.2 in the second. Not yet measured in bfloat16.

Shapes: B batch, N queries, M keys, d channels of a head.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MOST_BYTES = 64 * 2**20
"""Of the scores of one attention, which training keeps for every block; fused attention keeps none. 8 images of
512 x 512 px in the first stage of mit_b0."""

CHUNK_BYTES = 2**20
"""Of the scores of one chunk of queries. Measured: 1 and 2 MiB are alike, 0.5 and 4 a tenth slower."""
LEAST_QUERIES = 64
"""Of a chunk, for each head: fewer would be too many small products."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(d)) value: (B, heads, N, d), (B, heads, M, d) twice -> (B, heads, N, d)."""
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or recorded:
        return F.scaled_dot_product_attention(query, key, value)
    if not torch.is_grad_enabled():
        return _by_chunks(query, key, value)
    if math.prod(query.shape[:-1]) * key.shape[-2] * query.element_size() <= MOST_BYTES:
        return _products(query, _scaled(key), value)
    if not query.requires_grad:
        return F.scaled_dot_product_attention(query, key, value)
    with torch.autocast("cpu", enabled=False):  # backward, PyTorch's own bfloat16 is no faster and rounds more
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(query.dtype)


def _scaled(key: Tensor) -> Tensor:
    """(B, heads, M, d) -> (B, heads, d, M), divided by sqrt(d)."""
    return (key * key.shape[-1] ** -0.5).transpose(-1, -2)


def _products(query: Tensor, keys: Tensor, value: Tensor) -> Tensor:
    return (query @ keys).softmax(dim=-1) @ value


def _by_chunks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same as one product, in memory as (B, N, heads, d): without gradients."""
    batch, heads, length, _ = query.shape
    keys = _scaled(key)
    of_one_query = batch * heads * key.shape[-2] * query.element_size()
    step = max(LEAST_QUERIES, CHUNK_BYTES // of_one_query)
    mixed = value.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)
    for start in range(0, length, step):
        chunk = slice(start, start + step)
        mixed[:, :, chunk] = _products(query[:, :, chunk], keys, value)
    return mixed
