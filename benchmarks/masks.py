"""Time from logits to a mask, its overlay and its file at a photograph's size, beside the plain way.

    python benchmarks/masks.py [--rounds 7] [--output benchmarks/results]

Logits are smooth noise of a quarter of 512 x 512, as a SegFormer's head gives them. Plain: `F.interpolate` of all
classes and `argmax`; Pillow's PNG with its default effort, and with the least. Medians of turns in one process.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from segwright.drawing.overlays import overlay, palette
from segwright.engine.precision import keep_memory
from segwright.files import write_text
from segwright.inference.argmax import argmax_resized
from segwright.png import write_png
from segwright.training.records import environment

STRIDE_4 = 128
SIZES = ((2, 512, 512), (19, 512, 512), (2, 3000, 4000), (19, 3000, 4000), (150, 1024, 1024))


def turns(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each, the median of the rounds after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, step in work.items():
            start_s = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - start_s)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def logits(classes: int) -> torch.Tensor:
    coarse = torch.randn(1, classes, 9, 9, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=(STRIDE_4, STRIDE_4), mode="bicubic")[0]


def class_ids(classes: int, size: tuple[int, int], rounds: int) -> dict[str, float]:
    small = logits(classes)
    return turns(
        {
            "plain": lambda: F.interpolate(small[None], size=size, mode="bilinear", align_corners=False)[0].argmax(0),
            "segwright": lambda: argmax_resized(small, size),
        },
        rounds,
    )


def pictures(size: tuple[int, int], rounds: int) -> dict[str, float]:
    """A photograph's overlay, drawn and written."""
    mask = argmax_resized(logits(19), size).numpy()
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    photograph = np.asarray(Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC))
    grain = np.random.default_rng(1).integers(-4, 5, photograph.shape)
    photograph = np.clip(photograph + grain, 0, 255).astype(np.uint8)
    colours = palette(19)
    laid = overlay(photograph, mask, colours)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.png"
        return turns(
            {
                "draw": lambda: overlay(photograph, mask, colours),
                "write": lambda: write_png(path, laid, quick=True),
                "write, Pillow with effort 1": lambda: Image.fromarray(laid).save(path, compress_level=1),
                "write, Pillow": lambda: Image.fromarray(laid).save(path),
            },
            rounds,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    keep_memory()
    lines = ["| classes | size | plain ms | segwright ms | ratio |", "| --- | --- | --- | --- | --- |"]
    with torch.inference_mode():
        for classes, *size in SIZES:
            ms = class_ids(classes, (size[0], size[1]), args.rounds)
            lines.append(
                f"| {classes} | {size[0]} x {size[1]} | {ms['plain']:.1f} | {ms['segwright']:.1f} | "
                f"{ms['plain'] / ms['segwright']:.1f} |"
            )
        ms = pictures((3000, 4000), args.rounds)
    lines += ["", "A photograph of 3000 x 4000, 19 classes: " + ", ".join(f"{n} {v:.0f} ms" for n, v in ms.items())]
    made = environment()
    lines += [
        "",
        f"{made['processor']}, {made['threads']} threads, torch {made['packages']['torch']}, {made['started']}",
    ]
    print("\n".join(lines))
    write_text(args.output / "masks.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
