"""Masks and probabilities at each image's own size.

Shapes: K classes, h x w what the network sees, H x W the image's own size.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.engine import Engine
from segwright.errors import ConfigError
from segwright.inference.argmax import argmax_resized
from segwright.inference.levels import TreeDecoder
from segwright.model import Segmenter, enlarge, probabilities
from segwright.transforms import Size, normalise


@dataclass(frozen=True, kw_only=True)
class Config:
    threshold: float = 0.40
    """A pixel is positive where its probability is at least this; for one class only."""
    resize: Literal["nearest", "logits"] | None = None
    """How a prediction comes back to the image's own size: the mask's nearest pixel, or the logits bilinear first;
    none: nearest for one class, logits for several."""
    flips: bool = False
    """Average the logits over the four flips: four times the work."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"predict.threshold is {self.threshold}; a probability between 0 and 1 is needed.")


class Predictor:
    """Runs a model in evaluation mode. `model` is the wrapped one, `bare` the one whose normalisation holds.

    With a `tree` the logits are those of its nodes, and the classes its leaves.
    """

    def __init__(
        self, model: nn.Module, bare: Segmenter, engine: Engine, config: Config, tree: TreeDecoder | None = None
    ) -> None:
        self.model, self.bare, self.engine, self.config, self.tree = model, bare, engine, config, tree

    @torch.inference_mode()
    def logits(self, images: Tensor, resize: bool = True) -> Tensor:
        """uint8 (B, 3, h, w) -> logits (B, K, h, w) in fp32, with flips where the config asks.

        Without `resize`, logits that will be enlarged to the image's own size anyway stay as small as the head gives
        them: those of several classes at h x w are the largest thing in the whole prediction.
        """
        self.model.eval()
        x = images.to(self.engine.device).contiguous(memory_format=torch.channels_last)
        x = normalise(x, self.bare.encoder.mean, self.bare.encoder.std)
        turns: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)] if self.config.flips else [()]
        out = torch.stack([self.model(x.flip(t), resize=False).float().flip(t) for t in turns]).mean(0)
        if not resize and self._mode(out.shape[1]) == "logits" and out.shape[1] > 1:
            return out
        return enlarge(out, images.shape[-2:])

    def samples(self, samples: list[dict[str, Any]]) -> list[Tensor]:
        """Logits (K, h, w) of each sample, run together where shapes agree, in the samples' order; those of several
        classes may be as small as the head gives them."""
        groups: dict[Any, list[int]] = defaultdict(list)
        for position, sample in enumerate(samples):
            groups[sample["image"].shape].append(position)
        out: dict[int, Tensor] = {}
        for positions in groups.values():
            stacked = self.logits(torch.stack([samples[i]["image"] for i in positions]), resize=False)
            out |= dict(zip(positions, stacked, strict=True))
        return [out[i] for i in range(len(samples))]

    def at_size(self, logits: Tensor, size: Size) -> np.ndarray:
        """Logits (K, h, w) -> probabilities (K, H, W) at the image's own size."""
        if logits.shape[-2:] != size and self._mode(len(logits)) == "nearest":
            logits = F.interpolate(logits[None], size=size, mode="nearest-exact")[0]
        elif logits.shape[-2:] != size:
            logits = enlarge(logits[None], size)[0]
        of_classes = self.tree.probabilities(logits) if self.tree else probabilities(logits[None])[0]
        return of_classes.cpu().numpy()

    def mask(self, probability: np.ndarray) -> np.ndarray:
        """(K, H, W) probabilities -> (H, W) uint8 class ids; for one class 0 and 1."""
        if len(probability) == 1:
            return (probability[0] >= self.config.threshold).astype(np.uint8)
        return probability.argmax(0).astype(np.uint8)

    def ids(self, logits: Tensor, size: Size) -> np.ndarray:
        """Logits (K, h, w) -> (H, W) uint8 class ids at the image's own size: `mask` of `at_size`, but never with all
        of several classes at that size at once."""
        if len(logits) == 1:
            return self.mask(self.at_size(logits, size))
        if self.tree:
            return self.levels(logits, size)[0][-1]
        if self._mode(len(logits)) == "logits":
            return argmax_resized(logits, size).cpu().numpy()
        small = logits.argmax(0).to(torch.uint8)[None, None]
        return F.interpolate(small, size=size, mode="nearest-exact")[0, 0].cpu().numpy()

    def levels(self, logits: Tensor, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """Of a tree's logits (N, h, w) the places on each level at the image's own size, (D, H, W) uint8: as they are
        decoded, and as each level decides by itself."""
        assert self.tree is not None
        small: Size = size if self._mode(len(logits)) == "logits" else (logits.shape[-2], logits.shape[-1])
        found = torch.stack([self.tree.levels(logits, small), self.tree.independent(logits, small)])
        if small != size:
            found = F.interpolate(found, size=size, mode="nearest-exact")
        decoded, independent = found.cpu().numpy()
        return decoded, independent

    def _mode(self, num_classes: int) -> str:
        """`predict.resize`, or what stands for it: nearest is the crack system's way, bilinear the better one."""
        return self.config.resize or ("nearest" if num_classes == 1 else "logits")
