"""From a split to batches: reading, resizing, augmenting, ordering.

A training batch is `image (B, 3, H, W) uint8`, channels last in memory, `mask (B, H, W) uint8`, `index (B,)`; the loop
moves it to the device and normalises it there. A sample is a function of (seed, pass, index): neither the number of
workers nor their order matters.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from segwright.datasets.base import Split
from segwright.errors import ConfigError, DataError, nearest
from segwright.transforms import Augment, Pair, Size, resize_image

PLACES = ("ram", "disk", "none")


@dataclass(frozen=True, kw_only=True)
class Config:
    size: Any = 512
    """What the network sees: an integer is a square, a pair (height, width); null keeps each image's own size."""
    workers: int | None = None
    """Processes that read and augment; none: 0 on a CPU, which trains with all its cores, up to 4 beside a GPU."""
    preload: str | None = None
    """Decode every image once, to `input.size`, into one block that all processes share and the next run finds again:
    `ram` holds it in memory, `disk` leaves it on the disk. Random enlargements then enlarge the resized copy."""
    cache: str | None = None
    """Folder of those blocks; none: $SEGWRIGHT_CACHE, or segwright in the user's cache folder. It may be emptied."""

    def __post_init__(self) -> None:
        size = self.pixels()
        if size is not None and min(size) < 32:
            raise ConfigError(f"input.size is {self.size}; encoders go down to stride 32. Give 32 pixels or more.")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"input.workers is {self.workers}; give 0 or more processes.")
        if self.preload is not None and self.preload not in PLACES:
            raise ConfigError(
                f"input.preload is '{self.preload}'; images can be held in ram or on disk, or none."
                f"{nearest(self.preload, PLACES)}"
            )

    def pixels(self) -> Size | None:
        """(height, width), or None for each image's own."""
        if self.size is None:
            return None
        pair = [self.size, self.size] if isinstance(self.size, int) else self.size
        if isinstance(pair, list | tuple) and len(pair) == 2 and all(type(side) is int for side in pair):
            return pair[0], pair[1]
        raise ConfigError(f"input.size is {self.size!r}; give a number of pixels, or (height, width), or null.")


class TrainingSet(Dataset[dict[str, Tensor]]):
    """(pass, index) -> one augmented sample."""

    def __init__(self, split: Split, size: Size | None, augment: Augment, seed: int) -> None:
        self.split, self.size, self.augment, self.seed = split, size, augment, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        number, index = key
        rng = np.random.default_rng([self.seed, number, index])
        companions = self.augment.companions(rng, len(self.split))
        image, mask = read_pair(self.split, index)
        if companions:
            pairs = [(image, mask), *(read_pair(self.split, other) for other in companions)]
            image, mask = self.augment.mosaic(pairs, rng, self.size)
        else:
            image, mask = self.augment(image, mask, rng, self.size or (mask.shape[0], mask.shape[1]))
        return {"image": image, "mask": mask, "index": torch.tensor(index)}


class EvaluationSet(Dataset[dict[str, Any]]):
    """index -> the image at the network's size and the mask at the image's own. Nothing is augmented."""

    def __init__(self, split: Split, size: Size | None) -> None:
        self.split, self.size = split, size

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, mask = read_pair(self.split, index)
        image = image.contiguous()
        return {"image": resize_image(image, self.size) if self.size else image, "mask": mask, "index": index}


def read_pair(split: Split, index: int) -> Pair:
    """Image (3, H, W), a view of the (H, W, 3) that the split gives, and mask (H, W).

    `DataError` if their sizes differ, but where the split says that it has `own_sizes`, compared before.
    """
    image = torch.from_numpy(np.ascontiguousarray(split.image(index))).permute(2, 0, 1)
    mask = torch.from_numpy(np.ascontiguousarray(split.mask(index)))
    if image.shape[1:] != mask.shape and not getattr(split, "own_sizes", False):
        raise DataError(
            f"{split.path(index)} is {image.shape[2]} x {image.shape[1]} pixels, but its mask, "
            f"{split.annotation(index)}, is {mask.shape[1]} x {mask.shape[0]}, so no pixel's class is known. Annotate "
            "the image as it is; if an EXIF tag turns it, turn the mask, too (segwright check --fix does)."
        )
    return image, mask


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (pass, index) in an order that the seed and the pass decide; the last, smaller one is left out.

    An epoch is `passes` passes over all images; they are counted through, so that each pass augments anew.
    """

    def __init__(self, length: int, batch_size: int, seed: int, passes: int = 1) -> None:
        self.length, self.batch_size, self.seed, self.passes = length, min(batch_size, length), seed, passes
        self.epoch = 0

    def __len__(self) -> int:
        return self.passes * (self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number in range(self.epoch * self.passes, (self.epoch + 1) * self.passes):
            order = np.random.default_rng([self.seed, number]).permutation(self.length).tolist()
            for start in range(0, self.length - self.batch_size + 1, self.batch_size):
                yield [(number, index) for index in order[start : start + self.batch_size]]


def training_batches(
    split: Split, size: Size | None, augment: Augment, batch_size: int, seed: int, workers: int, passes: int = 1
) -> tuple[DataLoader, EpochBatches]:
    """The loader and the sampler whose `epoch` decides the order and the augmentation."""
    sampler = EpochBatches(len(split), batch_size, seed, passes)
    data = TrainingSet(split, size, augment, seed)
    return DataLoader(data, batch_sampler=sampler, collate_fn=stacked, **_workers(workers, persistent=True)), sampler


def evaluation_batches(split: Split, size: Size | None, batch_size: int, workers: int) -> DataLoader:
    """Lists of samples, in the split's order; images of one shape may be stacked by who predicts."""
    return DataLoader(EvaluationSet(split, size), batch_size=batch_size, collate_fn=list, **_workers(workers))


def stacked(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One batch. Images are stacked in the memory order that they have, (B, H, W, 3), which is also the network's."""
    batch = default_collate([sample | {"image": sample["image"].permute(1, 2, 0)} for sample in samples])
    return batch | {"image": batch["image"].permute(0, 3, 1, 2)}


def _workers(count: int, persistent: bool = False) -> dict[str, Any]:
    """One thread a worker (two threads each slowed every pipeline down when they contend), and a generator of its own
    so that making an iterator does not draw from the global one."""
    options: dict[str, Any] = {"num_workers": count, "generator": torch.Generator().manual_seed(0)}
    if count:
        options |= {
            "persistent_workers": persistent,
            "worker_init_fn": _one_thread,
            "pin_memory": torch.cuda.is_available(),
        }
    return options


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def worker_count(wanted: int | None, device: torch.device) -> int:
    """What `input.workers` says, or by default none beside a CPU and up to 4 beside a GPU."""
    if wanted is not None:
        return wanted
    return 0 if device.type == "cpu" else min(4, os.cpu_count() or 1)
