"""Resizing of an image and its mask, and normalisation.

Shapes: image (3, H, W) uint8, mask (H, W) uint8 with 255 = ignored.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from segwright.errors import ConfigError

Size = tuple[int, int]
"""(height, width) in pixels."""


def as_size(key: str, value: Any) -> Size:
    """(height, width) of a side, or of a pair of them. Raises `ConfigError`, which names the key."""
    pair = [value, value] if isinstance(value, int) else value
    if isinstance(pair, list | tuple) and len(pair) == 2 and all(type(side) is int for side in pair):
        return pair[0], pair[1]
    raise ConfigError(f"{key} is {value!r}; give a number of pixels, or (height, width), or null.")


def resize(image: Tensor, mask: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Both at `size`: the image bilinear and antialiased, the mask by its nearest pixel."""
    return resize_image(image, size), resize_mask(mask, size)


def resize_image(image: Tensor, size: Size) -> Tensor:
    """An image (3, H, W) at another size, bilinear and antialiased."""
    if image.shape[-2:] == size:
        return image
    return TF.resize_image(image, list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True)


def resize_mask(mask: Tensor, size: Size) -> Tensor:
    """A mask (H, W) at another size by its nearest pixel (pixel centres aligned, as PIL's NEAREST)."""
    if mask.shape == size:
        return mask
    wrapped = tv_tensors.Mask(mask[None])
    return TF.resize(wrapped, list(size), interpolation=v2.InterpolationMode.NEAREST_EXACT)[0].as_subclass(Tensor)


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (B, 3, H, W) in 0..255 -> float, (x / 255 - mean) / std, in the image's memory format."""
    shape = (1, -1, 1, 1)
    scale = 1 / (255 * torch.tensor(std, device=image.device).view(shape))
    shift = torch.tensor(mean, device=image.device).view(shape) * 255
    return (image.float() - shift) * scale
