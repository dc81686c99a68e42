"""What happens to the colours: light (brightness, contrast, saturation, hue), lens (blur), sensor (noise). Uses OpenCV.

Brightness and contrast are one look-up table of 256 values, saturation and hue one 3x3 matrix: two passes over
uint8 in place of a conversion to floating point and back for each of the four.

Shapes: image (H, W, 3) uint8 RGB.
"""

import math

import cv2
import numpy as np

from segwright.transforms.config import Config

LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601 weights of red, green and blue."""
BLUR_PX = (0.3, 2.0)
"""Range of the blur's standard deviation."""
NOISE_LEVELS = (2.0, 12.0)
"""Range of the noise's standard deviation, in grey levels of 256."""

_CHROMA = np.array([LUMA, np.array([0, 0, 1]) - LUMA, np.array([1, 0, 0]) - LUMA]) * np.array([[1], [0.492], [0.877]])
"""RGB -> Y, U = 0.492 (B - Y), V = 0.877 (R - Y) (ITU-R BT.470). Hue turns the plane of U and V, saturation stretches
it."""
_FROM_CHROMA = np.linalg.inv(_CHROMA)
_LEVELS = np.arange(256)


def recolour(image: np.ndarray, rng: np.random.Generator, config: Config) -> np.ndarray:
    """Another light, and with their probabilities another lens and sensor."""
    image = _light(image, rng, config)
    if config.blur and rng.random() < config.blur:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*BLUR_PX))
    if config.noise and rng.random() < config.noise:
        image = _noisy(image, rng)
    return image


def _light(image: np.ndarray, rng: np.random.Generator, c: Config) -> np.ndarray:
    b, k, s = (1 + float(rng.uniform(-v, v)) for v in (c.brightness, c.contrast, c.saturation))
    turn = float(rng.uniform(-c.hue, c.hue)) if c.hue else 0.0
    if c.brightness or c.contrast:
        image = cv2.LUT(image, contrast_table(sum(cv2.sumElems(image)) / image.size, b, k))
    if c.saturation or c.hue:
        image = cv2.transform(image, chroma_matrix(s, turn).astype(np.float32))
    return image


def contrast_table(mean: float, brightness: float, contrast: float) -> np.ndarray:
    """(256,) uint8: x times `brightness`, then its distance from the mean grey times `contrast`."""
    mean *= brightness
    return ((_LEVELS * brightness - mean) * contrast + mean).round().clip(0, 255).astype(np.uint8)


def chroma_matrix(saturation: float, turn: float) -> np.ndarray:
    """(3, 3) RGB -> RGB that keeps greys and lumas: chroma times `saturation`, turned by `turn` of 360 degrees."""
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    change = np.array([[1, 0, 0], [0, saturation * cos, -saturation * sin], [0, saturation * sin, saturation * cos]])
    return _FROM_CHROMA @ change @ _CHROMA


def _noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(image.shape, np.float32)
    noise *= rng.uniform(*NOISE_LEVELS)
    noise += image
    return np.rint(noise, out=noise).clip(0, 255, out=noise).astype(np.uint8)
