"""The peer's side of the CamVid comparison: segmentation_models.pytorch's Segformer (mit_b0) and a plain PyTorch loop.

From random weights, 6 epochs of 45 steps, batch 8, crops of 240 x 320, cross-entropy; mIoU of `test` from one confusion
matrix at the original size. Last weights, no test-time augmentation. `camvid.yaml` has the same budget for Segwright,
and adds Dice to the loss.

    python benchmarks/camvid_peer.py --data ../shared/data/camvid --seed 0 --out peer.json
"""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from crack_peer import IGNORE, arguments, begin, forward, tensor, train
from torch.nn import functional as F

CLASSES = 11
CROP = (240, 320)


def load(root: Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """RGB uint8 images and masks of class ids of one split."""
    return [
        (
            cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB),
            cv2.imread(str(root / split / "masks" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED),
        )
        for path in sorted((root / split / "images").iterdir())
    ]


def loss_of(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, mask, ignore_index=IGNORE)


@torch.inference_mode()
def confusion(net: torch.nn.Module, data: list) -> np.ndarray:
    """(K, K): truth x prediction, in pixels over the whole split."""
    net.eval()
    total = np.zeros((CLASSES, CLASSES), np.int64)
    for image, mask in data:
        predicted = forward(net, tensor(image.astype(np.float32))[None])[0].argmax(0).numpy()
        known = mask != IGNORE
        total += np.bincount(mask[known].astype(int) * CLASSES + predicted[known], minlength=CLASSES**2).reshape(
            CLASSES, CLASSES
        )
    return total


def main() -> None:
    args = arguments(__doc__, epochs=6).parse_args()
    start = begin(args)
    splits = {name: load(args.data, name) for name in ("train", "test")}
    net = smp.Segformer("mit_b0", encoder_weights=None, classes=CLASSES).to(memory_format=torch.channels_last)
    train(net, splits["train"], args.seed, args.epochs, args.batch, loss_of, crop=CROP, vertical=False)
    train_s = time.perf_counter() - start
    counts = confusion(net, splits["test"])
    hit = np.diag(counts)
    iou = hit / (counts.sum(0) + counts.sum(1) - hit)
    result = {
        "seed": args.seed,
        "epochs": args.epochs,
        "train_s": train_s,
        "wall_s": time.perf_counter() - start,
        "miou": float(iou.mean()),
        "iou": [round(float(value), 4) for value in iou],
        "pixel_accuracy": float(hit.sum() / counts.sum()),
    }
    args.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
