"""What tests of runs share: a config that trains in a second, and reading what a run left."""

import csv
from pathlib import Path

import torch

from segwright import checkpoint


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


def weights_of(folder: Path, name: str = "last.pth") -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / name)["model"]


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
