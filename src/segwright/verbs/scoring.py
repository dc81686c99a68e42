"""Running a model over a split and counting: shared by validation and evaluation."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from segwright.inference import Predictor
from segwright.metrics import Counts, NearF1, ThresholdSweep, scores
from segwright.progress import bar
from segwright.transforms import resize_mask


class Tally:
    """The counts of one split; `thorough` adds, for one class, those at every threshold and the tolerant F1."""

    def __init__(self, num_classes: int, thorough: bool = False) -> None:
        self.counts = Counts(num_classes)
        self.sweep = ThresholdSweep() if num_classes == 1 and thorough else None
        self.near = NearF1() if num_classes == 1 and thorough else None

    def add(self, probability: np.ndarray, prediction: np.ndarray, truth: np.ndarray) -> None:
        """One image: probabilities (K, H, W), class ids (H, W) and the mask (H, W)."""
        self.counts.add(prediction, truth)
        if self.sweep:
            self.sweep.add(probability[0], truth)
        if self.near:
            self.near.add(prediction, truth)


def validation(predictor: Predictor, batches: DataLoader, num_classes: int, loss: nn.Module) -> dict[str, float]:
    """Loss at the network's size; IoU, Dice, precision and recall at the images' own size."""
    tally, losses = Tally(num_classes), []
    with bar("validate", len(batches)) as progress:
        for samples in batches:
            logits = predictor.samples(samples)
            losses += [sample_loss(loss, x, sample) for x, sample in zip(logits, samples, strict=True)]
            add_samples(tally, predictor, samples, logits)
            progress.advance()
    return {"loss": float(np.mean(losses)), **scores(tally.counts.total())}


def sample_loss(loss: nn.Module, logits: torch.Tensor, sample: dict[str, Any]) -> float:
    """One image's loss, with the mask at the network's size."""
    mask = resize_mask(sample["mask"], tuple(logits.shape[-2:])).long()  # type: ignore[arg-type]
    return float(loss(logits[None], mask[None].to(logits.device)))


def add_samples(tally: Tally, predictor: Predictor, samples: list[dict[str, Any]], logits: list[torch.Tensor]) -> None:
    """Counts each sample at its own size."""
    for sample, x in zip(samples, logits, strict=True):
        truth = sample["mask"].numpy()
        probability = predictor.at_size(x, truth.shape)
        tally.add(probability, predictor.mask(probability), truth)
