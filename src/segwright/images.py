"""Image files in, PNG files out. Knows nothing of data sets.

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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import TiffImageFile

from segwright.errors import DataError
from segwright.files import write_atomic
from segwright.large import alone

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
    path = Path(path)
    try:
        return alone(image_size(path) if path.suffix.lower() in IMAGE_SUFFIXES else None)
    except DataError:
        return alone(None)


TO_LOOK_AT = 1
"""zlib's effort for a PNG that is looked at once: a photograph is written four times as fast as with 6, and a tenth
larger."""


PREDICTION = ("Software", "segwright prediction")
"""Keyword and text of the PNG chunk that says of a picture that a model made it."""


def write_png(
    path: str | Path, array: np.ndarray, colours: np.ndarray | None = None, effort: int = 6, *, prediction: bool = False
) -> None:
    """Writes (H, W) grey or (H, W, 3) RGB uint8, whole or not at all. Makes the folder. Raises `SegwrightError`.

    With `colours` (K, 3) uint8, (H, W) holds their indices, and viewers show the colours. `effort`: zlib's, 0 to 9.
    A `prediction` is marked as one in its header, so that `is_prediction` knows it and no reader takes it for truth.
    """
    assert array.dtype == np.uint8, array.dtype
    assert array.ndim == 2 or array.shape[2:] == (3,), array.shape
    image, notes = Image.fromarray(array), PngInfo()
    if colours is not None:
        image.putpalette(colours.tobytes(), "RGB")
    if prediction:
        notes.add_text(*PREDICTION)
    write_atomic(path, lambda file: image.save(file, format="PNG", compress_level=effort, pnginfo=notes))


def is_prediction(path: str | Path) -> bool:
    """Whether `write_png` wrote this file as a prediction, from the header alone; not so of a file that cannot be read.

    A program that writes the picture anew drops the mark as a rule, so a prediction that a person has mended has none.
    """
    mark = "\0".join(PREDICTION).encode("latin-1")
    try:
        with Path(path).open("rb") as stream:
            for kind, length in _chunks(stream):
                if kind == b"IDAT":
                    break
                if kind == b"tEXt" and length == len(mark) and stream.read(length) == mark:
                    return True
    except OSError:
        pass
    return False


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
        return any(kind == b"eXIf" for kind, _ in _chunks(stream))


def _chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and length in bytes of each chunk of a PNG file, the stream at the first byte of its data; else nothing."""
    if stream.read(8) != b"\x89PNG\r\n\x1a\n":
        return
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        after = stream.tell() + length + 4  # the data and its checksum
        yield kind, length
        stream.seek(after)


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
