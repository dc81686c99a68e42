"""SPARK's layout: colours in JPEG become the classes they were, crafts keep their order, tables are compared."""

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from readers import codes, errors, found, masks
from segwright.datasets import READERS, spark
from segwright.datasets.spark import CRAFTS, Config
from segwright.datasets.spark_example import SIDE, boxes
from segwright.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path):
    return spark.example(tmp_path / "data")


def scan(root, **options):
    return spark.scan(Config(root=str(root), **options))


def drawn(number: int) -> np.ndarray:
    ids = np.zeros((SIDE, SIDE), np.uint8)
    body, panels = boxes(number)
    for (top, left, bottom, right), value in [(body, 1), *((panel, 2) for panel in panels)]:
        ids[top:bottom, left:right] = value
    return ids


def test_jpeg_masks_become_the_classes_they_were_drawn_with(root):
    """The boxes lie on JPEG's 8-pixel grid, so its noise crosses no border by half a colour."""
    source = READERS.build("spark", Config(root=str(root)))
    assert list(source.classes) == ["background", "spacecraft body", "solar panels"]
    assert source.colours == [(0, 0, 0), (255, 0, 0), (0, 0, 255)]
    read = masks(source)
    assert len(read) == 4
    for key, mask in read.items():
        number = int(key.removesuffix("_img")[-1])
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, drawn(number), err_msg=key)


def test_the_share_of_snapped_pixels_is_what_jpeg_changed(root):
    file = root / "mask/XMM Newton/val/image_00003_layer.jpg"
    stored = np.asarray(Image.open(file)).astype(int)
    exact = sum((stored == colour).all(axis=2) for colour in ((0, 0, 0), (255, 0, 0), (0, 0, 255)))
    share = 1 - exact.mean()
    assert share > 0.1
    assert f"valid, {100 * share:.2g} % of the pixels of 1 masks" in found(scan(root), "snapped").message


@pytest.mark.parametrize("up", [False, True])
def test_the_root_is_the_folder_of_images_and_mask_or_its_parent(root, up):
    assert spark.recognises(root.parent if up else root)
    assert len(scan(root.parent if up else root).splits["train"]) == 3


def test_crafts_come_in_id_order_and_each_image_knows_its_own(root):
    for kind, suffix in (("images", "img"), ("mask", "layer")):
        for craft in ("Soho", "Zarya"):
            (root / kind / craft / "train").mkdir(parents=True)
            shutil.copy(
                root / kind / f"VenusExpress/train/image_00000_{suffix}.jpg",
                root / kind / craft / f"train/image_00009_{suffix}.jpg",
            )
    split = pickle.loads(pickle.dumps(scan(root).splits["train"]))
    groups = [split.group(index) for index in range(len(split))]
    assert groups == ["VenusExpress", "VenusExpress", "Soho", "XMM Newton", "Zarya"]
    assert [craft for craft in CRAFTS if craft in groups] == groups[1:4]
    assert all(groups[index] in split.path(index).parts for index in range(5))


def test_a_test_folder_without_masks_is_told_and_is_no_split(root):
    source = scan(root)
    assert set(source.splits) == {"train", "valid"}
    finding = found(source, "test-without-masks")
    assert finding.level == "info"
    assert "2 images" in finding.message
    assert "segwright infer" in finding.fix


def test_clean_data_have_nothing_but_information(root):
    assert {finding.level for finding in scan(root).findings} == {"info"}
    assert len(found(scan(root), "missing-craft").message.split(";")) == 6  # eight, five of them named


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("image_00001_img.jpg", "image_00007_img.jpg", "table-no-image"),
        ("image_00001_img.jpg,VenusExpress", "image_00001_img.jpg,Cheops", "table-craft"),
        ("(16, 16, 80, 48)", "(16, 16, 80)", "table-box"),
        ("(16, 16, 80, 48)", "(16, 48, 80, 16)", "table-box"),
        ("(16, 16, 80, 48)", "(16, 16, 48, 80)", "table-box"),
        ("Bounding box", "Box", "table-unreadable"),
    ],
)
def test_what_a_table_says_wrongly_is_a_warning_that_names_the_row(root, old, new, code):
    table = root / "train.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))
    source = scan(root)
    assert found(source, code).level == "warning"
    assert found(source, code).files[0].startswith("train.csv")
    if code != "table-unreadable":
        assert "image_0000" in found(source, code).message
    assert not errors(source)


def test_an_image_that_the_table_forgets_is_named(root):
    table = root / "train.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "00001" not in line))
    assert found(scan(root), "table-unlisted").files == ("images/VenusExpress/train/image_00001_img.jpg",)


def test_a_craft_written_with_an_underscore_is_the_same(root):
    table = root / "train.csv"
    table.write_text(table.read_text().replace("XMM Newton", "XMM_Newton"))
    assert not {code for code in codes(scan(root)) if code.startswith("table")}


def test_images_and_masks_without_partner_are_named(root):
    (root / "mask/VenusExpress/train/image_00000_layer.jpg").unlink()
    (root / "images/XMM Newton/train/image_00002_img.jpg").unlink()
    source = scan(root)
    assert found(source, "missing-mask").files == ("images/VenusExpress/train/image_00000_img.jpg",)
    assert found(source, "missing-image").files == ("mask/XMM Newton/train/image_00002_layer.jpg",)
    assert len(source.splits["train"]) == 1
    with pytest.raises(DataError, match="image_00002_layer"):
        spark.build(Config(root=str(root)))


def test_a_palette_that_is_not_the_masks_is_a_warning(root):
    colours = ("#000000", "#00FF00", "#FFFFFF")
    finding = found(scan(root, colours=colours), "foreign-colour")
    assert len(finding.files) == 4
    assert scan(root, colours=colours).splits["train"].mask(0).max() <= 2


def test_another_palette_renames_and_reorders_the_classes(root):
    source = scan(root, classes=("panel", "rest", "body"), colours=("#0000ff", "#000000", "#ff0000"))
    np.testing.assert_array_equal(source.splits["train"].mask(0), np.array([1, 2, 0], np.uint8)[drawn(0)])
    assert source.colours[0] == (0, 0, 255)


def test_a_broken_mask_is_named(root):
    (root / "mask/VenusExpress/train/image_00000_layer.jpg").write_bytes(b"\xff\xd8 no picture")
    assert found(scan(root), "unreadable-mask").files == ("mask/VenusExpress/train/image_00000_layer.jpg",)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": ("a", "b")}, "2 names and data.colours 3"),
        ({"colours": ("#000000", "red", "#0000FF")}, "red"),
        ({"colours": ("#000000", "#GG0000", "#0000FF")}, "GG0000"),
        ({"classes": ("a",), "colours": ("#000000",)}, "background is a class"),
    ],
)
def test_a_palette_that_cannot_be_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        Config(root="x", **options)


def test_another_folder_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match="pictures/"):
        scan(tmp_path)
    assert not spark.recognises(tmp_path)


def test_flat_folders_of_these_names_are_no_spark(tmp_path):
    for folder in ("images", "mask"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    assert not spark.recognises(tmp_path)
    (tmp_path / "images" / "Cheops" / "val").mkdir(parents=True)
    assert spark.recognises(tmp_path)
