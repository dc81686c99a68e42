"""A training sample: geometry of image and mask together, then colour.

Every random number comes from the generator that is handed in, so that a sample depends on (seed, pass, index) alone,
never on the order in which workers ran. A switch that is off draws nothing.

Shapes: image (3, H, W) uint8, fastest as a view of (H, W, 3) memory; mask (H, W) uint8 with 255 = ignored.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segwright.datasets.base import IGNORE
from segwright.transforms.colour import recolour
from segwright.transforms.config import Config
from segwright.transforms.sizes import Size, resize
from segwright.transforms.warp import Flips, warp
from segwright.transforms.windows import Window, draw_window, visible

Pair = tuple[Tensor, Tensor]
"""An image (3, H, W) and its mask (H, W)."""


class Augment:
    """(image, mask, generator, size) -> (image, mask): a random window, flips, turns, colour.

    `size` is what the network sees of a whole image; the result has it, or the configured crop.
    """

    def __init__(
        self,
        config: Config,
        fill: Sequence[float] = (0.485, 0.456, 0.406),
    ) -> None:
        """`fill`: RGB in 0..1 of what lies outside an image."""
        self.config = config
        self.fill = np.array([round(255 * value) for value in fill], np.uint8)

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator, size: Size) -> Pair:
        pixels, ids = self._moved(image, mask, rng, size, self.config.window() or size)
        return _tensors(recolour(pixels, rng, self.config), ids)

    def companions(self, rng: np.random.Generator, length: int) -> list[int]:
        """Three indices below `length` whose images join in a mosaic, or none. To be asked before the augmentation."""
        if not self.config.mosaic or rng.random() >= self.config.mosaic:
            return []
        return rng.integers(0, length, 3).tolist()

    def mosaic(self, pairs: Sequence[Pair], rng: np.random.Generator, size: Size | None) -> Pair:
        """Four images in the quarters around a random point of the middle half, each cropped, turned and scaled by
        itself, at the scale that it has without a mosaic; then one light for all. `size` as above; None: the first
        image's own."""
        own = [(mask.shape[0], mask.shape[1]) for _, mask in pairs]
        height, width = self.config.window() or size or own[0]
        middle, centre = round(rng.uniform(0.25, 0.75) * height), round(rng.uniform(0.25, 0.75) * width)
        pixels, ids = np.empty((height, width, 3), np.uint8), np.empty((height, width), np.uint8)
        corners = [(rows, columns) for rows in (slice(0, middle), slice(middle, height))
                   for columns in (slice(0, centre), slice(centre, width))]  # fmt: skip
        for (rows, columns), (image, mask), have in zip(corners, pairs, own, strict=True):
            out = (rows.stop - rows.start, columns.stop - columns.start)
            pixels[rows, columns], ids[rows, columns] = self._moved(image, mask, rng, size or have, out)
        return _tensors(recolour(pixels, rng, self.config), ids)

    def _moved(
        self, image: Tensor, mask: Tensor, rng: np.random.Generator, size: Size, out: Size
    ) -> tuple[np.ndarray, np.ndarray]:
        """All that moves both: (h, w, 3) and (h, w) of size `out`."""
        turns = int(rng.integers(0, 4)) if self.config.rot90 else 0
        upright = out if turns % 2 == 0 else (out[1], out[0])
        window, degrees = self._window(mask, rng, size, upright)
        flips = Flips(across=rng.random() < self.config.hflip, down=rng.random() < self.config.vflip)
        if degrees:
            pixels, ids = warp(*_arrays(image, mask), window, degrees, upright, flips, self.fill)
        else:
            pixels, ids = (flips.of(array) for array in self._upright(image, mask, window, upright))
        if turns:
            pixels, ids = np.ascontiguousarray(np.rot90(pixels, turns)), np.ascontiguousarray(np.rot90(ids, turns))
        return pixels, ids

    def _window(self, mask: Tensor, rng: np.random.Generator, size: Size, out: Size) -> tuple[Window, float]:
        """A window of the original that becomes `out`, and an angle: as if the image were brought to `size`, turned,
        enlarged by a random scale and cropped, but resampled once."""
        have = (mask.shape[0], mask.shape[1])
        scale = float(rng.uniform(*self.config.scale))
        degrees = float(rng.uniform(-self.config.rotate, self.config.rotate)) if self.config.rotate else 0.0
        wanted = (
            max(1, round(out[0] * have[0] / (size[0] * scale))),
            max(1, round(out[1] * have[1] / (size[1] * scale))),
        )
        if wanted == have and not degrees:
            return Window(0, 0, *have), degrees
        return draw_window(mask.numpy(), wanted, rng, self.config), degrees

    def _upright(self, image: Tensor, mask: Tensor, window: Window, out: Size) -> tuple[np.ndarray, np.ndarray]:
        """The window's part inside the image at its place in the frame, the rest filled."""
        box = visible(window, (mask.shape[0], mask.shape[1]))
        zoom = (out[0] / window.height, out[1] / window.width)
        place = (round((box.top - window.top) * zoom[0]), round((box.left - window.left) * zoom[1]))
        inner = (
            min(out[0] - place[0], max(1, round(box.height * zoom[0]))),
            min(out[1] - place[1], max(1, round(box.width * zoom[1]))),
        )
        rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
        pixels, ids = _arrays(*resize(image[:, rows, columns], mask[rows, columns], inner))
        return (pixels, ids) if inner == out else self._paste(pixels, ids, place, out)

    def _paste(self, pixels: np.ndarray, ids: np.ndarray, place: Size, out: Size) -> tuple[np.ndarray, np.ndarray]:
        canvas = np.empty((*out, 3), np.uint8)
        canvas[:] = self.fill
        labels = np.full(out, IGNORE, np.uint8)
        rows, columns = slice(place[0], place[0] + ids.shape[0]), slice(place[1], place[1] + ids.shape[1])
        canvas[rows, columns], labels[rows, columns] = pixels, ids
        return canvas, labels


def _arrays(image: Tensor, mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(h, w, 3) and (h, w), in rows without gaps as OpenCV likes them."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy()), np.ascontiguousarray(mask.numpy())


def _tensors(pixels: np.ndarray, ids: np.ndarray) -> Pair:
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(ids)
