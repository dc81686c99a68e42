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
from segwright.model import Segmenter, probabilities
from segwright.transforms import Size, normalise


@dataclass(frozen=True, kw_only=True)
class Config:
    threshold: float = 0.40
    """A pixel is positive where its probability is at least this; for one class only."""
    resize: Literal["nearest", "logits"] = "nearest"
    """How a prediction comes back to the image's own size: the mask's nearest pixel, or the logits bilinear first."""
    flips: bool = False
    """Average the logits over the four flips: four times the work."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"predict.threshold is {self.threshold}; a probability between 0 and 1 is needed.")


class Predictor:
    """Runs a model in evaluation mode. `model` is the wrapped one, `bare` the one whose normalisation holds."""

    def __init__(self, model: nn.Module, bare: Segmenter, engine: Engine, config: Config) -> None:
        self.model, self.bare, self.engine, self.config = model, bare, engine, config

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, h, w) -> logits (B, K, h, w) in fp32, with flips where the config asks."""
        self.model.eval()
        x = images.to(self.engine.device).contiguous(memory_format=torch.channels_last)
        x = normalise(x, self.bare.encoder.mean, self.bare.encoder.std)
        turns: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)] if self.config.flips else [()]
        return torch.stack([self.model(x.flip(t)).float().flip(t) for t in turns]).mean(0)

    def samples(self, samples: list[dict[str, Any]]) -> list[Tensor]:
        """Logits (K, h, w) of each sample, stacked where shapes agree, in the samples' order."""
        groups: dict[Any, list[int]] = defaultdict(list)
        for position, sample in enumerate(samples):
            groups[sample["image"].shape].append(position)
        out: dict[int, Tensor] = {}
        for positions in groups.values():
            stacked = self.logits(torch.stack([samples[i]["image"] for i in positions]))
            out |= dict(zip(positions, stacked, strict=True))
        return [out[i] for i in range(len(samples))]

    def at_size(self, logits: Tensor, size: Size) -> np.ndarray:
        """Logits (K, h, w) -> probabilities (K, H, W) at the image's own size."""
        if logits.shape[-2:] != size:
            mode = "nearest-exact" if self.config.resize == "nearest" else "bilinear"
            aligned = {} if mode == "nearest-exact" else {"align_corners": False}
            logits = F.interpolate(logits[None], size=size, mode=mode, **aligned)[0]
        return probabilities(logits[None])[0].cpu().numpy()

    def mask(self, probability: np.ndarray) -> np.ndarray:
        """(K, H, W) probabilities -> (H, W) uint8 class ids; for one class 0 and 1."""
        if len(probability) == 1:
            return (probability[0] >= self.config.threshold).astype(np.uint8)
        return probability.argmax(0).astype(np.uint8)
