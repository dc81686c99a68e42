"""From a split to batches: reading, resizing, augmenting, ordering.

A training batch is `image (B, 3, H, W) uint8`, channels last in memory, `mask (B, H, W) uint8`, `index (B,)`; the loop
moves it to the device and normalises it there. A sample is a function of (seed, pass, index): neither the number of
workers nor their order matters.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from segwright.ahead import cores
from segwright.datasets.base import Split
from segwright.errors import ConfigError, DataError, nearest
from segwright.transforms import Augment, Pair, Size, as_size, resize_image

log = logging.getLogger("segwright")

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
        return None if self.size is None else as_size("input.size", self.size)


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


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of a step's images this process takes."""

    rank: int = 0
    processes: int = 1
    accumulate: int = 1
    """Batches that one process goes through before a step."""


ALONE = Share()


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (pass, index) in an order that the seed and the pass decide; a last, smaller step is left out.

    A step takes batch_size x processes x accumulate images: the next ones of one order, whoever works on them, so one
    process with large batches and several with small ones see the same images in each step. An epoch is `passes`
    passes over all images; they are counted through, so that each pass augments anew.
    """

    def __init__(self, length: int, batch_size: int, seed: int, passes: int = 1, share: Share = ALONE) -> None:
        parts = share.processes * share.accumulate
        if length < parts:
            raise ConfigError(
                f"there are {length} images to train on, but a step is shared by {share.processes} processes that take "
                f"{share.accumulate} batches each, so that one would get none. Start fewer, or lower train.accumulate."
            )
        self.length, self.batch_size, self.seed, self.passes = length, min(batch_size, length // parts), seed, passes
        self.share = share
        self.epoch = 0
        self.done = 0
        """Steps of this epoch that lie behind: a run that goes on in the middle of an epoch leaves them out."""

    @property
    def images_per_step(self) -> int:
        """Of all processes."""
        return self.batch_size * self.share.processes * self.share.accumulate

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return self.passes * (self.length // self.images_per_step)

    def __len__(self) -> int:
        """Batches of this process that are left in the epoch."""
        return (self.steps - self.done) * self.share.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_pass = self.length // self.images_per_step
        for step in range(self.done, self.steps):
            number = self.epoch * self.passes + step // per_pass
            if step == self.done or step % per_pass == 0:
                order = np.random.default_rng([self.seed, number]).permutation(self.length).tolist()
            for part in range(self.share.accumulate):
                start = step % per_pass * self.images_per_step
                start += (part * self.share.processes + self.share.rank) * self.batch_size
                yield [(number, index) for index in order[start : start + self.batch_size]]


def training_batches(
    split: Split,
    size: Size | None,
    augment: Augment,
    batch_size: int,
    seed: int,
    workers: int,
    passes: int = 1,
    share: Share = ALONE,
) -> tuple[DataLoader, EpochBatches]:
    """The loader and the sampler whose `epoch` and `done` decide the order and the augmentation. Warns where there are
    too few images for the batch size."""
    sampler = EpochBatches(len(split), batch_size, seed, passes, share)
    if sampler.batch_size < batch_size:
        log.warning(
            "train.batch_size is %d, but there are only %d images to train on, so a batch holds %d (batches in a step, "
            "of all processes: %d). Set train.batch_size=%d if that is meant",
            batch_size,
            len(split),
            sampler.batch_size,
            share.processes * share.accumulate,
            sampler.batch_size,
        )
    data = TrainingSet(split, size, augment, seed)
    return DataLoader(data, batch_sampler=sampler, collate_fn=stacked, **_workers(workers, persistent=True)), sampler


def evaluation_batches(
    split: Split, size: Size | None, batch_size: int, workers: int, share: Share = ALONE
) -> DataLoader:
    """Lists of samples, in the split's order; images of one shape may be stacked by who predicts. Of several processes
    each takes every P-th image, so that together they take each once, and one may have an image less."""
    own = range(share.rank, len(split), share.processes)
    data = EvaluationSet(split, size)
    return DataLoader(data, batch_size=batch_size, sampler=own, collate_fn=list, **_workers(workers))


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
    """Also: the signals that ask a run to stop go to its whole process group, and are the main process's business; a
    worker that died of one would take the step with it. Only the parent's SIGTERM ends a worker."""
    torch.set_num_threads(1)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, which does not tell who sent a signal
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_the_parents_word, daemon=True).start()


def _wait_for_the_parents_word() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def worker_count(wanted: int | None, device: torch.device) -> int:
    """What `input.workers` says, or by default none beside a CPU and up to 4 beside a GPU."""
    if wanted is not None:
        return wanted
    return 0 if device.type == "cpu" else min(4, cores())
