"""PNG files out, and what their chunks say.

H x W is a picture's height and width in pixels. The format: https://www.w3.org/TR/png-3
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segwright.files import write_atomic, write_bytes
from segwright.large import is_large

PREDICTION = ("Software", "segwright prediction")
"""Keyword and text of the PNG chunk that says of a picture that a model made it."""
PREDICTED = ("_mask.png", "_overlay.png")
"""Behind an image's name: what the pictures that a model made of it are called."""

START = b"\x89PNG\r\n\x1a\n"
HEAD = len(START) + 25
"""Bytes before the second chunk: the first, IHDR, holds 13 beside its length, kind and checksum."""


def write_png(
    path: str | Path,
    array: np.ndarray,
    colours: np.ndarray | None = None,
    *,
    quick: bool = False,
    prediction: bool = False,
) -> None:
    """Writes (H, W) grey or (H, W, 3) RGB uint8, whole or not at all. Makes the folder. Raises `SegwrightError`.

    With `colours` (K, 3) uint8, (H, W) holds their indices, and viewers show the colours. A `prediction` is marked as
    one in its header, so that `is_prediction` knows it and no reader takes it for truth. `quick` is for RGB to look at:
    a photograph is written in a sixth of the time, two fifths larger, and other threads run meanwhile.
    """
    assert array.dtype == np.uint8, array.dtype
    assert array.ndim == 2 or array.shape[2:] == (3,), array.shape
    assert not quick or array.ndim == 3, "quick is for RGB"
    if quick and not is_large((array.shape[0], array.shape[1])) and (png := _quick(array, prediction)):
        write_bytes(path, png)
        return
    image, notes = Image.fromarray(array), PngInfo()
    if colours is not None:
        image.putpalette(colours.tobytes(), "RGB")
    if prediction:
        notes.add_text(*PREDICTION)
    write_atomic(path, lambda file: image.save(file, format="PNG", pnginfo=notes))


def _quick(rgb: np.ndarray, prediction: bool) -> bytes:
    """The file by OpenCV; empty where it does not make one: of a side above 1,000,000, say."""
    import cv2  # here, for not every command writes pictures

    done, made = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        return b""
    png = made.tobytes()
    return png[:HEAD] + _chunk(b"tEXt", _mark()) + png[HEAD:] if prediction else png


def _mark() -> bytes:
    return "\0".join(PREDICTION).encode("latin-1")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def is_prediction(path: str | Path) -> bool:
    """Whether `write_png` wrote this file as a prediction, from the header alone; not so of a file that cannot be read.

    A program that writes the picture anew drops the mark as a rule, so a prediction that a person has mended has none.
    """
    mark = _mark()
    try:
        with Path(path).open("rb") as stream:
            for kind, length in chunks(stream):
                if kind == b"IDAT":
                    break
                if kind == b"tEXt" and length == len(mark) and stream.read(length) == mark:
                    return True
    except OSError:
        pass
    return False


def chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and length in bytes of each chunk of a PNG file, the stream at the first byte of its data; else nothing."""
    if stream.read(len(START)) != START:
        return
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        after = stream.tell() + length + 4  # the data and its checksum
        yield kind, length
        stream.seek(after)
