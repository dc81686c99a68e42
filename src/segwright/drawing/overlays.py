"""Masks drawn over photographs, and sheets of pictures. NumPy and Pillow only.

Shapes: H x W the picture in pixels, K classes. Colours are RGB uint8. 255 in a mask is never drawn.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segwright.files import printable
from segwright.large import strips

IGNORE = 255
CONTOUR_PER_PX = 1 / 600
"""Contours grow with the longer side, or they vanish when a large photograph is shown small."""
CELL_PX = 480
"""Wider or higher pictures are shrunk to this in a grid."""
PAPER, INK = (250, 250, 250), (25, 25, 25)
HIT, FALSE, MISSED = (240, 228, 66), (213, 94, 0), (86, 180, 233)
"""Yellow, vermilion and sky blue of Okabe and Ito's palette (https://jfly.uni-koeln.de/color): they differ in lightness
too, so they stay apart for every kind of colour blindness and in grey print."""

FIRST_COLOURS = (
    (255, 0, 110), (0, 114, 255), (255, 190, 0), (0, 200, 120), (150, 60, 230), (255, 105, 30), (0, 215, 235),
    (140, 85, 30), (255, 150, 205), (120, 145, 0), (0, 75, 110), (205, 205, 205), (130, 0, 25), (170, 255, 120),
    (60, 60, 60), (185, 165, 255),
)  # fmt: skip


def palette(num_classes: int) -> np.ndarray:
    """Colours that differ, (K, 4) uint8 RGBA with K = num_classes; one class is binary: 2 rows, the first transparent.

    The first 16 are chosen by hand, magenta first: no concrete, asphalt or skin has it. Each further one is the colour
    of a coarse RGB lattice that lies farthest from all before it.
    """
    colours = np.array(FIRST_COLOURS, np.int64)
    levels = np.linspace(0, 255, 9).astype(np.int64)
    lattice = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    nearest = np.abs(lattice[:, None] - colours).sum(-1).min(1)
    while len(colours) < num_classes:
        colours = np.concatenate([colours, lattice[nearest.argmax()][None]])
        nearest = np.minimum(nearest, np.abs(lattice - colours[-1]).sum(-1))
    opaque = np.concatenate([colours, np.full((len(colours), 1), 255)], 1).astype(np.uint8)
    return np.concatenate([np.zeros((1, 4), np.uint8), opaque[:1]]) if num_classes == 1 else opaque[:num_classes]


def overlay(image: np.ndarray, mask: np.ndarray, palette: np.ndarray | None = None, alpha: float = 0.5) -> np.ndarray:
    """The classes' colours over the photograph, (H, W, 3) uint8; an opaque contour keeps thin regions visible.

    image (H, W, 3) uint8, no other type; mask (H, W) class ids; palette (K, 3) or (K, 4) with transparency, or none: id
    0 is background and left as it is. `alpha` is the opacity inside, 0 to 1.
    """
    colours = _colours_for(mask) if palette is None else np.asarray(palette)
    largest = int(mask[mask != IGNORE].max(initial=0))
    assert largest < len(colours), f"class {largest} has no colour: the palette has {len(colours)}"
    tables = _blended(colours, alpha)
    first = np.full(256, len(colours), np.intp)  # of each id's entries in a table
    first[: len(colours)] = np.arange(len(colours))
    first *= 2 * 256
    contour, laid = _contour(mask, _contour_px(mask)), np.empty_like(image)
    for rows in strips(mask.shape):
        entry = first[mask[rows]] + 256 * contour[rows]
        for channel in range(3):
            laid[rows, :, channel] = tables[channel].take(entry + image[rows, :, channel])
    return laid


def _blended(colours: np.ndarray, alpha: float) -> np.ndarray:
    """What becomes of a photograph's values, (3, (K + 1) * 2 * 256) uint8: for each channel, flat over id (K: none),
    inside or contour, and value. Looked up it is seven times as fast as worked out at each pixel."""
    opacity = np.ones(len(colours)) if colours.shape[1] == 3 else colours[:, 3] / 255
    cover = np.append(opacity, 0)[:, None, None] * np.array([[alpha], [1]])  # (K + 1, 2, 1)
    colour = np.concatenate([colours[:, :3], np.zeros((1, 3))]).T[..., None, None]  # (3, K + 1, 1, 1)
    return np.round(np.arange(256) * (1 - cover) + colour * cover).astype(np.uint8).reshape(3, -1)


def comparison(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Hits yellow, false alarms vermilion, misses blue over the darkened grey photograph, with a legend below it.

    image (H, W, 3) uint8; truth and prediction (H, W), 0 = background; another class than the true one is a false
    alarm, and where the truth is 255 nothing is drawn. Gives (H + legend, W, 3) uint8.
    """
    grey = np.asarray(Image.fromarray(image).convert("L"))
    picture = np.repeat((30 + grey // 2)[..., None], 3, -1)
    counted = truth != IGNORE
    picture[counted & (prediction != 0) & (prediction == truth)] = HIT
    picture[counted & (prediction != 0) & (prediction != truth)] = FALSE
    picture[counted & (prediction == 0) & (truth != 0)] = MISSED
    return np.concatenate([picture, legend(image.shape[1], {"hit": HIT, "false": FALSE, "missed": MISSED})])


def grid(images: Sequence[np.ndarray], titles: Sequence[str], columns: int) -> np.ndarray:
    """A contact sheet, (h, w, 3) uint8: the pictures in rows of `columns`, each with its caption below.

    images: (H, W, 3) uint8 each, of any sizes; those above 480 px are shrunk. A caption that is too long is cut.
    """
    assert images, "there is nothing to show"
    columns = min(columns, len(images))
    small = [_shrunk(image) for image in images]
    width, height = max(p.width for p in small), max(p.height for p in small)
    font = _font(max(width, 160))
    strip, gap = round(font.size) + 8, 8
    rows = -(-len(small) // columns)
    sheet = Image.new("RGB", (gap + columns * (width + gap), gap + rows * (height + strip + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (picture, title) in enumerate(zip(small, titles, strict=True)):
        left, top = gap + number % columns * (width + gap), gap + number // columns * (height + strip + gap)
        sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
        draw.text((left, top + height + 3), _fitted(title, font, width), INK, font)
    return np.asarray(sheet)


def _colours_for(mask: np.ndarray) -> np.ndarray:
    largest = int(mask[mask != IGNORE].max(initial=0))
    return palette(1) if largest <= 1 else np.concatenate([np.zeros((1, 4), np.uint8), palette(largest + 1)[:-1]])


def _contour_px(mask: np.ndarray) -> int:
    return max(1, round(max(mask.shape) * CONTOUR_PER_PX))


def _contour(mask: np.ndarray, thickness_px: int) -> np.ndarray:
    """(H, W) bool: pixels with another class within so many steps up, down, left or right."""
    edge = np.zeros(mask.shape, bool)
    vertical, horizontal = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    for _ in range(thickness_px - 1):
        grown = edge.copy()
        grown[1:] |= edge[:-1]
        grown[:-1] |= edge[1:]
        grown[:, 1:] |= edge[:, :-1]
        grown[:, :-1] |= edge[:, 1:]
        edge = grown
    return edge


def legend(width: int, entries: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """(h, width, 3) uint8: a patch and a word for each entry, broken into lines where the picture is narrow."""
    font = _font(width)
    patch = round(font.size)
    places, left, line = [], 4, 0
    for word in entries:
        needed = patch + 4 + int(font.getlength(word)) + 12
        if left > 4 and left + needed > width:
            left, line = 4, line + 1
        places.append((left, line))
        left += needed
    strip = Image.new("RGB", (width, (line + 1) * (patch + 6) + 2), (30, 30, 30))
    draw = ImageDraw.Draw(strip)
    for (word, colour), (left, line) in zip(entries.items(), places, strict=True):
        top = 4 + line * (patch + 6)
        draw.rectangle((left, top, left + patch, top + patch - 1), colour)
        draw.text((left + patch + 4, top - 2), word, (240, 240, 240), font)
    return np.asarray(strip)


def _font(width_px: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, in a size that suits a picture of that width."""
    font = ImageFont.load_default(size=float(np.clip(width_px // 20, 10, 36)))
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _shrunk(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
    return picture


def _fitted(title: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    """One line that fits. A file name may hold line breaks, or bytes that are no text."""
    line = " ".join(printable(title).split())
    if font.getlength(line) <= width_px:
        return line
    while line and font.getlength(line + "...") > width_px:
        line = line[:-1]
    return line + "..."
