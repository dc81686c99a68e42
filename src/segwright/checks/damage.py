"""Image files that lack their end, or whose middle is spoiled: what a header does not show.

Decoders often take a JPEG file with wrong bytes in its middle for good: from there on the picture is shifted,
discoloured or grey, and nothing is said. Looked for are bytes that cannot stand in coded data (ITU-T T.81, B.1.1.5:
0xFF is followed by 0x00 or a restart marker), runs of zeros, as a disk or a download leaves them, and the flat grey
with which decoders go on when the data end too early. A few wrong bits that do none of this are not found.
"""

import re
import struct
from pathlib import Path

import numpy as np

from segwright.images import Kind, upright

TAIL = 4096
"""Bytes at a file's end in which its end mark must lie; some cameras write a little behind it."""
_NO_MARKER = re.compile(rb"\xff[\x01-\xbf\xf0-\xfe]")
"""In coded data these stand for nothing."""
HOLE = 48
"""Zero bytes in a row that no picture needs, unless its tables make them short for flat areas."""
BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""EXIF orientation -> the one that undoes it."""
_NEUTRAL = 128
"""A decoder without data goes on with this grey."""


def incomplete(path: Path) -> bool:
    """Whether a file's last bytes look cut off. A hint, not a proof: some programs leave out a JPEG's end mark."""
    length = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(16)
        stream.seek(max(0, length - TAIL))
        tail = stream.read()
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    if head.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    if head[:4] == b"RIFF":
        return length < struct.unpack("<I", head[4:8])[0] + 8
    if head[:2] == b"BM":
        return length < struct.unpack("<I", head[2:6])[0]
    return head[:4] in (b"II*\0", b"MM\0*")  # TIFF keeps its index anywhere: only decoding tells


def damage(path: Path, kind: Kind, image: np.ndarray) -> str:
    """What is wrong inside a JPEG file that could be decoded to `image` (H, W, 3); empty where nothing is seen."""
    if kind.format != "JPEG":
        return ""
    data = path.read_bytes()
    start, zeros_are_natural = _scan(data)
    wrong = _NO_MARKER.search(data, start)
    if wrong:
        return f"bytes that cannot stand in a JPEG file, at {wrong.start():,} of {len(data):,}"
    hole = data.find(bytes(HOLE), start, data.rfind(b"\xff\xd9"))
    if hole >= 0 and not zeros_are_natural:
        return f"nothing but zeros at {hole:,} of {len(data):,}"
    row = _grey_from(upright(image, BACK[kind.orientation]))
    return f"flat grey from row {row} of the file to its end" if row else ""


def _scan(data: bytes) -> tuple[int, bool]:
    """Where the first scan's coded data begin, and whether zeros may stand there for long: in files of several scans,
    and where all tables give the code of zeros to the end of a block, as for large flat areas."""
    place, natural, frame = 2, True, 0
    while place + 4 <= len(data):
        marker, length = data[place + 1], struct.unpack(">H", data[place + 2 : place + 4])[0]
        if marker == 0xC4:
            natural &= all(first == 0 for first in _first_symbols(data[place + 4 : place + 2 + length]))
        elif marker in (0xC0, 0xC1, 0xC2):
            frame = marker
        place += 2 + length
        if marker == 0xDA:
            break
    return place, natural or frame == 0xC2


def _first_symbols(tables: bytes) -> list[int]:
    """What the code of nothing but zeros stands for in each table of AC coefficients (T.81, B.2.4.2)."""
    symbols, place = [], 0
    while place + 17 <= len(tables):
        count = sum(tables[place + 1 : place + 17])
        if tables[place] >> 4 == 1 and place + 17 < len(tables):
            symbols.append(tables[place + 17])
        place += 17 + count
    return symbols


def _grey_from(image: np.ndarray) -> int:
    """The row, as stored, in which neutral grey begins and goes on to the end; 0 where it does not, or where it makes
    a rectangle, as a border does that somebody has drawn."""
    grey = (image == _NEUTRAL).all(axis=2)
    if not grey[-8:, -8:].all():
        return 0
    runs = np.where(grey.all(axis=1), grey.shape[1], np.argmin(grey[:, ::-1], axis=1))  # grey pixels at each row's end
    above = np.flatnonzero(runs < grey.shape[1])
    last = int(above[-1]) if len(above) else -1
    return last if last >= 16 and runs[last] >= 8 and runs[last] > 2 * runs[last - 16] else 0
