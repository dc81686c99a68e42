"""Attention gives what PyTorch's gives in double precision, by products and fused, gradients included."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import segwright.encoders  # noqa: F401 - registers mit_b0
from segwright.encoders import attention
from segwright.encoders.attention import attend

QUERIES, KEYS = 50, 7
PRODUCTS_OFF_BY = {1: 0.01, 4: 0.025, 10: 0.05}
"""Relative to the norm, by the scores' standard deviation: what rounding them to bfloat16 costs."""
FUSED_OFF_BY = 0.008
"""Four roundings to bfloat16 in a row, each by up to 2^-9; with AVX2 forty seeds gave 0.003 to 0.006."""


def heads(length: int, dtype: torch.dtype = torch.bfloat16, scale: float = 1) -> Tensor:
    """(2, 3, length, 32) as attention gets it: a view of tokens with the heads side by side."""
    return (torch.randn(2, length, 3, 32) * scale).to(dtype).transpose(1, 2)


def with_gradients(call: Callable[..., Tensor], *given: Tensor) -> list[Tensor]:
    """What comes out, and the gradients of all that goes in."""
    leaves = [x.detach().clone().requires_grad_() for x in given]
    mixed = call(*leaves)
    mixed.backward(torch.linspace(-1, 1, mixed.numel(), dtype=mixed.dtype).view(mixed.shape))
    return [mixed.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def apart(ours: list[Tensor], exact: list[Tensor]) -> float:
    """The greatest difference of any of them, relative to its norm."""
    return max(float((a.double() - b).norm() / b.norm()) for a, b in zip(ours, exact, strict=True))


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The type of each call of PyTorch's fused attention."""
    seen: list[torch.dtype] = []
    known = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: seen.append(q.dtype) or known(q, k, v))
    return seen


@pytest.mark.parametrize("deviation", PRODUCTS_OFF_BY)
@pytest.mark.parametrize("products", [True, False])
def test_equals_double_precision(monkeypatch: pytest.MonkeyPatch, products: bool, deviation: int) -> None:
    torch.manual_seed(deviation)
    monkeypatch.setattr(attention, "MOST_BYTES", attention.MOST_BYTES if products else 0)
    given = heads(QUERIES, scale=deviation), heads(KEYS), heads(KEYS)
    exact = with_gradients(F.scaled_dot_product_attention, *(x.double() for x in given))
    ours = with_gradients(attend, *given)
    assert [x.dtype for x in ours] == [torch.bfloat16] * 4
    assert apart(ours, exact) < (PRODUCTS_OFF_BY[deviation] if products else FUSED_OFF_BY)
    full = with_gradients(attend, *(x.float() for x in given))
    assert apart(full, exact) < 1e-5


def test_gradients_are_taken_in_fp32_under_autocast_too(
    monkeypatch: pytest.MonkeyPatch, fused: list[torch.dtype]
) -> None:
    """Autocast would make the operands bfloat16 again."""
    monkeypatch.setattr(attention, "MOST_BYTES", 0)
    query = heads(QUERIES).requires_grad_()
    plain = attend(query, query, query)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attend(query, query, query), plain)
    assert fused == [torch.float32] * 2


@pytest.mark.parametrize("queries", [128, 129, 50])
def test_without_gradients_it_goes_by_chunks(
    monkeypatch: pytest.MonkeyPatch, fused: list[torch.dtype], queries: int
) -> None:
    """Of at least 64 queries, the last with what is left; each row is a sum of its own, so nothing else changes."""
    monkeypatch.setattr(attention, "CHUNK_BYTES", 0)
    made = []
    products = attention._products
    monkeypatch.setattr(attention, "_products", lambda q, k, v: made.append(q.shape[2]) or products(q, k, v))
    query, key, value = heads(queries), heads(KEYS), heads(KEYS)
    with torch.no_grad():
        mixed = attend(query, key, value)
    assert made == {128: [64, 64], 129: [64, 64, 1], 50: [50]}[queries]
    assert mixed.transpose(1, 2).is_contiguous(), "what follows reads tokens"
    assert fused == []
    exact = F.scaled_dot_product_attention(*(x.double() for x in (query, key, value)))
    assert apart([mixed], [exact]) < PRODUCTS_OFF_BY[1]


def test_a_chunk_of_scores_is_as_large_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    products = attention._products
    monkeypatch.setattr(attention, "_products", lambda q, k, v: made.append(q.shape[2]) or products(q, k, v))
    monkeypatch.setattr(attention, "CHUNK_BYTES", 2 * 3 * KEYS * 2 * 100)
    with torch.no_grad():
        attend(heads(250), heads(KEYS), heads(KEYS))
    assert made == [100, 100, 50]


def test_few_scores_are_products_and_many_are_not(monkeypatch: pytest.MonkeyPatch, fused: list[torch.dtype]) -> None:
    query, key = heads(QUERIES), heads(KEYS)
    own = 2 * 3 * QUERIES * KEYS * 2
    monkeypatch.setattr(attention, "MOST_BYTES", own)
    attend(query, key, key)
    assert fused == []
    monkeypatch.setattr(attention, "MOST_BYTES", own - 1)
    attend(query, key, key)
    attend(query.requires_grad_(), key, key)
    assert fused == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_types_are_fused(fused: list[torch.dtype], dtype: torch.dtype) -> None:
    attend(heads(QUERIES, dtype), heads(KEYS, dtype), heads(KEYS, dtype))
    assert fused == [dtype]


def test_recorded_code_is_fused(fused: list[torch.dtype]) -> None:
    class Attending(nn.Module):
        def forward(self, query: Tensor, key: Tensor) -> Tensor:
            return attend(query, key, key)

    torch.jit.trace(Attending(), (heads(QUERIES), heads(KEYS)), check_trace=False)
    assert fused == [torch.bfloat16]
    graph = torch.export.export(Attending(), (heads(QUERIES), heads(KEYS))).graph_module.code
    assert "scaled_dot_product_attention" in graph


def test_mit_b0_takes_products_at_512_pixels(fused: list[torch.dtype]) -> None:
    net = timm.create_model("mit_b0", pretrained=False, features_only=True).eval()
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.zeros(1, 3, 512, 512))
    assert fused == []
    with torch.no_grad():
        net(torch.zeros(1, 3, 64, 64))
    assert fused == [torch.float32] * 8
