"""Checkpoints that a kill cannot cost and that cannot run code.

A file holds tensors and plain values only, so `torch.load(weights_only=True)` reads it; it is written whole or not at
all (`files.write_atomic`).
"""

import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segwright.errors import WeightsError
from segwright.files import write_atomic

FORMAT = 1
"""Version of the file's layout; raised when an older reader could misread it."""

HEADER: dict[str, type] = {"format": int, "model": dict, "config": dict, "classes": list, "mean": list, "std": list}
"""What every checkpoint holds beside its own: weights, config, and what makes them usable without the data."""

BEGINNINGS = (b"PK", b"\x80")
"""Of a file that PyTorch saved: an archive, or, before 1.6, a pickle."""
UNKNOWN = re.compile(r"GLOBAL (\S+) (?:was not|whose module)")
"""Where PyTorch names the object that it did not open."""


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
    payload = read_plain(path)
    if lacks := _lacks(payload):
        raise WeightsError(
            f"{path} is no Segwright checkpoint: it lacks {', '.join(lacks)}. Give the best.pth or last.pth of a run; "
            "weights of other tools go in with --pretrained."
        )
    if payload["format"] > FORMAT:
        raise WeightsError(f"{path} was written by a newer Segwright (format {payload['format']}). Update segwright.")
    return payload


def read_plain(path: Path, allowed: Sequence[type] = ()) -> Any:
    """What PyTorch saved in a file, on the CPU: tensors, plain values, and objects of the kinds that are `allowed`.

    Raises:
        WeightsError: another kind of file, a damaged one, or one whose pickle would run code.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read as weights: {_why_not(path, error)}") from None


def _why_not(path: Path, error: Exception) -> str:
    """What is wrong with a file that PyTorch does not read, and what to do; its own words are for programmers."""
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except OSError as failed:
        return f"it cannot be opened ({failed.strerror}). Look at its permissions, and at the disk."
    if not start:
        return "it is empty. Get it again."
    if not start.startswith(BEGINNINGS):
        return f"it begins with {start!r}, as no file that PyTorch saved does. Give a .pth, .pt or .bin of weights."
    if not isinstance(error, pickle.UnpicklingError):
        return "it is cut off or damaged. Get it again, or copy it again from where it is whole."
    named = UNKNOWN.search(str(error))
    held = f"it holds a Python object ({named[1]})" if named else "it is damaged, or holds Python objects"
    return (
        f"{held}, and opening such a file could run code of whoever made it; it was not opened. Save its state_dict "
        "alone, or convert it to .safetensors."
    )


def is_ours(found: Any) -> bool:
    """Whether what was read from a file is a checkpoint of ours."""
    return not _lacks(found)


def _lacks(found: Any) -> list[str]:
    """What a checkpoint of ours holds and this does not."""
    held = found if isinstance(found, dict) else {}
    return [key for key, kind in HEADER.items() if not isinstance(held.get(key), kind)]


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
