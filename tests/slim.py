"""timm's large architectures with few, narrow blocks: the same code, made at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import timm

VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2}
SWIN = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}


@contextmanager
def slim(name: str, options: dict[str, Any]) -> Iterator[None]:
    """Within this, timm makes its model `name` with `options`, whoever asks."""
    make = timm.create_model

    def create(model: str, *args: Any, **given: Any) -> Any:
        return make(model, *args, **(options | given if model == name else given))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", create)
        yield
