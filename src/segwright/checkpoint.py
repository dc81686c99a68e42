"""Checkpoints that a kill cannot cost and that cannot run code.

A file holds tensors and plain values only, so `torch.load(weights_only=True)` reads it; it is written whole or not at
all (`files.write_atomic`).
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from segwright.errors import WeightsError
from segwright.files import write_atomic

FORMAT = 1
"""Version of the file's layout; raised when an older reader could misread it."""

HEADER: dict[str, type] = {"format": int, "model": dict, "config": dict, "classes": list, "mean": list, "std": list}
"""What every checkpoint holds beside its own: weights, config, and what makes them usable without the data."""


def save(path: str | Path, payload: dict[str, Any]) -> None:
    """Writes a checkpoint whole or not at all. `payload` holds tensors and plain values."""
    write_atomic(path, lambda file: torch.save({"format": FORMAT, **payload}, file))


def load(path: str | Path) -> dict[str, Any]:
    """A checkpoint of ours, on the CPU.

    Raises:
        WeightsError: no such file, not a checkpoint of ours, damaged, or one whose pickle would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no checkpoint {path}. Give --weights the best.pth or last.pth of a run.")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path} is damaged, no checkpoint at all, or holds more than tensors and plain values, so that opening it "
            "could run a stranger's code; it was not opened. Give a checkpoint that Segwright wrote."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} is damaged or is no checkpoint ({reason}). Give one that is whole.") from None
    held = payload if isinstance(payload, dict) else {}
    lacks = [key for key, kind in HEADER.items() if not isinstance(held.get(key), kind)]
    if lacks:
        raise WeightsError(
            f"{path} is no Segwright checkpoint: it lacks {', '.join(lacks)}. Give the best.pth or last.pth of a run; "
            "weights of other tools go in with --pretrained."
        )
    if payload["format"] > FORMAT:
        raise WeightsError(f"{path} was written by a newer Segwright (format {payload['format']}). Update segwright.")
    return payload


def load_weights(model: torch.nn.Module, payload: dict[str, Any], path: str | Path) -> None:
    """Puts a checkpoint's weights into a model that was built from the same config.

    Raises:
        WeightsError: keys or shapes differ; says which.
    """
    have, want = payload["model"], model.state_dict()
    missing = sorted(want.keys() - have.keys())
    extra = sorted(have.keys() - want.keys())
    shapes = [
        f"{key} {tuple(have[key].shape)} instead of {tuple(want[key].shape)}"
        for key in sorted(want.keys() & have.keys())
        if want[key].shape != have[key].shape
    ]
    if missing or extra or shapes:
        raise WeightsError(
            f"{path} belongs to another model: {len(missing)} weights missing{_few(missing)}, {len(extra)} too many"
            f"{_few(extra)}, {len(shapes)} of another shape{_few(shapes)}. Leave out --model and --encoder, so that "
            "the checkpoint's own config builds the model, or give the checkpoint that belongs to this config."
        )
    model.load_state_dict(have)


def _few(keys: list[str]) -> str:
    return f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""
