"""What may be done to a training sample."""

from dataclasses import dataclass
from typing import Any

from segwright.errors import ConfigError
from segwright.transforms.sizes import Size, as_size

_PROBABILITIES = ("hflip", "vflip", "foreground", "rare", "mosaic", "blur", "noise")
LEAST_SCALE = 0.1
"""An image is brought to 32 pixels a side or more (`input.size`), so that at least 3 are left."""
_FACTORS = ("brightness", "contrast", "saturation")


@dataclass(frozen=True, kw_only=True)
class Config:
    hflip: float = 0.5
    """Probability of a left-right flip."""
    vflip: float = 0.5
    """Probability of an up-down flip."""
    rot90: bool = False
    """Rotate by a random multiple of 90 degrees."""
    rotate: float = 0.0
    """Rotate by up to so many degrees either way. Corners that the image does not reach are filled and ignored."""
    scale: tuple[float, float] = (0.75, 1.5)
    """Range of the random enlargement before cropping back, from 0.1 on; (1, 1) switches it off."""
    crop: Any = None
    """Size of the training crop in pixels, a side or [height, width]; none: the input size."""
    foreground: float = 0.0
    """Share of crops that are centred near a pixel of a class other than 0."""
    rare: float = 0.0
    """Share of crops that are centred near a pixel of one class, drawn with equal chance among those in the image;
    `foreground` is a share of the others."""
    mosaic: float = 0.0
    """Probability of a sample made of crops of four images, its own and three random ones."""
    brightness: float = 0.2
    """b: brightness is multiplied by a number from [1 - b, 1 + b]."""
    contrast: float = 0.2
    """c: the same for the distance from the mean grey."""
    saturation: float = 0.2
    """s: the same for the distance of each pixel from its own grey."""
    hue: float = 0.0
    """h: all colours are turned around the axis of grey by up to h of a full turn, at most 0.5."""
    blur: float = 0.0
    """Probability of a Gaussian blur of 0.3 to 2 px."""
    noise: float = 0.0
    """Probability of Gaussian noise of 2 to 12 grey levels."""

    def __post_init__(self) -> None:
        for name in _PROBABILITIES:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"augment.{name} is {value}; it is a probability. Give a number from 0 to 1.")
        for name in _FACTORS:
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"augment.{name} is {value}; 1 or more would blacken images. Give 0 up to 0.9.")
        if not 0 <= self.hue <= 0.5:
            raise ConfigError(f"augment.hue is {self.hue}; half a turn reaches every colour. Give 0 to 0.5.")
        if not 0 <= self.rotate <= 180:
            raise ConfigError(f"augment.rotate is {self.rotate}; it is an angle in degrees. Give 0 to 180.")
        low, high = self.scale
        if not LEAST_SCALE <= low <= high:
            raise ConfigError(
                f"augment.scale is {list(self.scale)}; it must be (low, high) with {LEAST_SCALE} <= low <= high. "
                "Smaller, an image may be left without a pixel."
            )
        if (size := self.window()) is not None and min(size) < 32:
            raise ConfigError(f"augment.crop is {self.crop}; encoders go down to stride 32. Give 32 or more.")

    def window(self) -> Size | None:
        """(height, width) of the crop, or None for the input size."""
        return None if self.crop is None else as_size("augment.crop", self.crop)
