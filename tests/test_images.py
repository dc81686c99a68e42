"""Every kind of image file becomes upright RGB, or is refused with a message that names it."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segwright import images
from segwright.errors import DataError
from segwright.images import image_kind, image_size, read_image

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)


def as_grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


def saved(folder: Path, image: Image.Image, name: str = "x.png", **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def palette_image() -> tuple[Image.Image, np.ndarray]:
    """Three colours, used in a 4 x 6 pattern, and what it looks like."""
    colours = np.array([[10, 20, 30], [200, 100, 0], [0, 255, 128]], np.uint8)
    indices = np.arange(24, dtype=np.uint8).reshape(4, 6) % 3
    image = Image.fromarray(indices).convert("L")
    image.putpalette(colours.ravel().tolist())
    return image, colours[indices]


def test_rgb_is_read_as_it_is_and_can_be_written_to(tmp_path):
    read = read_image(saved(tmp_path, Image.fromarray(RGB)))
    assert read.dtype == np.uint8
    assert read.flags.writeable
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, RGB)


def test_grey_fills_three_channels(tmp_path):
    np.testing.assert_array_equal(read_image(saved(tmp_path, Image.fromarray(GREY))), as_grey(GREY))


def test_one_bit_becomes_black_and_white(tmp_path):
    path = saved(tmp_path, Image.fromarray(GREY > 100))
    with Image.open(path) as image:
        assert image.mode == "1"
    np.testing.assert_array_equal(read_image(path), as_grey(np.where(GREY > 100, 255, 0)))


def test_palette_gives_its_colours(tmp_path):
    image, expected = palette_image()
    np.testing.assert_array_equal(read_image(saved(tmp_path, image)), expected)


@pytest.mark.parametrize("transparency", [1, b"\x00\x80\xff"], ids=["one colour", "bytes"])
def test_a_transparent_palette_keeps_its_colours(tmp_path, transparency):
    image, expected = palette_image()
    path = saved(tmp_path, image, transparency=transparency)
    with Image.open(path) as reopened:
        assert "transparency" in reopened.info
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_is_dropped_and_darkens_nothing(tmp_path, alpha):
    rgba = np.dstack([RGB, np.full(GREY.shape, alpha, np.uint8)])
    np.testing.assert_array_equal(read_image(saved(tmp_path, Image.fromarray(rgba))), RGB)


def test_grey_with_alpha_is_grey(tmp_path):
    image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(np.full(GREY.shape, 7, np.uint8))])
    np.testing.assert_array_equal(read_image(saved(tmp_path, image)), as_grey(GREY))


def test_a_colour_key_is_dropped(tmp_path):
    path = saved(tmp_path, Image.fromarray(RGB), transparency=(0, 255, 0))
    np.testing.assert_array_equal(read_image(path), RGB)


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bit_grey_is_scaled_from_its_full_range(tmp_path, name):
    """65535 / 257 = 255 and 32896 / 257 = 128 exactly; 385 / 257 = 1.498 rounds to 1, 386 / 257 = 1.502 to 2."""
    values = np.array([[0, 65535, 32896], [257, 385, 386]], np.uint16)
    read = read_image(saved(tmp_path, Image.fromarray(values), name))
    np.testing.assert_array_equal(read, as_grey(np.array([[0, 255, 128], [1, 1, 2]])))


def test_eight_bit_values_in_a_sixteen_bit_file_are_taken_as_they_are(tmp_path):
    values = np.array([[0, 255], [17, 128]], np.uint16)
    np.testing.assert_array_equal(read_image(saved(tmp_path, Image.fromarray(values))), as_grey(values))


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_sixteen_bit_colours_are_scaled_as_sixteen_bit_grey_is(tmp_path, name, alpha):
    """12 bits, the highest 4095: 4095 / 257 = 15.93, the nearest is 16. Of at most 255: as they are."""
    wide = np.random.default_rng(0).integers(0, 4096, (5, 6, 3 + alpha)).astype(np.uint16)
    wide[0, 0] = 4095
    write_deep(tmp_path / name, wide)
    np.testing.assert_array_equal(read_image(tmp_path / name), (wide[..., :3] + 128) // 257)
    write_deep(tmp_path / name, wide % 256)
    np.testing.assert_array_equal(read_image(tmp_path / name), wide[..., :3] % 256)
    assert image_kind(tmp_path / name).deep


def write_deep(path: Path, rgb: np.ndarray) -> None:
    order = [2, 1, 0, 3][: rgb.shape[2]]  # OpenCV's own
    assert cv2.imwrite(str(path), rgb[..., order])


def test_sixteen_bit_colours_that_lie_on_a_side_are_set_upright(tmp_path):
    """6: turned a quarter to the right. A chunk of EXIF: the tag 0x0112, a short, one of it, 6."""
    wide = np.arange(90, dtype=np.uint16).reshape(5, 6, 3)
    write_deep(tmp_path / "x.png", wide)
    tag = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    chunk = struct.pack(">I", len(tag)) + b"eXIf" + tag + struct.pack(">I", zlib.crc32(b"eXIf" + tag))
    whole = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(whole[:33] + chunk + whole[33:])  # 33: behind the header
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.rot90(wide, -1))


def test_sixteen_bit_colours_that_cannot_be_decoded_whole_are_refused(tmp_path, monkeypatch):
    write_deep(tmp_path / "x.png", np.arange(90, dtype=np.uint16).reshape(5, 6, 3))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    with pytest.raises(DataError, match=r"x\.png cannot be read: its colours of 16 bits .* Replace it"):
        read_image(tmp_path / "x.png")


def test_big_endian_sixteen_bit_tiff(tmp_path):
    """Written by hand: a TIFF of 2 x 1 pixels, 65535 and 257, high byte first."""
    tags = [(256, 3, 2), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 122), (277, 3, 1), (278, 3, 1)]
    entries = b"".join(
        struct.pack(">HHIHH", tag, kind, 1, value, 0) if kind == 3 else struct.pack(">HHII", tag, kind, 1, value)
        for tag, kind, value in [*tags, (279, 4, 4)]
    )
    path = tmp_path / "x.tif"
    path.write_bytes(b"MM\x00*" + struct.pack(">IH", 8, 9) + entries + bytes(4) + struct.pack(">HH", 65535, 257))
    np.testing.assert_array_equal(read_image(path), as_grey(np.array([[255, 1]])))


def test_cmyk_jpeg_has_its_colours(tmp_path):
    """Cyan ink alone shows as (0, 255, 255), half black ink as grey 127; no ink as white."""
    inks = np.zeros((16, 48, 4), np.uint8)
    inks[:, :16, 0] = 255
    inks[:, 16:32, 3] = 128
    read = read_image(saved(tmp_path, Image.fromarray(inks, "CMYK"), "x.jpg", quality=100)).astype(int)
    for column, colour in ((8, (0, 255, 255)), (24, (127, 127, 127)), (40, (255, 255, 255))):
        assert np.abs(read[8, column] - colour).max() <= 2


@pytest.mark.parametrize(("name", "options"), [("x.tif", {}), ("y.tif", {"compression": "tiff_lzw"}), ("x.png", {})])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, name, options, mode, orientation):
    """EXIF 2.32, tag 0x0112, says where the stored row 0 and column 0 lie on the upright image."""
    stored = np.asarray(Image.fromarray(RGB).convert(mode))
    upright = {  # stored row 0 is the upright image's ..., stored column 0 its ...
        1: stored,  # top, left
        2: stored[:, ::-1],  # top, right
        3: stored[::-1, ::-1],  # bottom, right
        4: stored[::-1],  # bottom, left
        5: stored.swapaxes(0, 1),  # left, top
        6: stored.swapaxes(0, 1)[:, ::-1],  # right, top
        7: stored.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
        8: stored.swapaxes(0, 1)[::-1],  # left, bottom
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(stored), name, exif=exif, **options)
    expected = upright if mode == "RGB" else as_grey(upright)
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[:2]


def test_a_jpeg_lying_on_its_side_is_set_upright(tmp_path):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, 16:] = 255  # the right half white; orientation 6: stored row 0 is the upright right side
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, Image.fromarray(stored), "x.jpg", exif=exif)
    read = read_image(path)
    assert read.shape == (32, 16, 3)
    assert image_size(path) == (32, 16)
    assert read[:12].max() < 30
    assert read[20:].min() > 225


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    """ImageMagick writes it there. The chunk: length, name, data, checksum; before IEND, the last 12 bytes."""
    path = saved(tmp_path, Image.fromarray(RGB))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = b"eXIf" + exif.tobytes().removeprefix(b"Exif\x00\x00")
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    content = path.read_bytes()
    path.write_bytes(content[:-12] + chunk + content[-12:])
    assert image_size(path) == (6, 4)
    np.testing.assert_array_equal(read_image(path), RGB.swapaxes(0, 1)[:, ::-1])


def test_the_size_of_a_png_is_told_without_decoding_it(tmp_path):
    """The pixels are destroyed; only a reader that leaves them alone can answer."""
    path = saved(tmp_path, Image.fromarray(RGB))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"IDAT") + 4] + b"\x00" * 40)
    assert image_size(path) == (4, 6)
    with pytest.raises(DataError):
        read_image(path)


def test_broken_exif_does_not_spoil_a_good_image(tmp_path):
    path = saved(tmp_path, Image.fromarray(RGB), exif=b"Exif\x00\x00nonsense")
    np.testing.assert_array_equal(read_image(path), RGB)


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "x.webp", "x.bmp"])
def test_a_truncated_file_is_refused_by_name(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=name):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"no image at all", "no image that Pillow knows"), (None, "no such file")]
)
def test_a_file_that_is_no_image_is_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=rf"x\.jpg.*{reason}"):
            read(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("values", "mode"), [(np.ones((2, 2), np.float32), "F"), (np.full((2, 2), 70000, np.int32), "70000")]
)
def test_pixels_without_an_agreed_meaning_are_refused(tmp_path, values, mode):
    with pytest.raises(DataError, match=f"x.tif.*{mode}"):
        read_image(saved(tmp_path, Image.fromarray(values), "x.tif"))


def test_lab_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.tif.*LAB"):
        read_image(saved(tmp_path, Image.new("LAB", (4, 4)), "x.tif"))


def test_the_pixel_limit_lets_the_largest_of_artefact_through_and_stops_what_is_above(tmp_path, monkeypatch):
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS > 243_748_701
    path = saved(tmp_path, Image.fromarray(RGB))
    monkeypatch.setattr(images, "MAX_PIXELS", 23)
    with pytest.raises(DataError, match="more than the 23"):
        read_image(path)
