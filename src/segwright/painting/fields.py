"""Fields over the picture: noise, relief, blur, blending; and light, lens and sensor. Tones: 0 black, 1 white."""

from collections.abc import Sequence

import numpy as np

Size = tuple[int, int]
Rng = np.random.Generator


def texture(rng: Rng, size: Size, scale_px: float, slope: float) -> np.ndarray:
    """Noise (H, W), mean 0 and deviation 1, flat above `scale_px` and falling as f^-slope below: 1 rough, 4 smooth."""
    rows, columns = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    weight = (1 + (rows**2 + columns**2) * scale_px**2 * 4) ** (-slope / 2)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(size)) * weight, s=size)
    return (field - field.mean()) / field.std()


def relief(height: np.ndarray, light: float) -> np.ndarray:
    """What a low light from that angle makes of a height field: bright on the near side, dark on the far one."""
    down, right = np.gradient(height)
    return -(np.cos(light) * right + np.sin(light) * down)


def blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """Gaussian blur along the first two axes; the border is mirrored."""
    reach = int(np.ceil(3 * sigma_px))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(image.ndim)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, pad, "reflect"), 2 * reach + 1, axis)
        image = windows @ (kernel / kernel.sum())
    return image


def ramp(field: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 at `start`, 1 at `end`, straight between."""
    return np.clip((field - start) / (end - start), 0, 1)


def blend(scene: np.ndarray, opacity: np.ndarray, colour: Sequence[float] | np.ndarray) -> np.ndarray:
    return scene + opacity[..., None] * (np.asarray(colour) - scene)


def engrave(scene: np.ndarray, depth: np.ndarray, light: float) -> np.ndarray:
    """Darkens the ground by `depth` (H, W), 0 to 1, towards a dirty brown, and lets the light catch the far edge."""
    rim = np.clip(relief(blur(depth, 0.8), light + np.pi), 0, None) * (depth < 0.2)
    return blend(scene, depth, 0.22 * scene + np.array([0.035, 0.03, 0.025])) + 0.3 * rim[..., None] * scene


def lighting(rng: Rng, size: Size) -> np.ndarray:
    """(H, W) about 1: a slope, soft patches and the lens's dark corners."""
    down, right = np.meshgrid(*(np.linspace(-1, 1, side) for side in size), indexing="ij")
    angle = rng.uniform(-np.pi, np.pi)
    slope = rng.uniform(0, 0.22) * (np.cos(angle) * right + np.sin(angle) * down)
    patches = 0.04 * texture(rng, size, 200, 3)
    return (1 + slope + patches) * (1 - rng.uniform(0.02, 0.16) * (down**2 + right**2)) * rng.uniform(0.8, 1.12)


def photograph(rng: Rng, scene: np.ndarray) -> np.ndarray:
    """Lens blur, white balance, a gentle tone curve and a sensor's noise, finer in green: (H, W, 3) in 0..1."""
    image = blur(scene, rng.uniform(0.35, 0.7)) * (1 + rng.normal(0, 0.015, 3))
    image = np.clip(image, 0, 1)
    image += 0.15 * (image * image * (3 - 2 * image) - image)
    noise = rng.normal(0, 1, image.shape) * np.array([1.2, 1, 1.4]) * rng.uniform(0.006, 0.018)
    return np.clip(image + noise * np.sqrt(0.3 + image), 0, 1)
