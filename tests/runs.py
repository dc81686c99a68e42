"""What tests of runs share: a config that trains in a second, and reading what a run left."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from segwright import checkpoint
from segwright.training import loop


def small(painted: Path, folder: Path, **sections) -> dict:
    """A config that trains in a second: a tiny encoder, six images."""
    values = {
        "data": {"root": str(painted)},
        "encoder": {"name": "test_resnet", "pretrained": False},
        "head": {"width": 8},
        "input": {"size": [64, 96]},
        "train": {"epochs": 4, "batch_size": 2, "freeze_epochs": 1, "amp": False, "seed": 5},
        "optim": {"lr": 1e-2, "lr_encoder": 1e-2},
        "predict": {"threshold": 0.05},
        "run": {"output": str(folder)},
    }
    return {key: {**values.get(key, {}), **sections.get(key, {})} for key in values.keys() | sections.keys()}


@contextmanager
def ending_at(number: int, error: type[BaseException] = KeyboardInterrupt) -> Iterator[None]:
    """What trains within it dies of `error` before its step of that number, counted from 1 over all epochs."""
    step, calls = loop.train_step, [0]

    def stepping(*args):
        calls[0] += 1
        if calls[0] == number:
            raise error
        return step(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", stepping)
        with pytest.raises(error):
            yield


def weights_of(folder: Path, name: str = "last.pth") -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / name)["model"]


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
