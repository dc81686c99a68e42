"""Resizing, augmentation and normalisation of an image and its mask together.

All geometry goes through torchvision.transforms.v2 functions; every random number comes from the generator that is
handed in, so that a sample depends on (seed, epoch, index) alone, never on the order in which workers ran.

Shapes: image (3, H, W) uint8, mask (H, W) uint8 with 255 = ignored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from segwright.datasets.base import IGNORE
from segwright.errors import ConfigError

Size = tuple[int, int]
"""(height, width) in pixels."""

LUMA = torch.tensor([0.299, 0.587, 0.114])
"""ITU-R BT.601 weights of red, green and blue."""


@dataclass(frozen=True, kw_only=True)
class Config:
    hflip: float = 0.5
    """Probability of a left-right flip."""
    vflip: float = 0.5
    """Probability of an up-down flip."""
    rot90: bool = False
    """Rotate by a random multiple of 90 degrees."""
    scale: tuple[float, float] = (0.75, 1.5)
    """Range of the random enlargement before cropping back; (1, 1) switches it off."""
    crop: int | None = None
    """Side of the square training crop in pixels; none: the input size."""
    foreground: float = 0.0
    """Share of crops that are centred near a pixel of a class other than 0."""
    brightness: float = 0.2
    """b: brightness is multiplied by a number from [1 - b, 1 + b]."""
    contrast: float = 0.2
    """c: the same for the distance from the mean grey."""
    saturation: float = 0.2
    """s: the same for the distance of each pixel from its own grey."""

    def __post_init__(self) -> None:
        for name in ("hflip", "vflip", "foreground"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"augment.{name} is {value}; it is a probability. Give a number from 0 to 1.")
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"augment.{name} is {value}; 1 or more would blacken images. Give 0 up to 0.9.")
        low, high = self.scale
        if not 0 < low <= high:
            raise ConfigError(f"augment.scale is {list(self.scale)}; it must be (low, high) with 0 < low <= high.")
        if self.crop is not None and self.crop < 32:
            raise ConfigError(f"augment.crop is {self.crop}; encoders go down to stride 32. Give 32 or more.")


def resize(image: Tensor, mask: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Both at `size`: the image bilinear and antialiased, the mask by its nearest pixel."""
    if image.shape[-2:] != size:
        image = TF.resize_image(image, list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    return image, resize_mask(mask, size)


def resize_mask(mask: Tensor, size: Size) -> Tensor:
    """A mask (H, W) at another size by its nearest pixel (pixel centres aligned, as PIL's NEAREST)."""
    if mask.shape == size:
        return mask
    wrapped = tv_tensors.Mask(mask[None])
    return TF.resize(wrapped, list(size), interpolation=v2.InterpolationMode.NEAREST_EXACT)[0].as_subclass(Tensor)


class Augment:
    """(image, mask, generator, size) -> (image, mask): a random window, flips, turns, colour.

    `size` is what the network sees of a whole image; the result has it, or the configured crop.
    """

    def __init__(self, config: Config, fill: Sequence[float] = (0.485, 0.456, 0.406)) -> None:
        self.config = config
        self.fill = torch.tensor([round(255 * value) for value in fill], dtype=torch.uint8)

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator, size: Size) -> tuple[Tensor, Tensor]:
        c = self.config
        turns = int(rng.integers(0, 4)) if c.rot90 else 0
        out = (c.crop, c.crop) if c.crop else size
        image, mask = self._window(image, mask, rng, size, out if turns % 2 == 0 else (out[1], out[0]))
        if rng.random() < c.hflip:
            image, mask = TF.horizontal_flip(image), TF.horizontal_flip(mask)
        if rng.random() < c.vflip:
            image, mask = TF.vertical_flip(image), TF.vertical_flip(mask)
        if turns:
            image, mask = torch.rot90(image, turns, (-2, -1)), torch.rot90(mask, turns, (-2, -1))
        return self._colour(image, rng), mask

    def _window(
        self, image: Tensor, mask: Tensor, rng: np.random.Generator, size: Size, out: Size
    ) -> tuple[Tensor, Tensor]:
        """A window of the original that becomes `out`, resampled once: as if the image were brought to `size`, enlarged
        by a random scale and cropped. What lies outside the image is filled and ignored."""
        have = (mask.shape[0], mask.shape[1])
        scale = float(rng.uniform(*self.config.scale))
        window = (
            max(1, round(out[0] * have[0] / (size[0] * scale))),
            max(1, round(out[1] * have[1] / (size[1] * scale))),
        )
        if window == have:
            return resize(image, mask, out)
        top, left = self._corner(mask, rng, window)
        box = _intersection((top, left), window, have)
        zoom = (out[0] / window[0], out[1] / window[1])
        place = (round((box[0] - top) * zoom[0]), round((box[1] - left) * zoom[1]))
        inner = (
            min(out[0] - place[0], max(1, round(box[2] * zoom[0]))),
            min(out[1] - place[1], max(1, round(box[3] * zoom[1]))),
        )
        image, mask = resize(TF.crop(image, *box), TF.crop(mask, *box), inner)
        return (image, mask) if inner == out else self._paste(image, mask, place, out)

    def _corner(self, mask: Tensor, rng: np.random.Generator, window: Size) -> Size:
        """Top left of the window: near a pixel of the foreground, else anywhere that wastes nothing."""
        if rng.random() < self.config.foreground:
            rows = torch.nonzero((mask != 0) & (mask != IGNORE))
            if len(rows):
                near = rows[int(rng.integers(len(rows)))].tolist()
                shift = (rng.uniform(0.25, 0.75) * window[0], rng.uniform(0.25, 0.75) * window[1])
                return tuple(_clip(round(near[i] - shift[i]), window[i], mask.shape[i]) for i in (0, 1))  # type: ignore[return-value]
        slack = [mask.shape[i] - window[i] for i in (0, 1)]
        corner = [int(rng.integers(min(s, 0), max(s, 0) + 1)) for s in slack]
        return corner[0], corner[1]

    def _paste(self, image: Tensor, mask: Tensor, place: Size, out: Size) -> tuple[Tensor, Tensor]:
        canvas = self.fill[:, None, None].expand(3, *out).clone()
        ids = torch.full(out, IGNORE, dtype=mask.dtype)
        rows, columns = slice(place[0], place[0] + mask.shape[0]), slice(place[1], place[1] + mask.shape[1])
        canvas[:, rows, columns] = image
        ids[rows, columns] = mask
        return canvas, ids

    def _colour(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Brightness and contrast by one look-up table, then saturation: ten times less work than ColorJitter."""
        c = self.config
        b, k, s = (1 + float(rng.uniform(-v, v)) for v in (c.brightness, c.contrast, c.saturation))
        if c.brightness or c.contrast:
            mean = float(image.numpy().mean()) * b
            table = ((np.arange(256) * b - mean) * k + mean).round().clip(0, 255).astype(np.uint8)
            image = torch.from_numpy(np.take(table, image.numpy()))
        if c.saturation:
            x = image.float()
            grey = (x * LUMA[:, None, None]).sum(0, keepdim=True)
            image = torch.lerp(grey.expand_as(x), x, s).round().clamp(0, 255).to(torch.uint8)
        return image


def _clip(corner: int, window: int, have: int) -> int:
    """A corner that keeps the window inside the image where it fits."""
    return max(min(corner, have - window), 0) if window <= have else max(min(corner, 0), have - window)


def _intersection(corner: Size, window: Size, have: Sequence[int]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the window's part that lies in the image."""
    top, left = max(corner[0], 0), max(corner[1], 0)
    return top, left, min(corner[0] + window[0], have[0]) - top, min(corner[1] + window[1], have[1]) - left


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (B, 3, H, W) in 0..255 -> float, (x / 255 - mean) / std, in the image's memory format."""
    shape = (1, -1, 1, 1)
    scale = 1 / (255 * torch.tensor(std, device=image.device).view(shape))
    shift = torch.tensor(mean, device=image.device).view(shape) * 255
    return (image.float() - shift) * scale
