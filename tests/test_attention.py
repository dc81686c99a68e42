"""Attention gives what PyTorch's gives in double precision, by products and fused, gradients included."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segwright.encoders import attention
from segwright.encoders.attention import attend

BF16_ROUNDING = 0.01
"""Relative to the norm: several roundings, each of 0.002 at most."""


def heads(length: int, dtype: torch.dtype) -> Tensor:
    """(2, 3, length, 32) as attention gets it: a view of tokens with the heads side by side."""
    return torch.randn(2, length, 3, 32).to(dtype).transpose(1, 2)


def with_gradients(call: object, *given: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in given]
    mixed = call(*leaves)  # type: ignore[operator]
    mixed.backward(torch.linspace(-1, 1, mixed.numel(), dtype=mixed.dtype).view(mixed.shape))
    return [mixed.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("most_bytes", [0, attention.MOST_BYTES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keys", [7, 50])
def test_equals_double_precision(
    monkeypatch: pytest.MonkeyPatch, most_bytes: int, dtype: torch.dtype, keys: int
) -> None:
    monkeypatch.setattr(attention, "MOST_BYTES", most_bytes)
    given = heads(50, dtype), heads(keys, dtype), heads(keys, dtype)
    exact = with_gradients(F.scaled_dot_product_attention, *(x.double() for x in given))
    ours = with_gradients(attend, *given)
    assert len(ours) == 4
    for own, right in zip(ours, exact, strict=True):
        assert own.dtype == dtype
        most = BF16_ROUNDING if dtype == torch.bfloat16 else 1e-5
        assert (own.double() - right).norm() / right.norm() < most


@pytest.mark.parametrize("most_bytes", [0, attention.MOST_BYTES])
def test_autocast_changes_no_type(monkeypatch: pytest.MonkeyPatch, most_bytes: int) -> None:
    """Autocast makes a softmax fp32, at twice the memory, and a fused product of fp32 bfloat16 again."""
    monkeypatch.setattr(attention, "MOST_BYTES", most_bytes)
    query = heads(5, torch.bfloat16).requires_grad_()
    plain = attend(query, query, query)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attend(query, query, query), plain)


def test_few_scores_are_products_and_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fused: list[torch.dtype] = []
    known = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: fused.append(q.dtype) or known(q, k, v))
    x = heads(9, torch.bfloat16)  # 2 images, 3 heads, 9 x 9 scores of 2 bytes
    monkeypatch.setattr(attention, "MOST_BYTES", 2 * 3 * 9 * 9 * 2)
    attend(x, x, x)
    assert fused == []
    monkeypatch.setattr(attention, "MOST_BYTES", 2 * 3 * 9 * 9 * 2 - 1)
    attend(x, x, x)
    attend(x.requires_grad_(), x, x)
    attend(x.float(), x.float(), x.float())
    assert fused == [torch.bfloat16, torch.float32, torch.float32]
