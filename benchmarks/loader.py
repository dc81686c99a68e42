"""What the training loader gives, alone: images per second and memory, beside albumentations in the same run.

    python benchmarks/loader.py augment               one thread, 512 x 512 uint8 image and mask in memory
    python benchmarks/loader.py preload --data DIR    1,458 PNG pairs of 384 x 384 with 16 classes, made in DIR

`augment`: flips, a turn to 30 degrees, scale 0.75 to 1.5 with crop, colour jitter; batches of 8 as uint8, which either
side leaves to the device to normalise. Albumentations does it in two ways: turn, scale and crop in one `Affine`, its
fastest, and `Rotate` followed by `RandomResizedCrop`.

`preload`: the first start, the second start, then one pass over the images with four workers, each way in a process of
its own; memory is the proportional set size (PSS) summed over the process and its workers, at its highest.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from segwright.data import Config, preloaded, training_batches
from segwright.datasets.mask_files import read_indices
from segwright.datasets.pairs import Pair, PairSplit
from segwright.transforms import Augment
from segwright.transforms import Config as AugmentConfig

RESULTS = Path(__file__).parent / "results"
FILL, MASK_FILL = (124, 116, 104), 255
CLASSES = 16
JITTER = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}


class InMemory:
    """A split of arrays."""

    name = "train"

    def __init__(self, count: int, size: int) -> None:
        self.pairs = [painted(size, number) for number in range(count)]

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> np.ndarray:
        return self.pairs[index][0]

    def mask(self, index: int) -> np.ndarray:
        return self.pairs[index][1]


def files(folder: Path) -> PairSplit:
    """A split of `<number>.png` beside `<number>_mask.png`."""
    count = len(list(folder.glob("*_mask.png")))
    pairs = [Pair(folder / f"{i}.png", folder / f"{i}_mask.png") for i in range(count)]
    return PairSplit("train", tuple(pairs), read_indices)


class Peer(Dataset):
    """The same by albumentations: tensors (3, H, W) and (H, W). `read` gives the pair."""

    def __init__(
        self, length: int, read: Callable[[int], tuple[np.ndarray, np.ndarray]], moves: list, hue: float
    ) -> None:
        flips, last = (
            [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)],
            [A.ColorJitter(0.2, 0.2, 0.2, hue, p=1), A.ToTensorV2()],
        )
        self.length, self.read, self.steps = length, read, A.Compose([*flips, *moves, *last], seed=0)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image, mask = self.read(index)
        return self.steps(image=image, mask=mask)


def one_affine() -> list:
    """Turn, scale and crop in one resampling: albumentations at its fastest."""
    return [A.Affine(scale=(0.75, 1.5), rotate=(-30, 30), p=1, fill=FILL, fill_mask=MASK_FILL)]


def turn_and_crop(size: int) -> list:
    """The two transforms that its documentation names for the purpose, one after the other."""
    crop = A.RandomResizedCrop((size, size), scale=(1 / 1.5**2, 1), ratio=(1, 1), p=1)
    return [A.Rotate(30, p=1, fill=FILL, fill_mask=MASK_FILL), crop]


def painted(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A soft picture with grain, and regions of classes."""
    rng = np.random.default_rng(seed)
    soft = cv2.resize(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    grain = rng.integers(0, 8, (size, size, 1), dtype=np.uint8)
    regions = cv2.resize(
        rng.integers(0, CLASSES, (7, 7), dtype=np.uint8), (size, size), interpolation=cv2.INTER_NEAREST
    )
    return np.where(soft > 247, soft, soft + grain), regions


def ours(split: Any, size: int, workers: int, hue: float) -> DataLoader:
    augment = Augment(AugmentConfig(rotate=30, scale=(0.75, 1.5), hue=hue, **JITTER))
    return training_batches(split, (size, size), augment, 8, seed=0, workers=workers)[0]


def theirs(
    length: int, read: Callable[[int], tuple[np.ndarray, np.ndarray]], moves: list, workers: int, hue: float
) -> DataLoader:
    start = {"worker_init_fn": one_thread} if workers else {}
    data = Peer(length, read, moves, hue)
    return DataLoader(data, batch_size=8, shuffle=True, drop_last=True, num_workers=workers, **start)


def one_thread(_: int) -> None:
    torch.set_num_threads(1)


def one_pass(loader: DataLoader) -> tuple[float, float]:
    """Images per second of wall time, and of this process's own time."""
    wall, own, count = time.perf_counter(), time.process_time(), 0
    for batch in loader:
        count += len(batch["image"])
    return count / (time.perf_counter() - wall), count / (time.process_time() - own)


def measure_augment(rounds: int) -> dict[str, Any]:
    """Rounds alternate between the two, with and without hue in the jitter."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    split = InMemory(64, 512)
    ways = {}
    for jitter, hue in (("jitter", 0.0), ("jitter with hue", 0.05)):
        ways[f"segwright, {jitter}"] = ours(split, 512, 0, hue)
        for name, moves in (("Affine", one_affine()), ("Rotate + RandomResizedCrop", turn_and_crop(512))):
            ways[f"albumentations {name}, {jitter}"] = theirs(64, split.pairs.__getitem__, moves, 0, hue)
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            rates = one_pass(ways[name])
            seen[name] += [rates] if number else []
    return {
        name: {
            "images_per_s": statistics.median(wall for wall, _ in rates),
            "images_per_cpu_s": statistics.median(own for _, own in rates),
            "wall_of_rounds": [round(wall, 1) for wall, _ in rates],
        }
        for name, rates in seen.items()
    }


def write_pairs(folder: Path, count: int, size: int) -> None:
    """PNG pairs, once."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        if not (folder / f"{number}_mask.png").exists():
            image, mask = painted(size, number)
            cv2.imwrite(str(folder / f"{number}.png"), image)
            cv2.imwrite(str(folder / f"{number}_mask.png"), mask)


def tree_pss() -> int:
    """Bytes of memory of this process and all below it, shared pages counted once."""
    todo, total = [os.getpid()], 0
    while todo:
        process = Path("/proc") / str(todo.pop())
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
            for task in (process / "task").iterdir():
                todo += [int(word) for word in (task / "children").read_text().split()]
        except (OSError, StopIteration):
            continue
    return total


def one_way(way: str, data: Path, cache: Path, size: int, workers: int, passes: int) -> dict[str, Any]:
    """One way of feeding, in this process: seconds until it can start, images per second a pass, memory."""
    torch.set_num_threads(1)
    split, start_s = files(data), time.perf_counter()
    if way == "preloaded":
        split = preloaded(Config(size=size, preload="ram", cache=str(cache)), split, "benchmark")  # type: ignore[assignment]
    ready_s = time.perf_counter() - start_s
    loader = (
        theirs(len(split), plain_read(data), one_affine(), workers, 0.0)
        if way == "albumentations"
        else ours(split, size, workers, 0)
    )
    highest, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.3):
            highest[0] = max(highest[0], tree_pss())

    watcher = threading.Thread(target=watch)
    watcher.start()
    rates = [one_pass(loader)[0] for _ in range(passes)]
    highest[0] = max(highest[0], tree_pss())
    done.set()
    watcher.join()
    return {"ready_s": ready_s, "images_per_s": rates, "peak_pss": highest[0], "images": len(split)}


def plain_read(data: Path) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """As its users read: OpenCV, RGB."""

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        image = cv2.imread(str(data / f"{index}.png"), cv2.IMREAD_COLOR)
        mask = cv2.imread(str(data / f"{index}_mask.png"), cv2.IMREAD_GRAYSCALE)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), mask

    return read


def measure_preload(data: Path, count: int, size: int, workers: int, passes: int) -> dict[str, Any]:
    """Every way in a process of its own; `preloaded` twice, the second time with the block there already."""
    write_pairs(data, count, size)
    with tempfile.TemporaryDirectory() as cache:
        common = ["--data", str(data), "--cache", cache, "--size", str(size), "--workers", str(workers)]
        ways = {
            "first start": "preloaded",
            "second start": "preloaded",
            "from files": "files",
            "albumentations": "albumentations",
        }
        result: dict[str, Any] = {"workers": workers, "cores": os.cpu_count(), "size": size}
        for name, way in ways.items():
            command = [sys.executable, __file__, "way", "--way", way, "--passes", str(passes), *common]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            result[name] = json.loads(out.splitlines()[-1])
        result["block_bytes"] = sum(path.stat().st_size for path in Path(cache).glob("*.uint8"))
    result["pss_above_files"] = result["second start"]["peak_pss"] - result["from files"]["peak_pss"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("augment", "preload", "way"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "segwright_loader")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--count", type=int, default=1458)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--way", choices=("preloaded", "files", "albumentations"))
    args = parser.parse_args()
    if args.what == "way":
        print(json.dumps(one_way(args.way, args.data, args.cache, args.size, args.workers, args.passes)))
        return
    if args.what == "augment":
        result = measure_augment(args.rounds)
    else:
        result = measure_preload(args.data, args.count, args.size, args.workers, args.passes)
    versions = {"torch": torch.__version__, "opencv": cv2.__version__, "albumentations": A.__version__}
    text = json.dumps({"versions": versions, **result}, indent=1)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"loader_{args.what}.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
