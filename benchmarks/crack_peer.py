"""The peer's side of the crack comparison: segmentation_models.pytorch and a plain PyTorch loop.

It trains one SMP network from random weights with the budget that Segwright gets in `recipes/crack/compare.yaml`
(30 epochs of 9 steps, batch 8, crops of 320 x 480), chooses the threshold on `valid`, and prints the figures of `test`
from one confusion matrix at the original size. Last weights, no test-time augmentation.

    python benchmarks/crack_peer.py --data ../shared/data/crack_coco --net unet --seed 0 --out peer.json
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from pycocotools.coco import COCO
from torch.nn import functional as F

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
CROP = (320, 480)
IGNORE = 255


def network(name: str) -> torch.nn.Module:
    """SMP's defaults, random weights, one class."""
    if name == "unet":
        return smp.Unet("tu-mobilenetv3_small_100", encoder_weights=None, classes=1)
    if name == "segformer":
        return smp.Segformer("mit_b0", encoder_weights=None, classes=1)
    return smp.FPN("tu-mobilenetv3_small_100", encoder_weights=None, classes=1)


def load(root: Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """RGB uint8 images and binary masks of one split."""
    coco = COCO(str(root / split / "_annotations.coco.json"))
    wanted = {c["id"] for c in coco.loadCats(coco.getCatIds()) if c["name"] == "crack"}
    pairs = []
    for image_id in sorted(coco.getImgIds()):
        info = coco.loadImgs(image_id)[0]
        image = cv2.cvtColor(cv2.imread(str(root / split / info["file_name"])), cv2.COLOR_BGR2RGB)
        mask = np.zeros((info["height"], info["width"]), np.uint8)
        for ann in coco.loadAnns(coco.getAnnIds(imgIds=image_id)):
            if ann["category_id"] in wanted:
                mask |= coco.annToMask(ann)
        pairs.append((image, mask))
    return pairs


def augment(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, crop: tuple[int, int] = CROP, vertical: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Scale 0.5 to 2, crop or pad, flips, brightness, contrast, saturation."""
    scale = rng.uniform(0.5, 2.0)
    h, w = round(mask.shape[0] * scale), round(mask.shape[1] * scale)
    image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    mask = cv2.resize(mask, (w, h), interpolation=cv2.INTER_NEAREST)
    top, left = (int(rng.integers(0, max(have - want, 0) + 1)) for have, want in zip((h, w), crop, strict=True))
    image, mask = image[top : top + crop[0], left : left + crop[1]], mask[top : top + crop[0], left : left + crop[1]]
    if mask.shape != crop:
        top, left = (int(rng.integers(0, want - have + 1)) for have, want in zip(mask.shape, crop, strict=True))
        canvas = np.empty((*crop, 3), np.uint8)
        canvas[:] = (MEAN * 255).astype(np.uint8)
        ids = np.full(crop, IGNORE, np.uint8)
        canvas[top : top + mask.shape[0], left : left + mask.shape[1]] = image
        ids[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        image, mask = canvas, ids
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if vertical and rng.random() < 0.5:
        image, mask = image[::-1], mask[::-1]
    x = image.astype(np.float32)
    brightness, contrast, saturation = rng.uniform(0.8, 1.2, 3)
    x = x * brightness
    x = (x - x.mean()) * contrast + x.mean()
    grey = x @ np.float32([0.299, 0.587, 0.114])
    x = grey[..., None] + (x - grey[..., None]) * saturation
    return np.clip(x, 0, 255), mask


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(((image / 255 - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)))


def forward(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Pads to a multiple of 32, since SMP's networks ask for it, and crops the logits back."""
    h, w = x.shape[-2:]
    padded = F.pad(x, (0, -w % 32, 0, -h % 32), mode="replicate")
    return net(padded)[..., :h, :w]


def crack_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """BCE + Dice of SMP; logits (B, 1, H, W), mask (B, H, W)."""
    bce = smp.losses.SoftBCEWithLogitsLoss(ignore_index=IGNORE)(logits, mask[:, None].float())
    return bce + smp.losses.DiceLoss("binary", ignore_index=IGNORE)(logits, mask[:, None])


def train(
    net: torch.nn.Module,
    data: list,
    seed: int,
    epochs: int,
    batch: int,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = crack_loss,
    **augmentation: Any,
) -> None:
    steps = len(data) // batch
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=epochs * steps, pct_start=0.2)
    net.train()
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(data))
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            rngs = (np.random.default_rng([seed, epoch, int(i)]) for i in rows)
            pairs = [augment(*data[i], rng, **augmentation) for i, rng in zip(rows, rngs, strict=True)]
            x = torch.stack([tensor(image) for image, _ in pairs]).contiguous(memory_format=torch.channels_last)
            y = torch.stack([torch.from_numpy(np.ascontiguousarray(mask)).long() for _, mask in pairs])
            with torch.autocast("cpu", torch.bfloat16):
                logits = forward(net, x)
            loss = loss_of(logits.float(), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs} loss {loss.item():.4f}", flush=True)


@torch.inference_mode()
def probabilities(net: torch.nn.Module, data: list) -> list[np.ndarray]:
    net.eval()
    return [forward(net, tensor(image.astype(np.float32))[None]).sigmoid()[0, 0].numpy() for image, _ in data]


def counts(probs: list, data: list, threshold: float) -> tuple[int, int, int]:
    tp = fp = fn = 0
    for prob, (_, mask) in zip(probs, data, strict=True):
        positive, truth = prob > threshold, mask == 1
        tp += int((positive & truth).sum())
        fp += int((positive & ~truth).sum())
        fn += int((~positive & truth).sum())
    return tp, fp, fn


def tolerant_f1(probs: list, data: list, threshold: float, tolerance_px: float = 2.0) -> float:
    """F1 where a pixel is right if the other mask has one within 2 px (Euclidean), summed over the data set."""
    hit = predicted = found = true = 0
    for prob, (_, mask) in zip(probs, data, strict=True):
        positive, truth = prob > threshold, mask == 1
        for a, b, precision in ((positive, truth, True), (truth, positive, False)):
            near = cv2.distanceTransform((~b).astype(np.uint8), cv2.DIST_L2, 5) <= tolerance_px if b.any() else b
            if precision:
                hit, predicted = hit + int((a & near).sum()), predicted + int(a.sum())
            else:
                found, true = found + int((a & near).sum()), true + int(a.sum())
    precision, recall = hit / max(predicted, 1), found / max(true, 1)
    return 2 * precision * recall / max(precision + recall, 1e-9)


def arguments(description: str | None, epochs: int) -> argparse.ArgumentParser:
    """What every peer's script takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    return parser


def begin(args: argparse.Namespace) -> float:
    """Threads and seed as asked for; the time at which the run begins."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    torch.manual_seed(args.seed)
    return time.perf_counter()


def main() -> None:
    parser = arguments(__doc__, epochs=30)
    parser.add_argument("--net", choices=("unet", "segformer", "fpn"), default="unet")
    args = parser.parse_args()
    start = begin(args)
    splits = {name: load(args.data, name) for name in ("train", "valid", "test")}
    net = network(args.net).to(memory_format=torch.channels_last)
    train(net, splits["train"], args.seed, args.epochs, args.batch)
    train_s = time.perf_counter() - start
    valid, test = probabilities(net, splits["valid"]), probabilities(net, splits["test"])
    grid = np.arange(0.05, 0.951, 0.05)
    dice = [2 * tp / max(2 * tp + fp + fn, 1) for tp, fp, fn in (counts(valid, splits["valid"], t) for t in grid)]
    threshold = float(grid[int(np.argmax(dice))])
    result = {
        "net": args.net,
        "seed": args.seed,
        "epochs": args.epochs,
        "train_s": train_s,
        "threshold": threshold,
        "valid_dice": max(dice),
        "wall_s": time.perf_counter() - start,
    }
    for name, t in (("0.5", 0.5), ("valid", threshold)):
        tp, fp, fn = counts(test, splits["test"], t)
        result[f"iou@{name}"] = tp / (tp + fp + fn)
        result[f"f1_2px@{name}"] = tolerant_f1(test, splits["test"], t)
    args.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
