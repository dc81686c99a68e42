"""Image files in. Knows nothing of data sets.

H x W is an image's height and width in pixels after its EXIF orientation is applied.

How each kind of pixel becomes RGB:
- grey, 1-bit, palette, YCbCr, CMYK: as Pillow converts them; colour profiles are not applied;
- transparency (RGBA, LA, a palette's or a colour key): dropped. The stored colours stay; nothing is laid on black or
  white;
- 16 bits, grey or RGB: 0..65535 becomes 0..255. An image whose values are all at most 255 is taken as it is: it is an
  8-bit image in a 16-bit file, for as 16 bits all of it would be black;
- of a file with several frames or pages, the first.
Everything else (floating point, Lab, 32-bit values above 65535) is refused.
"""

import re
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from segwright.errors import DataError
from segwright.large import alone, is_large
from segwright.png import chunks

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""File name endings of images, in lower case."""

MAX_PIXELS = 1_000_000_000
"""Above this an image is refused: 3 GB of RGB. The largest of ARTeFACT has 243,748,701 pixels; Pillow's own limit, set
against files that unpack to fill the memory, is 179 million and would refuse it."""

REPLACE = "Replace it (PNG or JPEG), or take it out of the data set."
"""What to do about an image file that cannot be read."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS

_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_TO_RGB = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_QUARTER_TURNED = (5, 6, 7, 8)


def read_image(path: str | Path) -> np.ndarray:
    """The image, (H, W, 3) uint8 RGB, writable.

    `DataError`, naming the file, if it is missing, broken or of an unknown kind.
    """
    return decoded(path, rgb)


@dataclass(frozen=True)
class Picture:
    """A loaded image, and what loading changed of it."""

    path: Path
    image: Image.Image
    bits: int
    """Of a grey level, index or channel in the file. Pillow makes 8 of 2 and 4, and of 16 in colour."""

    def colours(self) -> np.ndarray:
        """The stored values of an RGB or RGBA image, (H, W, 3) uint8 or uint16; not laid upright yet.

        `ValueError` where they cannot be had.
        """
        assert self.image.mode in ("RGB", "RGBA"), self.image.mode
        narrow = np.asarray(self.image)[..., :3]
        return narrow if self.bits <= 8 else _sixteen_bit(self, narrow)


def decoded(path: str | Path, pixels: Callable[[Picture], np.ndarray]) -> np.ndarray:
    """What `pixels` takes from the loaded image, (H, W) or (H, W, C), laid upright, writable. Errors as `read_image`.

    `pixels` raises `ValueError` for an image that it cannot use.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream, _opened(stream, path) as image:
            picture = Picture(path, image, _bits(image))  # loading forgets them
            image.load()
            taken = np.ascontiguousarray(upright(pixels(picture), _orientation(image)))
            return taken if taken.flags.writeable else taken.copy()
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a broken file makes Pillow's decoders raise almost anything
        raise _unreadable(path, error) from error


@dataclass(frozen=True)
class Kind:
    """What an image file's header says."""

    format: str
    """As Pillow calls it, e.g. `JPEG`."""
    mode: str
    """The kind of pixel as Pillow calls it, e.g. `RGB`."""
    stored: tuple[int, int]
    """(H, W) as the pixels lie in the file."""
    orientation: int
    """EXIF orientation, 1 to 8, that `read_image` applies."""
    transparency: bool
    """Whether pixels may be transparent."""
    deep: bool
    """Whether the file holds more than 8 bits a channel."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) as `read_image` gives it."""
        return self.stored[::-1] if self.orientation in _QUARTER_TURNED else self.stored


def image_kind(path: str | Path) -> Kind:
    """What the header says, without reading pixels. `DataError` as in `read_image`."""
    path = Path(path)
    try:
        with path.open("rb") as stream, _opened(stream, path) as image:
            width, height, orientation = _header(image, path)
            deep = image.mode in _GREY_16 or _bits(image) > 8
            clear = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
            return Kind(image.format or "", image.mode, (height, width), orientation, clear, deep)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # as above
        raise _unreadable(path, error) from error


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) as `read_image` would give it, from the header alone. `DataError` as there."""
    return image_kind(path).size


def alone_if_large(path: str | Path) -> AbstractContextManager[object]:
    """`large.alone` for the image in this file, by its header; nobody waits with what is no image that can be read."""
    return alone(_size_or_none(path))


def has_large_image(path: str | Path) -> bool:
    """`large.is_large` of the image in this file, by its header; False of what is no image that can be read."""
    size = _size_or_none(path)
    return size is not None and is_large(size)


def _size_or_none(path: str | Path) -> tuple[int, int] | None:
    try:
        return image_size(path) if Path(path).suffix.lower() in IMAGE_SUFFIXES else None
    except DataError:
        return None


def _opened(stream: BinaryIO, path: Path) -> Image.Image:
    # From a stream: by name, Pillow 11 to 13 map plain TIFF files into memory and scramble those that lie on a side.
    image = Image.open(stream)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DataError(
            f"{path} has {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} that are read at most, "
            "for they would fill the memory. Cut it into tiles."
        )
    return image


def rgb(picture: Picture) -> np.ndarray:
    """(H, W, 3) uint8, as the head of this file says; not laid upright yet."""
    image = picture.image
    if image.mode in _GREY_16:
        return np.repeat(_eight_bit(np.asarray(image))[:, :, None], 3, axis=2)
    if image.mode in ("RGB", "RGBA") and picture.bits > 8:
        return _eight_bit(picture.colours())
    if image.mode not in _TO_RGB:
        raise ValueError(f"pixels of kind '{image.mode}' have no agreed way to become RGB")
    image.info.pop("transparency", None)  # else Pillow would look for a colour to stand for it
    return np.array(image.convert("RGB"))


def _bits(image: Image.Image) -> int:
    """Bits a channel by the header of an image that is not loaded yet; 8 where it does not say.

    PNG: by the name of what Pillow's decoder makes pixels of, such as `1`, `L;2`, `P;4`, `RGB;16B`; in BMP's own, such
    as `BGR;16`, the number counts all channels. TIFF: the largest of the tag's numbers, one a channel.
    """
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,)))
    modes = [tile[3] for tile in getattr(image, "tile", ()) if isinstance(tile[3], str)]
    found = re.fullmatch(r"(?:(?:L|P|I|LA|RGBA?);)?(1|2|4|16)B?", modes[0]) if modes else None
    return int(found[1]) if found else 8


def _sixteen_bit(picture: Picture, narrow: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint16 RGB, by OpenCV; `narrow`, uint8, are the same by Pillow, which keeps the high bytes alone."""
    import cv2  # here, for hardly any file needs it

    image = picture.image
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    together = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 1  # the channels; else both read nonsense
    read = cv2.imdecode(np.fromfile(picture.path, np.uint8), cv2.IMREAD_UNCHANGED) if together else None
    wide: np.ndarray = (
        read[..., 2::-1] if read is not None and read.ndim == 3 else narrow
    )  # OpenCV's order is BGR or BGRA
    if wide.dtype != np.uint16 or not np.array_equal(np.right_shift(wide, 8), narrow):
        raise ValueError("its colours of 16 bits are stored in a way that cannot be decoded without loss")
    return wide


def _eight_bit(values: np.ndarray) -> np.ndarray:
    """(...) of any depth -> (...) uint8."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"its values run from {low} to {high}, outside 16 bit (0 to 65535)")
    if high <= 255:
        return values.astype(np.uint8)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257


def _header(image: Image.Image, path: Path) -> tuple[int, int, int]:
    """Stored width, stored height, orientation."""
    if isinstance(image, TiffImageFile):  # whether `size` is the stored one depends on Pillow's version
        tags = image.tag_v2
        return (
            tags[ExifTags.Base.ImageWidth],
            tags[ExifTags.Base.ImageLength],
            _legal(tags.get(ExifTags.Base.Orientation)),
        )
    late = image.format == "PNG" and "exif" not in image.info  # Pillow would read all pixels to look behind them
    return image.width, image.height, 1 if late and not _has_exif_chunk(path) else _orientation(image)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where it is absent, illegal or applied already (Pillow turns TIFF on loading)."""
    if isinstance(image, TiffImageFile):
        return 1
    try:
        return _legal(image.getexif().get(ExifTags.Base.Orientation))
    except (SyntaxError, ValueError, TypeError, KeyError, EOFError, OSError, struct.error):
        return 1  # broken EXIF in a good image


def _legal(orientation: object) -> int:
    """What a tag says if that is 1 to 8; some cameras and programs write 0."""
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) or (H, W, C) as stored -> upright. The names of the eight orientations: EXIF 2.32, tag 0x0112."""
    if orientation in _QUARTER_TURNED:
        pixels = pixels.swapaxes(0, 1)  # 5 is just that; 6, 7 and 8 are 5 followed by a mirroring
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _has_exif_chunk(path: Path) -> bool:
    """Whether a PNG file has an EXIF chunk at all; ImageMagick writes it after the pixels."""
    with path.open("rb") as stream:
        return any(kind == b"eXIf" for kind, _ in chunks(stream))


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: there is no such file. Restore it, or take it out of the data set.")
    if isinstance(error, IsADirectoryError):
        return DataError(f"{path} is a folder, not an image.")
    if isinstance(error, UnidentifiedImageError):
        what = "the file is empty" if path.stat().st_size == 0 else "its content is no image that Pillow knows"
    else:
        what = str(error) or type(error).__name__
    return DataError(f"{path} cannot be read: {what}. {REPLACE}")


def reason_of(error: Exception, path: Path) -> str:
    """What is wrong with an image file, where its name and what to do are said beside it."""
    return str(error).removeprefix(f"{path} cannot be read: ").removeprefix(f"{path}: ").removesuffix(f". {REPLACE}")
