"""SegFormer-lite's head: a small top-down pyramid.

Each map is reduced to one width by a 1x1 convolution; from the coarsest map on, the sum so far is enlarged to the next
finer map's size, added to it, and smoothed by a 3x3 convolution (Lin et al. 2017, "Feature Pyramid Networks",
https://arxiv.org/abs/1612.03144, section 3, with batch norm and ReLU behind each 3x3).

Shapes: B batch, C_i channels of stage i, E width, K classes, h x w the finest stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 32
    """E: channels of every level after its 1x1 reduction."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"head.width is {self.width}; a level needs at least 1 channel. 32 is the default.")


class LiteHead(nn.Module):
    """maps [(B, C_i, h_i, w_i)], finest first -> logits (B, K, h, w)."""

    def __init__(self, channels: Sequence[int], num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.reduce = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(_smooth(width) for _ in channels[:-1])
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """The finest level before it is classified, (B, E, h, w)."""
        x = self.reduce[-1](maps[-1])
        for level in reversed(range(len(maps) - 1)):
            finer = self.reduce[level](maps[level])
            x = F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            x = self.smooth[level](x + finer)
        return x

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.classifier(self.features(maps))


def _smooth(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def build(config: Config, channels: Sequence[int], num_classes: int) -> LiteHead:
    """The head for an encoder whose maps have `channels`, finest first."""
    return LiteHead(channels, num_classes, config.width)
