"""Running a model over a split and counting: shared by validation and evaluation."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from segwright.errors import DataError
from segwright.inference import Predictor, TreeDecoder
from segwright.metrics import Counts, NearF1, ThresholdSweep, scores
from segwright.progress import bar
from segwright.transforms import resize_mask
from segwright.verbs.tree_scores import TreeTally


class Tally:
    """The counts of one split; `thorough` adds, for one class, those at every threshold and the tolerant F1; a tree
    adds those on its levels."""

    def __init__(self, num_classes: int, thorough: bool = False, tree: TreeDecoder | None = None) -> None:
        self.tree = TreeTally(tree.hierarchy) if tree else None
        self.counts = Counts(num_classes)
        self.sweep = ThresholdSweep() if num_classes == 1 and thorough else None
        self.near = NearF1() if num_classes == 1 and thorough else None

    def add(self, probability: np.ndarray | None, prediction: np.ndarray, truth: np.ndarray) -> None:
        """One image: probabilities (1, H, W) for one class, class ids (H, W) and the mask (H, W)."""
        self.counts.add(prediction, truth)
        if self.sweep:
            assert probability is not None
            self.sweep.add(probability[0], truth)
        if self.near:
            self.near.add(prediction, truth)

    def reduce(self, add: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """The counts of all processes, with what adds a tensor up over them."""
        self.counts.reduce(add)
        if self.tree:
            self.tree.reduce(add)


def validation(predictor: Predictor, batches: DataLoader, num_classes: int, loss: nn.Module) -> dict[str, float]:
    """Loss at the network's size; IoU, Dice, precision and recall at the images' own size. Of several processes each
    runs over its batches, and all have the scores of all images. Raises `DataError` where there is nothing to score."""
    engine, tally, losses = predictor.engine, Tally(num_classes, tree=predictor.tree), []
    engine.share_buffers(predictor.bare)
    with bar("validate", len(batches)) as progress:
        for samples in batches:
            logits = predictor.samples(samples)
            losses += [sample_loss(loss, x, sample) for x, sample in zip(logits, samples, strict=True)]
            add_samples(tally, predictor, samples, logits)
            progress.advance()
    tally.reduce(engine.sum)
    if num_classes > 1 and not tally.counts.total().any():
        raise DataError(
            "no pixel of the validation split says which class it is (all are ignored, or coarse labels), so no epoch "
            "could be told from another. Give it masks with classes."
        )
    total, images = engine.sum(torch.tensor([math.fsum(losses), len(losses)], dtype=torch.float64)).tolist()
    of_tree = tally.tree.scores() if tally.tree else {}
    return {"loss": total / images, **scores(tally.counts.total()), **of_tree}


def sample_loss(loss: nn.Module, logits: torch.Tensor, sample: dict[str, Any]) -> float:
    """One image's loss, with the mask at the network's size."""
    height, width = sample["image"].shape[-2:]
    mask = resize_mask(sample["mask"], (height, width)).long()
    with torch.inference_mode():
        return float(loss(logits[None], mask[None].to(logits.device)))


def add_samples(tally: Tally, predictor: Predictor, samples: list[dict[str, Any]], logits: list[torch.Tensor]) -> None:
    """Counts each sample at its own size."""
    for sample, x in zip(samples, logits, strict=True):
        truth = sample["mask"].numpy()
        if tally.tree:
            levels, independent = predictor.levels(x, truth.shape)
            tally.add(None, levels[-1], tally.tree.leaves(truth))
            tally.tree.add(levels, independent, truth)
            continue
        if len(x) > 1:  # only one class has a threshold, and so a use for its probabilities
            tally.add(None, predictor.ids(x, truth.shape), truth)
            continue
        probability = predictor.at_size(x, truth.shape)
        tally.add(probability, predictor.mask(probability), truth)
