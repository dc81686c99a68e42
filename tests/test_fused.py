"""What oneDNN does in one step gives what the plain steps give, and is left alone wherever it could do harm."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segwright.encoders import fused
from segwright.encoders.fused import add_linear, conv_gelu

CONV = nn.Conv2d(8, 8, 3, padding=1, groups=8)
LINEAR = nn.Linear(16, 8)
MAPS, TOKENS, ONTO = torch.randn(2, 8, 7, 9), torch.randn(2, 5, 16), torch.randn(2, 5, 8)


def unfused(count: int) -> list[str]:
    """What runs as it is where all of `count` layers may be fused: nothing, unless PyTorch was built without oneDNN."""
    return [] if torch.backends.mkldnn.is_available() else ["plain"] * count


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which layers ran as they are, not fused."""
    seen: list[str] = []
    for kind in (nn.Conv2d, nn.Linear):
        plain = kind.forward
        monkeypatch.setattr(kind, "forward", lambda self, x, plain=plain: seen.append("plain") or plain(self, x))
    return seen


def test_fused_steps_give_what_plain_steps_give(calls: list[str]) -> None:
    with torch.no_grad():
        assert torch.allclose(
            conv_gelu(CONV, MAPS), F.gelu(F.conv2d(MAPS, CONV.weight, CONV.bias, 1, 1, 1, 8)), atol=1e-6
        )
        assert torch.allclose(
            add_linear(ONTO, LINEAR, TOKENS), ONTO + F.linear(TOKENS, LINEAR.weight, LINEAR.bias), atol=1e-6
        )
    assert calls == unfused(2)


def test_on_a_processor_without_bfloat16_the_plain_steps_run(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the whole model would fail there under autocast."""
    monkeypatch.setattr(fused, "KINDS", {torch.float32})
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert conv_gelu(CONV, MAPS).dtype == torch.bfloat16
        assert add_linear(ONTO.bfloat16(), LINEAR, TOKENS).dtype == torch.bfloat16
    assert calls == ["plain", "plain"]


def test_under_autocast_the_sum_is_fused_only_where_it_loses_nothing(calls: list[str]) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert conv_gelu(CONV, MAPS).dtype == torch.bfloat16
        assert add_linear(ONTO.bfloat16(), LINEAR, TOKENS).dtype == torch.bfloat16
        own = unfused(2) if torch.bfloat16 in fused.KINDS else ["plain", "plain"]
        assert calls == own
        assert add_linear(ONTO, LINEAR, TOKENS).dtype == torch.float32
        assert calls == [*own, "plain"]


def test_gradients_hooks_and_wrapped_layers_take_the_plain_steps(calls: list[str]) -> None:
    add_linear(ONTO, LINEAR, TOKENS).sum().backward()
    assert calls == ["plain"]
    hooked = nn.Linear(16, 8)
    hooked.register_forward_hook(lambda *_: calls.append("hook"))
    wrapped = nn.Sequential(nn.Linear(16, 8))
    with torch.no_grad():
        add_linear(ONTO, hooked, TOKENS)
        add_linear(ONTO, wrapped, TOKENS)
    assert calls == ["plain", "plain", "hook", "plain"]


def test_without_the_operators_the_plain_steps_run(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "HAVE", False)
    with torch.no_grad():
        conv_gelu(CONV, MAPS)
    assert calls == ["plain"]
