"""Masks in image files: ids stay as stored, colours become the nearest listed one, and every error names the file."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segwright.datasets.mask_files import nearest_colours, read_binary, read_colours, read_indices, read_values
from segwright.errors import DataError

IDS = np.array([[0, 1, 2], [3, 254, 255]], np.uint8)
PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)


def save(path, array, mode=None, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def with_palette(ids: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids).convert("P")
    image.putdata(ids.ravel().tolist())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tolist())
    return image


def forms() -> dict:
    """IDS in every form that a file may hold them in."""
    grey = Image.fromarray(IDS)
    return {
        "grey.png": grey,
        "palette.png": with_palette(IDS),
        "palette.gif.png": with_palette(IDS).copy(),
        "sixteen.png": Image.fromarray(IDS.astype(np.uint16)),
        "sixteen.tif": Image.fromarray(IDS.astype(np.uint16)),
        "thirty_two.tif": Image.fromarray(IDS.astype(np.int32)),
        "float.tif": Image.fromarray(IDS.astype(np.float32)),
        "rgb.png": grey.convert("RGB"),
        "rgba.png": grey.convert("RGBA"),
        "with_alpha.png": grey.convert("LA"),
        "grey.bmp": grey,
    }


@pytest.mark.parametrize("name", forms())
def test_ids_are_read_as_they_are_stored(name, tmp_path):
    read = read_indices(save(tmp_path / name, forms()[name]))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, IDS)


def test_one_bit_is_0_and_1(tmp_path):
    path = save(tmp_path / "m.png", Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1"))
    assert read_indices(path).tolist() == [[0, 1, 1]]
    assert read_binary(path)[0].tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_two_and_four_bits_keeps_its_values(bits, tmp_path):
    """0, 1, ..., the highest, again and again; as black and white, the upper half is white."""
    values = np.resize(np.arange(2**bits, dtype=np.uint8), (4, 16))
    (tmp_path / "m.png").write_bytes(grey_png(values, bits))
    np.testing.assert_array_equal(read_indices(tmp_path / "m.png"), values)
    brightest = np.float32(2**bits - 1)
    np.testing.assert_array_equal(read_binary(tmp_path / "m.png")[0], values / brightest > 0.5)


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """(H, W) values below 2^bits -> a grey PNG file of that depth, which Pillow itself does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = np.packbits(np.unpackbits(values[..., None], axis=2)[..., -bits:].reshape(len(values), -1), axis=1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)  # 0: no filter
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize("name", ["wide.png", "wide.tif"])
def test_sixteen_bit_values_are_kept_by_one_reader_and_refused_by_the_other(name, tmp_path):
    values = np.array([[0, 1001, 65535]], np.uint16)
    path = save(tmp_path / name, values)
    np.testing.assert_array_equal(read_values(path), values)
    with pytest.raises(DataError, match=rf"{name} holds values from 0 to 65535"):
        read_indices(path)


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_sixteen_bit_whose_channels_are_equal_keep_their_values(name, channels, tmp_path):
    wide = np.repeat(np.array([[0, 1, 2], [300, 254, 65535]], np.uint16)[..., None], channels, axis=2)
    assert cv2.imwrite(str(tmp_path / name), wide)
    np.testing.assert_array_equal(read_values(tmp_path / name), wide[..., 0])
    assert cv2.imwrite(str(tmp_path / name), wide[:1])
    assert read_indices(tmp_path / name).tolist() == [[0, 1, 2]]
    assert cv2.imwrite(str(tmp_path / name), wide + np.arange(channels, dtype=np.uint16))
    with pytest.raises(DataError, match=f"{name}.*it holds colours"):
        read_values(tmp_path / name)


def test_negative_values_are_refused(tmp_path):
    with pytest.raises(DataError, match="from -1 to 3"):
        read_indices(save(tmp_path / "m.tif", np.array([[-1, 3]], np.int32)))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("colour.png", np.array([[[1, 2, 3]]], np.uint8), "colour.png.*it holds colours"),
        ("half.tif", np.array([[0.5]], np.float32), "half.tif.*it holds fractions"),
        ("nan.tif", np.array([[np.nan]], np.float32), "nan.tif.*it holds fractions"),
    ],
)
def test_what_is_no_id_is_refused(name, array, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_indices(save(tmp_path / name, array))


@pytest.mark.parametrize("read", [read_indices, read_binary, lambda path: read_colours(path, PALETTE)])
def test_a_file_that_is_missing_or_broken_is_named(read, tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: there is no such file"):
        read(tmp_path / "gone.png")
    (tmp_path / "broken.png").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"broken\.png cannot be read"):
        read(tmp_path / "broken.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_masks_own_orientation_is_applied(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "m.png", IDS, exif=exif)
    with Image.open(path) as image:
        from PIL import ImageOps

        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_indices(path), expected)


def test_masks_can_be_written_to(tmp_path):
    path = save(tmp_path / "m.png", IDS)
    read_indices(path)[0, 0] = 7
    read_binary(path)[0][0, 0] = 7


def test_white_is_one_and_what_lies_between_is_counted(tmp_path):
    grey = np.array([[0, 127, 128, 255], [0, 0, 255, 255]], np.uint8)
    for name, mode in (("m.png", None), ("rgb.png", "RGB")):
        mask, share = read_binary(save(tmp_path / name, grey, mode))
        assert mask.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
        assert share == 2 / 8


# colours


def test_colours_become_their_positions(tmp_path):
    places = np.array([[0, 1], [2, 1]])
    read, share = read_colours(save(tmp_path / "m.png", PALETTE[places]), PALETTE)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, places)
    assert share == 0


def test_near_colours_are_snapped_and_their_share_is_exact():
    """(200, 40, 40) is nearest to red; (20, 30, 20) to black; one of four pixels is exact red."""
    pixels = np.array([[[255, 0, 0], [200, 40, 40]], [[20, 30, 20], [1, 0, 200]]], np.uint8)
    for _ in range(2):  # the second time from the table
        read, share = nearest_colours(pixels, PALETTE)
        assert read.tolist() == [[1, 1], [0, 2]]
        assert share == 3 / 4


def test_the_first_of_equal_or_equally_near_colours_counts():
    palette = np.array([[10, 0, 0], [10, 0, 0], [0, 10, 0]])
    assert nearest_colours(np.array([[[10, 0, 0], [5, 5, 0]]], np.uint8), palette)[0].tolist() == [[0, 0]]


def test_jpeg_masks_come_back_as_they_were_drawn(tmp_path):
    drawn = np.zeros((64, 64), np.uint8)
    drawn[8:40, 16:48] = 1
    drawn[16:32, 16:32] = 2  # edges on the 8-pixel grid, chroma full
    path = save(tmp_path / "m.jpg", PALETTE[drawn], quality=90, subsampling=0)
    read, share = read_colours(path, PALETTE)
    np.testing.assert_array_equal(read, drawn)
    assert 0 < share < 1


@given(st.integers(1, 255), st.integers(0, 2**32 - 1))
def test_nearest_equals_the_plain_search(count, seed):
    random = np.random.default_rng(seed)
    palette = random.integers(0, 256, (count, 3))
    pixels = random.integers(0, 256, (5, 7, 3), np.uint8)
    distances = ((pixels[:, :, None].astype(int) - palette) ** 2).sum(-1)
    read, share = nearest_colours(pixels, palette)
    np.testing.assert_array_equal(read, distances.argmin(-1))
    assert share == (distances.min(-1) > 0).mean()
