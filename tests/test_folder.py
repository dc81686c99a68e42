"""Images and masks in folders: found wherever they lie, read as they are meant, and wrong ones named."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segwright.datasets import READERS, folder
from segwright.datasets.base import Finding, Source
from segwright.datasets.detect import detect
from segwright.datasets.folder import Config
from segwright.datasets.folder_example import BOXES, CLASSES, VOID, drawn
from segwright.datasets.folder_layout import Layout, find, words
from segwright.errors import ConfigError, DataError
from segwright.images import read_image
from segwright.png import write_png
from segwright.verbs.settings import gather

SPLIT = {"train": "train", "val": "valid", "test": "test"}
MASKS = {(SPLIT[split], name): drawn(boxes) for split, those in BOXES.items() for name, boxes in those.items()}
COLOURS = np.zeros((256, 3), np.uint8)
for entry in [*CLASSES, VOID]:
    COLOURS[entry["id"]] = entry["color"]


@pytest.fixture
def root(tmp_path) -> Path:
    return folder.example(tmp_path / "data")


def scan(root: Path, **options: Any) -> Source:
    return folder.scan(Config(root=str(root), **options))


def masks(source: Source) -> dict[tuple[str, str], np.ndarray]:
    """(split, stem before the first dot or underscore) -> mask."""
    return {
        (name, split.path(i).name.split(".")[0].split("_")[0]): split.mask(i)
        for name, split in source.splits.items()
        for i in range(len(split))
    }


def as_drawn(source: Source, expected: dict | None = None) -> None:
    """Every mask holds what was drawn."""
    read, wanted = masks(source), expected or MASKS
    assert read.keys() == wanted.keys()
    for key, mask in wanted.items():
        assert read[key].dtype == np.uint8
        np.testing.assert_array_equal(read[key], mask, err_msg=str(key))


def found(source: Source, code: str) -> Finding:
    """The one finding with that code."""
    findings = [finding for finding in source.findings if finding.code == code]
    assert len(findings) == 1, f"{code}: {source.findings}"
    return findings[0]


def codes(source: Source, *levels: str) -> set[str]:
    return {finding.code for finding in source.findings if finding.level in (levels or ("error", "warning"))}


def rewrite(root: Path, change, suffix: str = ".png") -> None:
    """Every mask anew: `change` gets class ids and gives an array or an image."""
    for path in sorted(root.glob("*/masks/*")):
        made = change(np.asarray(Image.open(path)))
        path.unlink()
        (made if isinstance(made, Image.Image) else Image.fromarray(made)).save(path.with_suffix(suffix), quality=90)


def move(root: Path, images: str, masks: str) -> None:
    """Lays the example out anew; patterns know {split}, {name} and, for images, keep `.png`."""
    for split, those in BOXES.items():
        for name in those:
            for kind, pattern in (("images", images), ("masks", masks)):
                target = root / pattern.format(split=split, name=name)
                target.parent.mkdir(parents=True, exist_ok=True)
                (root / split / kind / f"{name}.png").rename(target)


# what is right


def test_the_example_is_read_as_it_was_drawn(root):
    source = READERS.build("folder", Config(root=str(root)))
    assert list(source.classes) == ["wall", "crack", "plant"]
    assert source.colours == ((128, 128, 128), (255, 0, 0), (0, 160, 0))
    as_drawn(source)
    assert codes(source) == set()
    assert detect(root) == "folder"


def test_images_annotations_and_order(root):
    split = scan(root).splits["train"]
    assert [split.path(i).name for i in range(len(split))] == ["both.png", "crack.png"]
    assert split.annotation(0) == root / "train/masks/both.png"
    np.testing.assert_array_equal(split.image(0), read_image(root / "train/images/both.png"))


def test_splits_survive_pickling(root):
    split = pickle.loads(pickle.dumps(scan(root).splits["train"]))
    np.testing.assert_array_equal(split.mask(0), MASKS["train", "both"])


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{split}/{name}.png", "masks/{split}/{name}.png"),
        ("{split}/image/{name}.png", "{split}/label/{name}.png"),
        ("{split}/{name}.png", "{split}/{name}_mask.png"),
        ("{split}_img/{name}.png", "{split}_lab/{name}.png"),
        ("Images/{split}/{name}.png", "Annotations/{split}/{name}.png"),
        ("leftImg8bit/{split}/town/{name}.png", "gtFine/{split}/town/{name}.png"),
        ("images/{split}/{name}.png", "masks/{split}/{name}_mask.png"),
        ("data/{split}/images/{name}.PNG", "data/{split}/labels/{name}.png"),
    ],
)
def test_usual_layouts_are_found(images, masks, root):
    move(root, images, masks)
    source = scan(root)
    as_drawn(source)
    assert codes(source) == set()


def test_one_folder_of_images_is_all_train(root):
    move(root, "images/{name}.png", "masks/{name}.png")
    as_drawn(scan(root), {("train", name): mask for (_, name), mask in MASKS.items()})


def test_photographs_and_masks_of_one_name_side_by_side(root):
    move(root, "{split}/{name}.jpg", "{split}/{name}.png")
    as_drawn(scan(root))


@pytest.mark.parametrize("ending", ["JPG", "jpeg", "JPEG"])
def test_the_spelling_of_an_ending_does_not_matter(ending, root):
    move(root, "{split}/{name}." + ending, "{split}/{name}.png")
    as_drawn(scan(root))
    as_drawn(scan(root, images="{split}/*.jpg", masks="{split}/*.PNG"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "val"), {"train", "valid"}),
        (("training", "validation", "testing"), {"train", "valid", "test"}),
        (("Train", "Valid", "TEST"), {"train", "valid", "test"}),
        (("train", "dev"), {"train", "valid"}),
    ],
)
def test_the_usual_names_of_splits_are_understood(names, expected, tmp_path):
    for name in names:
        for kind in ("images", "masks"):
            write_png(tmp_path / name / kind / f"{name}.png", MASKS["train", "both"])
    assert scan(tmp_path).splits.keys() == expected


def test_other_names_of_splits_are_given(root):
    for old, new in (("train", "fold0"), ("val", "fold1")):
        (root / old).rename(root / new)
    assert {name: len(split) for name, split in scan(root, train="fold0", valid="fold1").splits.items()} == {
        "train": 2,
        "valid": 1,
        "test": 1,
    }


@pytest.mark.parametrize(
    ("images", "masks", "patterns"),
    [
        (
            "leftImg8bit/{split}/town/{name}_leftImg8bit.png",
            "gtFine/{split}/town/{name}_gtFine_labelTrainIds.png",
            ("leftImg8bit/{split}/*/*_leftImg8bit.png", "gtFine/{split}/*/*_gtFine_labelTrainIds.png"),
        ),
        ("photos/{split}/{name}_im.png", "truth/{name}.png", ("photos/{split}/*_im.png", "truth/*")),
        ("a/{split}/b/c/{name}.png", "d/{split}/b/c/{name}.png", ("a/{split}/**/*", "d/{split}/**/*.png")),
        ("{split}/{name}.in.png", "{split}/{name}.out.png", ("{split}/*.in.png", "{split}/*.out.*")),
    ],
)
def test_patterns_say_where_files_are(images, masks, patterns, root):
    move(root, images, masks)
    as_drawn(scan(root, images=patterns[0], masks=patterns[1]))


def test_of_several_folders_of_masks_one_is_chosen_and_said():
    files = [f"{kind}/{name}.png" for kind in ("image", "annotation", "annotation_rgb") for name in "abc"]
    assert find(files, words(dict.fromkeys(("train", "valid", "test")))) == Layout("image/*", "annotation/*")


def layout_of(*folders: str) -> Layout | None:
    """Of files `a` and `b` in each folder; behind a colon other names, e.g. `pred:a_mask,b_mask,c_mask`."""
    parts = [entry.partition(":") for entry in folders]
    files = [f"{folder}/{name}.png" for folder, _, names in parts for name in (names or "a,b").split(",")]
    return find(files, words(dict.fromkeys(("train", "valid", "test"))))


@pytest.mark.parametrize(
    ("folders", "masks"),
    [
        (("images:a,b,c", "masks", "pred:a_mask,b_mask,c_mask"), "masks/*"),
        (("train/images:a,b,c,a_mask,b_mask,c_mask", "train/masks"), "{split}/masks/*"),
        (("images:a,b,c", "masks", "masks_pred:a,b,c"), "masks/*"),
        (("JPEGImages:a,b,c", "SegmentationClass", "SegmentationObject:a,b,c"), "SegmentationClass/*"),
        (("images", "masks", "labels"), "masks/*"),
        (("images", "masks", "old/masks"), "masks/*"),
        (("images:a,b,c", "truth:a,b,c", "masks:d"), "truth/*"),
        (("images", "truth"), "truth/*"),
    ],
)
def test_of_two_masks_of_an_image_those_in_a_folder_of_masks_count(folders, masks):
    layout = layout_of(*folders)
    assert layout is not None
    assert layout.masks == masks
    assert "mages" in layout.images


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (("images", "truth", "pred"), "pred/ or in truth/"),
        (("images", "masks_a", "masks_b"), "masks_a/ or in masks_b/"),
        (("images:a,b,c", "masks", "labels:a,b,c"), "labels/ or in masks/"),
        (("left", "right"), "left/ or in right/"),
    ],
)
def test_masks_that_no_name_tells_from_others_are_asked_for(folders, named):
    with pytest.raises(DataError, match=rf"{named}.*data\.images='.*' data\.masks='"):
        layout_of(*folders)


def test_masks_that_could_be_two_folders_name_the_data_and_are_read_when_they_are_said(root):
    move(root, "images/{split}/{name}.png", "truth/{split}/{name}.png")
    for path in sorted(root.glob("truth/*/*")):
        write_png(root / "pred" / path.parent.name / path.name, np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match=f"in the data folder {root} the masks may lie in"):
        scan(root)
    assert folder.recognises(root)
    as_drawn(scan(root, images="images/{split}/*", masks="truth/{split}/*"))


@pytest.mark.parametrize("place", ["{split}/pred", "{split}/images", "{split}/masks", "masks"])
def test_what_infer_wrote_is_no_truth(place, root):
    """As many predictions as images, while one mask is missing."""
    for split, names in BOXES.items():
        for name in names:
            for ending in ("_mask", "_overlay"):
                write_png(
                    root / place.format(split=split) / f"{name}{ending}.png", MASKS["train", "both"], prediction=True
                )
    (root / "train/masks/both.png").unlink()
    source = scan(root)
    as_drawn(source, {key: mask for key, mask in MASKS.items() if key != ("train", "both")})
    assert found(source, "missing-mask").files == ("train/images/both.png",)
    assert codes(source) == {"missing-mask", "predicted-mask" if place == "{split}/masks" else "not-in-layout"}


def test_predictions_alone_are_no_data_set_unless_they_are_said_to_be(root):
    for path in sorted(root.glob("*/masks/*")):
        write_png(path, read_image(path)[..., 0], prediction=True)
    with pytest.raises(DataError, match=r"4 of them predictions of segwright infer"):
        scan(root)
    as_drawn(scan(root, images="{split}/images/*", masks="{split}/masks/*"))


def test_links_to_folders_are_followed_once(root, tmp_path):
    (tmp_path / "linked").mkdir()
    for name in ("train", "val", "test"):
        (tmp_path / "linked" / name).symlink_to(root / name)
    (tmp_path / "linked" / "train" / "again").symlink_to(tmp_path / "linked")
    as_drawn(scan(tmp_path / "linked", classes=CLASSES))


# what masks hold


def palette_image(ids: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette(COLOURS.tobytes())
    return image


def test_palette_images_are_read_by_their_indices(root):
    rewrite(root, palette_image)
    source = scan(root)
    as_drawn(source)
    assert "index" in found(source, "kind").message


def test_a_palette_in_another_order_is_read_by_its_colours(root):
    def shuffled(ids: np.ndarray) -> Image.Image:
        image = Image.fromarray(np.where(ids == 255, 90, ids + 40).astype(np.uint8))
        palette = np.zeros((256, 3), np.uint8)
        palette[40:43], palette[90] = COLOURS[:3], COLOURS[255]
        image.putpalette(palette.tobytes())
        return image

    rewrite(root, shuffled)
    as_drawn(scan(root))


def test_colours_are_read_by_the_table(root):
    rewrite(root, lambda ids: COLOURS[ids])
    source = scan(root)
    as_drawn(source)
    assert codes(source) == set()
    assert "colours" in found(source, "kind").message


def test_jpeg_masks_are_snapped_and_the_share_is_reported(root):
    rewrite(root, lambda ids: COLOURS[ids], ".jpg")
    source = scan(root)
    for key, mask in masks(source).items():
        assert (mask != MASKS[key]).mean() < 0.03, "but for borders"
    finding = found(source, "snapped")
    assert finding.level == "warning"
    assert set(finding.files) == {f"{path.parent.parent.name}/masks/{path.name}" for path in root.glob("*/masks/*")}
    shares = [
        (np.asarray(Image.open(p))[..., None, :] == COLOURS[[0, 1, 2, 255]]).all(-1).any(-1)
        for p in root.glob("*/masks/*")
    ]
    expected = 1 - np.concatenate([one.ravel() for one in shares]).mean()
    assert f"{expected:.2%} of the pixels snapped" in found(source, "kind").message
    assert codes(source) == {"snapped"}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_area_of_an_unlisted_colour_is_an_error_that_names_file_and_colour(suffix, root):
    def with_stranger(ids: np.ndarray) -> np.ndarray:
        pixels = COLOURS[ids]
        pixels[24:40, 40:56] = (0, 0, 255)
        return pixels

    rewrite(root, with_stranger, suffix)
    finding = found(scan(root), "unknown-colour")
    assert finding.level == "error"
    assert len(finding.files) == 4
    assert "(0, 0, 255)" in finding.message if suffix == ".png" else "(16, 16, 240)" in finding.message


def test_smooth_edges_are_no_areas(root):
    def smooth(ids: np.ndarray) -> Image.Image:
        big = Image.fromarray(COLOURS[np.where(ids == 255, 0, ids)]).resize((112, 80), Image.Resampling.NEAREST)
        return big.resize((56, 40), Image.Resampling.BICUBIC)

    rewrite(root, smooth)
    assert codes(scan(root)) <= {"snapped"}


def test_colours_without_a_table_are_refused_with_what_to_write(root):
    rewrite(root, lambda ids: COLOURS[ids])
    (root / "classes.json").unlink()
    with pytest.raises(DataError, match=r"(?s)name: \?, color: \[128, 128, 128\].*name: \?, color: \[0, 160, 0\]"):
        scan(root)


def test_black_and_white_is_binary(root):
    (root / "classes.json").unlink()
    rewrite(root, lambda ids: (ids == 1).astype(np.uint8) * 255)
    source = scan(root)
    assert list(source.classes) == ["foreground"]
    as_drawn(source, {key: (mask == 1).astype(np.uint8) for key, mask in MASKS.items()})
    assert list(scan(root, classes=["crack"]).classes) == ["crack"]


def test_black_and_white_with_two_names_is_two_classes(root):
    rewrite(root, lambda ids: (ids == 1).astype(np.uint8) * 255)
    source = scan(root, classes=["wall", "crack"])
    assert list(source.classes) == ["wall", "crack"]
    as_drawn(source, {key: (mask == 1).astype(np.uint8) for key, mask in MASKS.items()})


def test_black_and_white_jpegs_are_binary_and_said_to_be_snapped(root):
    (root / "classes.json").unlink()
    rewrite(root, lambda ids: (ids == 2).astype(np.uint8) * 255, ".jpg")
    source = scan(root)
    for key, mask in masks(source).items():
        assert (mask != (MASKS[key] == 2)).mean() < 0.01
    assert codes(source) == {"snapped"}


def test_black_and_white_with_smooth_edges_is_binary(root):
    (root / "classes.json").unlink()

    def smooth(ids: np.ndarray) -> Image.Image:
        big = Image.fromarray((ids == 2).astype(np.uint8) * 255).resize((1120, 800), Image.Resampling.NEAREST)
        return big.rotate(7).resize((560, 400), Image.Resampling.BILINEAR)

    rewrite(root, smooth)
    source = scan(root)
    assert list(source.classes) == ["foreground"]
    assert "binary" in found(source, "kind").message
    assert codes(source) == {"snapped"}


def test_zero_and_one_is_binary_without_names(root):
    (root / "classes.json").unlink()
    rewrite(root, lambda ids: (ids == 1).astype(np.uint8))
    assert list(scan(root).classes) == ["foreground"]


def test_ids_saved_as_jpeg_are_refused(root):
    rewrite(root, lambda ids: (ids % 3 * 9).astype(np.uint8), ".jpg")
    with pytest.raises(DataError, match="lossy"):
        scan(root, classes=["a", "b", "c"])


def test_classes_that_nobody_named_get_the_values_names(root):
    (root / "classes.json").unlink()
    rewrite(root, lambda ids: np.where(ids == 2, 7, ids).astype(np.uint8))
    source = scan(root)
    assert list(source.classes) == ["class_0", "class_1", "class_7"]
    as_drawn(source)


def test_sixteen_bit_ids_are_renumbered(root):
    ids = {0: 0, 1: 300, 2: 41000, 255: 65535}
    rewrite(root, lambda drawn: np.vectorize(ids.get)(drawn).astype(np.uint16))
    table = [{"name": "wall", "id": 0}, {"name": "plant", "id": 41000}, {"name": "crack", "id": 300}]
    source = scan(root, classes=table, ignore=[65535])
    assert list(source.classes) == ["wall", "crack", "plant"], "in the order of ids"
    as_drawn(source)
    assert codes(source) == set()


def test_values_that_are_no_class_are_an_error_that_names_files_and_values(root):
    (root / "train/masks/both.png").unlink()
    write_png(root / "train/masks/both.png", np.where(MASKS["train", "both"] == 2, 9, 0).astype(np.uint8))
    finding = found(scan(root), "unknown-value")
    assert finding.level == "error"
    assert finding.files == ("train/masks/both.png",)
    assert "both.png: 9 (14.64% of its pixels)" in finding.message  # 20 x 20 less 18 x 4, of 40 x 56
    with pytest.raises(DataError, match=r"train/masks/both\.png: 9"):
        folder.build(Config(root=str(root)))
    assert set(np.unique(masks(scan(root))["train", "both"])) == {0, 254}, "a check still sees it"


def test_what_is_ignored_is_no_class(root):
    by_value = scan(root, ignore=[2])
    assert list(by_value.classes) == ["wall", "crack"]
    as_drawn(by_value, {key: np.where(mask == 2, 255, mask) for key, mask in MASKS.items()})
    rest = scan(root, classes=["wall", "crack"], ignore="rest")
    assert codes(rest) == set()
    as_drawn(rest, {key: np.where(mask == 2, 255, mask) for key, mask in MASKS.items()})
    rewrite(root, lambda ids: COLOURS[ids])
    as_drawn(scan(root, ignore=["#00a000"]), {key: np.where(mask == 2, 255, mask) for key, mask in MASKS.items()})


def test_of_many_masks_some_are_looked_over_and_the_rest_refused_when_read(root, monkeypatch):
    monkeypatch.setattr("segwright.datasets.folder_meaning.LOOKED_AT", 2)
    write_png(root / "train/masks/crack.png", np.full((40, 56), 9, np.uint8))
    source = scan(root)
    assert "2 of 4" in found(source, "sampled").message
    with pytest.raises(DataError, match=r"crack\.png holds values that stand for no class: 9"):
        source.splits["train"].mask(1)


CRACK_MASKS = {key: (mask == 1).astype(np.uint8) for key, mask in MASKS.items()}


@pytest.mark.parametrize("named", [["crack"], {"crack": "high"}])
@pytest.mark.parametrize("high", [1, 255])
def test_a_single_name_is_what_is_one_or_white(high, named, root):
    rewrite(root, lambda ids: (ids == 1).astype(np.uint8) * high)
    source = scan(root, classes=named if isinstance(named, list) else {"crack": high})
    assert list(source.classes) == ["crack"]
    as_drawn(source, CRACK_MASKS)
    assert codes(source) == set()


def test_a_single_class_given_as_white_leaves_other_values_unknown(root):
    """Values 0, 1 and 255 with crack: 255: the ones are neither crack nor background, and are not guessed at."""
    rewrite(root, lambda ids: np.where(ids == 1, 255, np.where(ids == 2, 1, 0)).astype(np.uint8))
    assert "both.png: 1 (" in found(scan(root, classes={"crack": 255}), "unknown-value").message


def test_empty_masks_without_names_are_all_background(root):
    (root / "classes.json").unlink()
    rewrite(root, np.zeros_like)
    source = scan(root)
    assert list(source.classes) == ["foreground"]
    as_drawn(source, {key: np.zeros_like(mask) for key, mask in MASKS.items()})


def test_palettes_that_differ_from_file_to_file_are_read_by_their_colours(root):
    turns = iter(range(4))

    def own_order(ids: np.ndarray) -> Image.Image:
        order = np.roll(np.arange(3), next(turns))
        image = Image.fromarray(np.where(ids == 255, 255, order[ids % 3]).astype(np.uint8))
        palette = COLOURS.copy()
        palette[order] = COLOURS[:3]
        image.putpalette(palette.tobytes())
        return image

    rewrite(root, own_order)
    source = scan(root)
    assert "colours" in found(source, "kind").message
    as_drawn(source)


@pytest.mark.parametrize("kind", ["auto", "binary"])
def test_a_grey_level_of_black_and_white_masks_can_be_ignored(kind, root):
    (root / "classes.json").unlink()
    rewrite(root, lambda ids: np.select([ids == 1, ids == 2], [255, 128], 0).astype(np.uint8))
    source = scan(root, ignore=[128], kind=kind)
    as_drawn(source, {key: np.where(mask == 2, 255, mask == 1).astype(np.uint8) for key, mask in MASKS.items()})
    assert list(source.classes) == ["foreground"]
    assert codes(source) == set()


def test_what_cannot_be_ignored_in_black_and_white_masks_is_refused(root):
    (root / "classes.json").unlink()
    rewrite(root, lambda ids: (ids == 1).astype(np.uint8) * 255)
    with pytest.raises(DataError, match="only grey levels from 1 to 254"):
        scan(root, ignore=[255], kind="binary")
    rewrite(root, Image.fromarray, ".jpg")
    with pytest.raises(DataError, match="no longer exact"):
        scan(root, ignore=[128], kind="binary")


def test_ids_that_are_said_to_be_black_and_white_are_refused(root):
    (root / "classes.json").unlink()
    rewrite(root, lambda ids: (ids == 1).astype(np.uint8))
    with pytest.raises(DataError, match=r"no mask holds white.*data\.kind=index"):
        scan(root, kind="binary")


def test_masks_of_one_and_others_of_white_are_not_guessed_at(root):
    (root / "classes.json").unlink()
    highs = iter((1, 255, 1, 255))
    rewrite(root, lambda _: np.eye(40, 56, dtype=np.uint8) * next(highs))
    with pytest.raises(DataError, match=r"train/masks/crack\.png.*others 0 and 255.*data\.kind=index"):
        scan(root)
    assert list(scan(root, kind="index").classes) == ["foreground"]
    assert list(scan(root, classes={"crack": 1}).classes) == ["crack"]


@pytest.mark.parametrize("table", [True, False])
def test_one_mask_of_colours_among_masks_of_ids_is_named(table, root):
    if not table:
        (root / "classes.json").unlink()
    path = root / "train/masks/both.png"
    write_png(path, COLOURS[np.asarray(Image.open(path))])
    source = scan(root)
    assert found(source, "unreadable-mask").files == ("train/masks/both.png",)
    assert len(source.classes) == 3 if table else source.classes


# pairs


def test_files_without_partner_are_named(root):
    (root / "train/masks/both.png").unlink()
    (root / "val/images/edge.png").unlink()
    write_png(root / "val/images/more.png", MASKS["train", "both"])
    write_png(root / "val/masks/more.png", MASKS["train", "both"])
    source = scan(root)
    assert found(source, "missing-mask").files == ("train/images/both.png",)
    assert found(source, "missing-image").files == ("val/masks/edge.png",)
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 1, "valid": 1, "test": 1}


def test_two_images_of_one_name_are_an_error(root):
    (root / "train/images/both.jpg").write_bytes((root / "train/images/both.png").read_bytes())
    finding = found(scan(root), "same-name")
    assert finding.level == "error"
    assert set(finding.files) == {"train/images/both.jpg", "train/images/both.png"}


def test_a_test_split_without_masks_is_left_out(root):
    (root / "test/masks/plant.png").unlink()
    source = scan(root)
    assert source.splits.keys() == {"train", "valid"}
    assert found(source, "test-without-masks").level == "info"
    assert codes(source) == set()


def test_images_outside_the_layout_are_named(root):
    write_png(root / "extra/forgotten.png", MASKS["train", "both"])
    assert found(scan(root), "not-in-layout").files == ("extra/forgotten.png",)


def test_broken_masks_are_named(root):
    (root / "train/masks/both.png").write_bytes(b"no image")
    assert found(scan(root), "unreadable-mask").files == ("train/masks/both.png",)


def test_a_folder_without_masks_says_what_it_holds_and_what_to_write(tmp_path):
    write_png(tmp_path / "photos/a.png", MASKS["train", "both"])
    with pytest.raises(DataError, match=r"1 images in photos/.*data\.images="):
        scan(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        scan(tmp_path / "gone")


def test_patterns_that_pair_nothing_say_what_each_found(root):
    with pytest.raises(DataError, match=r"finds 4 images \(.*masks 0 masks"):
        scan(root, images="*/images/*", masks="{split}/truth/*")


# classes


CLASS_FILES = {
    "classes.txt": "wall\ncrack\nplant\n",
    "_classes.csv": "Pixel Value, Class\n0, wall\n1, crack\n2, plant\n",
    "class_dict.csv": "name,r,g,b\nwall,128,128,128\ncrack,255,0,0\nplant,0,160,0\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nwall:128,128,128::\ncrack:255,0,0::\nplant:0,160,0::\n",
    "classes.json": json.dumps(["wall", "crack", "plant"]),
}


@pytest.mark.parametrize("where", [".", "train"])
@pytest.mark.parametrize("name", CLASS_FILES)
def test_files_with_classes_are_found_beside_the_data(name, where, root):
    (root / "classes.json").unlink()
    (root / where / name).write_text(CLASS_FILES[name])
    source = scan(root)
    assert list(source.classes) == ["wall", "crack", "plant"]
    as_drawn(source)
    if name in ("class_dict.csv", "labelmap.txt"):
        rewrite(root, lambda ids: COLOURS[np.where(ids == 255, 0, ids)])
        as_drawn(scan(root), {key: np.where(mask == 255, 0, mask) for key, mask in MASKS.items()})


@pytest.mark.parametrize(
    "classes",
    [
        ["wall", "crack", "plant"],
        {"wall": 0, "crack": 1, "plant": 2},
        {"plant": 2, "wall": 0, "crack": 1},
        {0: "wall", 1: "crack", 2: "plant"},
        {"0": "wall", "1": "crack", "2": "plant"},
        [{"name": "wall"}, {"name": "crack"}, {"name": "plant", "color": [0, 1, 2]}],
        [{"name": "crack", "id": 1}, {"name": "plant", "id": 2}, {"name": "wall", "id": 0}],
        {"wall": {"id": 0, "color": "#808080"}, "crack": {"id": 1}, "plant": {"id": 2}},
    ],
)
def test_classes_may_be_written_in_many_ways(classes, root):
    (root / "classes.json").unlink()
    source = scan(root, classes=classes)
    assert list(source.classes) == ["wall", "crack", "plant"]
    as_drawn(source)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "there are 0 classes"),
        (["a", "a"], "two classes have the name 'a'"),
        ({"a": 1, "b": 1}, "two classes have the id 1"),
        ([{"name": "a", "id": 0}, {"name": "b"}], "'b' has no id"),
        ([{"id": 0}], "has no name"),
        ({"a": [0, 0, 300]}, r"a colour is \[0, 0, 300\]"),
        ({"a": -1}, "an id is -1"),
        (7, "the classes are 7"),
    ],
)
def test_classes_that_cannot_be_are_refused(classes, message):
    with pytest.raises(ConfigError, match=message):
        Config(root="x", classes=classes)


def test_a_broken_file_with_classes_is_named(root):
    (root / "classes.json").write_text('{"classes": [{"id": 0}]}')
    with pytest.raises(DataError, match=r"classes\.json cannot be used.*has no name"):
        scan(root)


def test_files_with_classes_that_differ_are_refused(root):
    (root / "classes.json").unlink()
    (root / "train/classes.txt").write_text("wall\ncrack\nplant\n")
    (root / "val/classes.txt").write_text("wall\nplant\ncrack\n")
    with pytest.raises(DataError, match=r"train/classes\.txt and val/classes\.txt list different classes"):
        scan(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "a/*"}, "data.images is a pattern, but data.masks is none"),
        ({"images": "a/b", "masks": "c/*"}, r"must lie inside data\.root and have a \*"),
        ({"images": "../a/*", "masks": "c/*"}, r"must lie inside data\.root"),
        ({"ignore": ["some"]}, "a colour is 'some'"),
    ],
)
def test_configs_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Config(root="x", **options)


def test_the_config_survives_its_own_dump(root):
    settings = gather({"data": {"root": str(root), "classes": CLASSES, "ignore": [3, [1, 2, 3]]}})
    assert settings.data.name == "folder"
    assert gather(settings.dump()).data == settings.data


@pytest.mark.parametrize("name", READERS)
def test_every_readers_example_is_known_by_its_reader(name, tmp_path):
    READERS[name].example(tmp_path / "data")
    root = tmp_path / "data"
    if name == "nnunet" and not (root / "dataset.json").exists():
        root = next(path.parent for path in root.rglob("dataset.json"))
    assert detect(root) == name


# real data


@pytest.mark.slow
def test_colour_masks_of_camvid_equal_its_index_masks(real_data):
    index, colours = scan(real_data / "camvid"), scan(real_data / "camvid_rgb")
    assert list(index.classes) == list(colours.classes)
    assert index.classes[3] == "road"
    assert codes(index) == codes(colours) == set()
    compared = 0
    for name, split in colours.splits.items():
        places = {index.splits[name].path(i).name: i for i in range(len(index.splits[name]))}
        for i in range(len(split)):
            np.testing.assert_array_equal(split.mask(i), index.splits[name].mask(places[split.path(i).name]))
            compared += 1
    assert compared == 40


def test_magnetic_tiles_are_read_as_they_are_described(real_data):
    source = scan(real_data / "magnetic_tile")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 336, "valid": 50, "test": 96}
    assert codes(source) == set()
    valid = source.splits["valid"]
    counts = np.sum([np.bincount(valid.mask(i).ravel(), minlength=6) for i in range(len(valid))], axis=0)
    shares = 100 * counts / counts.sum()
    np.testing.assert_allclose(shares, [93.312, 0.024, 0.410, 0.031, 1.020, 5.201], atol=6e-4)  # its README


def test_a_folder_of_several_data_sets_is_not_read_as_one_of_them(tmp_path):
    """Also where files of one have the names of the other's."""
    for name in ("cars", "roads"):
        folder.example(tmp_path / name)
    with pytest.raises(DataError, match=r"several sets of images and masks, in cars, roads\. Name one of these"):
        folder.build(folder.Config(root=str(tmp_path)))
    assert folder.build(folder.Config(root=str(tmp_path / "cars"))).splits


def test_a_class_that_a_file_beside_the_data_lacks_is_to_be_added_to_that_file(tmp_path):
    for name in ("images", "masks"):
        write_png(tmp_path / name / "a.png", np.full((8, 8, 3) if name == "images" else (8, 8), 2, np.uint8))
    (tmp_path / "classes.json").write_text('["sky", "road"]')
    assert (
        "List their classes in classes.json, from which the others come" in found(scan(tmp_path), "unknown-value").fix
    )
    given = found(scan(tmp_path, classes=["sky", "road"]), "unknown-value").fix
    assert given.startswith("List their classes in data.classes, ignore")


def test_a_file_of_classes_that_is_not_there_is_said(root):
    with pytest.raises(DataError, match=r"there is no file nofile\.json with classes. Check the path in data\.classes"):
        scan(root, classes="nofile.json")
