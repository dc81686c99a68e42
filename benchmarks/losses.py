"""Memory and time of loss + backward at a mask's size from logits at stride 4, beside the plain form.

    python benchmarks/losses.py [--shape 8 150 512 512] [--threads 2] [--rounds 3]

Every figure comes from a process of its own. Peak memory is what loss and backward add to a process that already holds
the logits and the mask, by the kernel's high-water mark. Time is that of a second step, with freed memory kept as in
training, the best of the rounds, the contenders taking turns. `plain` is `F.interpolate` to the mask's size and then
torch's own functions on the whole map, without one-hot masks.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from segwright.engine.precision import keep_memory
from segwright.losses.ce import CeLoss
from segwright.losses.ce_dice import CeDiceLoss
from segwright.losses.dice_focal import DiceFocalLoss

GAMMA, ALPHA, SMOOTH = 2.0, 0.25, 1.0


def enlarged(logits: Tensor, mask: Tensor) -> Tensor:
    return F.interpolate(logits, size=mask.shape[-2:], mode="bilinear", align_corners=False)


def plain_dice(log_p: Tensor, mask: Tensor) -> Tensor:
    """Over the batch, of classes that are there; nothing is ignored."""
    classes = log_p.shape[1]
    p = log_p.exp()
    true = torch.bincount(mask.flatten(), minlength=classes)
    hits = torch.zeros(classes).scatter_add(0, mask.flatten(), p.gather(1, mask[:, None]).flatten())
    score = (2 * hits + SMOOTH) / (p.sum((0, 2, 3)) + true + SMOOTH)
    return (1 - score)[true > 0].mean()


def plain_ce(logits: Tensor, mask: Tensor) -> Tensor:
    return F.cross_entropy(enlarged(logits, mask), mask, ignore_index=255)


def plain_ce_dice(logits: Tensor, mask: Tensor) -> Tensor:
    log_p = torch.log_softmax(enlarged(logits, mask), 1)
    return F.nll_loss(log_p, mask, ignore_index=255) + plain_dice(log_p, mask)


def plain_dice_focal(logits: Tensor, mask: Tensor) -> Tensor:
    log_p = torch.log_softmax(enlarged(logits, mask), 1)
    t = log_p.gather(1, mask[:, None])
    focal = -ALPHA * ((1 - t.exp()) ** GAMMA * t).mean()
    return 0.5 * plain_dice(log_p, mask) + 0.5 * focal


CONTENDERS: dict[str, dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "CE": {"plain": plain_ce, "segwright": CeLoss()},
    "CE + Dice": {"plain": plain_ce_dice, "segwright": CeDiceLoss()},
    "Dice + focal": {"plain": plain_dice_focal, "segwright": DiceFocalLoss()},
}


def example(shape: list[int]) -> tuple[Tensor, Tensor]:
    """Logits at stride 4, laid out as a convolution in channels-last gives them, and a mask with nothing ignored."""
    batch, classes, height, width = shape
    made = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, classes, height // 4, width // 4, generator=made) * 3
    coarse = torch.randint(0, classes, (batch, height // 16, width // 16), generator=made)
    mask = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)
    return logits.to(memory_format=torch.channels_last).requires_grad_(), mask


def high_water_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def measure(loss: Callable[[Tensor, Tensor], Tensor], shape: list[int]) -> dict[str, float]:
    """Seconds and MiB of loss and backward, in this process; the second of two, when memory is there already."""
    keep_memory()
    logits, mask = example(shape)
    before = high_water_mb()
    for _ in range(2):
        logits.grad = None
        start = time.perf_counter()
        value = loss(logits, mask)
        value.backward()
    return {"seconds": time.perf_counter() - start, "mb": high_water_mb() - before, "value": value.item()}


def in_own_process(name: str, who: str, shape: list[int], threads: int) -> dict[str, float]:
    words = [sys.executable, __file__, "--one", name, who, "--threads", str(threads), "--shape", *map(str, shape)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def table(shape: list[int], threads: int, rounds: int) -> str:
    lines = [
        f"| loss at {tuple(shape)} | plain MiB | ours MiB | of interpolate + CE | plain s | ours s | ours / plain |",
        "|--|--|--|--|--|--|--|",
    ]
    least: float | None = None
    for name, contenders in CONTENDERS.items():
        seen: dict[str, list[dict[str, float]]] = {who: [] for who in contenders}
        for _ in range(rounds):
            for who in contenders:
                seen[who].append(in_own_process(name, who, shape, threads))
        mb = {who: max(row["mb"] for row in rows) for who, rows in seen.items()}
        seconds = {who: min(row["seconds"] for row in rows) for who, rows in seen.items()}
        plain, ours = seen["plain"][0]["value"], seen["segwright"][0]["value"]
        assert abs(plain - ours) < 1e-5 * max(1, abs(plain)), f"{name}: {plain} is not {ours}"
        least = least or mb["plain"]
        lines.append(
            f"| {name} | {mb['plain']:.0f} | {mb['segwright']:.0f} | {mb['segwright'] / least:.3f} "
            f"| {seconds['plain']:.2f} | {seconds['segwright']:.2f} | {seconds['segwright'] / seconds['plain']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, default=[8, 150, 512, 512], metavar=("B", "K", "H", "W"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("LOSS", "WHO"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.one:
        name, who = given.one
        print(json.dumps(measure(CONTENDERS[name][who], given.shape)))
    else:
        print(table(given.shape, given.threads, given.rounds))


if __name__ == "__main__":
    main()
