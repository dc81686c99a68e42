"""A shallow path at full resolution that refines any head's map, for structures a few pixels thin.

A head's map ends at stride 4, where a crack of two pixels is half a pixel wide. This path reads the image itself with
a few convolutions at strides 1 and 2 and merges them with the head's map on the way back up, as the two finest levels
of a U-Net do (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597).

Shapes: B batch, E the head's width, D detail channels, K classes, H x W the image.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DetailPath(nn.Module):
    """image (B, C, H, W), the head's map (B, E, h, w) -> logits (B, K, H, W)."""

    def __init__(self, width: int, num_classes: int, detail: int = 16, in_channels: int = 3) -> None:
        super().__init__()
        self.full = nn.Sequential(_conv(in_channels, detail), _conv(detail, detail))
        self.half = nn.Sequential(_conv(detail, 2 * detail), _conv(2 * detail, 2 * detail))
        self.merge_half = nn.Sequential(_conv(width + 2 * detail, 2 * detail), _conv(2 * detail, 2 * detail))
        self.merge_full = nn.Sequential(_conv(3 * detail, detail), _conv(detail, detail))
        self.classifier = nn.Conv2d(detail, num_classes, 1)

    def forward(self, image: Tensor, coarse: Tensor) -> Tensor:
        full = self.full(image)
        half = self.half(F.max_pool2d(full, 2, ceil_mode=True))
        half = self.merge_half(torch.cat([half, _enlarge(coarse, half)], dim=1))
        return self.classifier(self.merge_full(torch.cat([full, _enlarge(half, full)], dim=1)))


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")
