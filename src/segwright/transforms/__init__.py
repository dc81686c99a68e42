"""Resizing, augmentation and normalisation of an image and its mask together."""

from segwright.transforms.augment import Augment, Pair
from segwright.transforms.config import Config
from segwright.transforms.sizes import Size, as_size, normalise, resize, resize_image, resize_mask

__all__ = ["Augment", "Config", "Pair", "Size", "as_size", "normalise", "resize", "resize_image", "resize_mask"]
