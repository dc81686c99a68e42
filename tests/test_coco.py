"""COCO in Roboflow's layout: masks equal pycocotools', and what is wrong is said once, clearly, by file name."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycoco
from pycocotools.coco import COCO

from segwright.datasets import READERS, coco
from segwright.datasets.base import SHOWN, Finding, Source
from segwright.datasets.coco import Config
from segwright.datasets.coco_example import CRACKS, HEIGHT, WIDTH
from segwright.datasets.coco_masks import run_lengths
from segwright.errors import ConfigError, DataError

ANNOTATIONS = "_annotations.coco.json"
SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]


@pytest.fixture
def root(tmp_path) -> Path:
    return coco.example(tmp_path / "data")


def edit(root: Path, change: Callable[[dict[str, Any]], object], split: str = "train") -> None:
    """Changes a split's annotation file in place."""
    path = root / split / ANNOTATIONS
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def scan(root: Path, **options: Any) -> Source:
    return coco.scan(Config(root=str(root), **options))


def found(root: Path, code: str, **options: Any) -> Finding:
    """The one finding with that code."""
    findings = [finding for finding in scan(root, **options).findings if finding.code == code]
    assert len(findings) == 1, f"{code}: {findings}"
    return findings[0]


def refused(root: Path, **options: Any) -> str:
    """What `build` says when it refuses."""
    with pytest.raises(DataError) as caught:
        coco.build(Config(root=str(root), **options))
    return str(caught.value)


def painted(split: str, name: str) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for top, left, bottom, right in CRACKS[split][name]:
        mask[top:bottom, left:right] = 1
    return mask


def masks(source: Source) -> dict[str, np.ndarray]:
    return {split.path(i).name: split.mask(i) for split in source.splits.values() for i in range(len(split))}


# what is right


def test_every_form_of_annotation_gives_the_boxes_it_was_made_from(root):
    source = READERS.build("coco", Config(root=str(root)))
    assert list(source.classes) == ["crack"]
    read = masks(source)
    assert set(read) == {name for boxes in CRACKS.values() for name in boxes}
    for split, boxes in CRACKS.items():
        for name in boxes:
            assert read[name].dtype == np.uint8
            np.testing.assert_array_equal(read[name], painted(split, name), err_msg=name)


def test_the_example_holds_every_form(root):
    entries = [
        entry for split in CRACKS for entry in json.loads((root / split / ANNOTATIONS).read_text())["annotations"]
    ]
    counts = {type(entry["segmentation"]["counts"]) for entry in entries if isinstance(entry["segmentation"], dict)}
    assert counts == {str, list}
    assert {entry["iscrowd"] for entry in entries} == {0, 1}
    assert max(len(entry["segmentation"]) for entry in entries if isinstance(entry["segmentation"], list)) == 2


def test_images_are_read_and_come_by_name_whatever_the_files_order(root):
    edit(root, lambda content: content["images"].reverse())
    split = scan(root).splits["train"]
    assert [split.path(i).name for i in range(len(split))] == ["one_polygon.png", "two_annotations.png"]
    assert split.image(0).shape == (HEIGHT, WIDTH, 3)


def test_a_split_travels_to_worker_processes(root):
    split = pickle.loads(pickle.dumps(scan(root).splits["train"]))
    np.testing.assert_array_equal(split.mask(0), painted("train", "one_polygon.png"))


def test_all_real_masks_equal_pycocotools(real_data):
    """117 images with polygons, compressed and uncompressed run lengths."""
    folder = real_data / "crack_coco"
    if not folder.is_dir():
        pytest.skip(f"no real cracks: {folder} is not there")
    compared = 0
    for name, split in coco.build(Config(root=str(folder))).splits.items():
        reference = COCO(folder / name / ANNOTATIONS)
        ids = {picture["file_name"]: picture["id"] for picture in reference.dataset["images"]}
        for index in range(len(split)):
            expected = np.zeros((320, 480), np.uint8)
            for annotation in reference.imgToAnns[ids[split.path(index).name]]:
                if annotation["category_id"] == 1:
                    expected |= reference.annToMask(annotation)
            np.testing.assert_array_equal(split.mask(index), expected)
            assert split.image(index).shape == (320, 480, 3)
            compared += 1
    assert compared == 117


def test_the_pattern_finds_categories_in_any_case_and_unites_them(root):
    def rename(content):
        content["categories"][1]["name"] = "Long CRACK"
        content["categories"][2]["name"] = "cracks, small"

    for split in CRACKS:
        edit(root, rename, split)
    source = scan(root)
    assert list(source.classes) == ["Long CRACK / cracks, small"]
    joint = painted("train", "one_polygon.png")
    joint[35:37] = 1  # the joint of the example's first image
    np.testing.assert_array_equal(masks(source)["one_polygon.png"], joint)


def test_another_pattern_gives_another_class(root):
    source = scan(root, pattern="^joint$")
    assert list(source.classes) == ["joint"]
    assert masks(source)["one_polygon.png"].sum() == 2 * WIDTH


def test_the_findings_name_what_is_positive_and_what_is_background(root):
    assert "'crack' is positive; 'joint' is background" in found(root, "classes").message


def test_a_good_data_set_has_nothing_but_information(root):
    assert {finding.level for finding in scan(root).findings} == {"info"}


# Roboflow's placeholder


def test_the_placeholder_is_left_out_and_this_is_said(root):
    assert "'pavement'" in found(root, "dummy-category").message
    message = refused(root, pattern="pavement")
    assert "the categories are 'crack', 'joint'" in message


def test_a_placeholder_that_some_split_uses_is_a_class(root):
    edit(root, lambda content: content["annotations"][0].update(category_id=0), "test")
    source = scan(root, pattern="pavement")
    assert list(source.classes) == ["pavement"]
    assert not [finding for finding in source.findings if finding.code == "dummy-category"]


def test_a_flat_list_of_categories_stays_whole(root):
    def flatten(content):
        for category in content["categories"]:
            category["supercategory"] = "none"

    for split in CRACKS:
        edit(root, flatten, split)
    source = scan(root)
    assert not [finding for finding in source.findings if finding.code == "dummy-category"]
    assert "'crack' is positive; 'joint' is background; 'pavement' is background" in found(root, "classes").message
    np.testing.assert_array_equal(masks(source)["crowd.png"], painted("valid", "crowd.png"))


def test_a_list_in_which_all_are_parents_and_unused_stays_whole(root):
    def ring(content):
        content["categories"] = [
            {"id": 1, "name": "crack", "supercategory": "joint"},
            {"id": 2, "name": "joint", "supercategory": "crack"},
        ]
        content["annotations"] = []

    for split in CRACKS:
        edit(root, ring, split)
    source = scan(root)
    assert list(source.classes) == ["crack"]
    assert not [finding for finding in source.findings if finding.code == "dummy-category"]


def test_the_parent_may_be_named_in_another_split_only(root):
    """In train nothing names 'crack' as its parent; in valid a category does. The union decides."""
    for split in CRACKS:
        edit(
            root,
            lambda content: content.update(categories=[{"id": 0, "name": "crack", "supercategory": "none"}]),
            split,
        )
        edit(root, lambda content: content.update(annotations=[]), split)
    edit(root, lambda content: content["categories"].append({"id": 5, "name": "x", "supercategory": "crack"}), "valid")
    assert "the categories are 'x'" in refused(root)


def test_a_category_that_only_another_split_lists_is_known(root):
    edit(root, lambda content: content.update(categories=content["categories"][:1]), "test")
    np.testing.assert_array_equal(masks(scan(root))["two_polygons.png"], painted("test", "two_polygons.png"))


# what is wrong: folders and files


def test_no_such_folder(tmp_path):
    assert "nowhere does not exist" in refused(tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"")
    assert "x.zip is a file" in refused(tmp_path / "x.zip")


def test_a_folder_without_splits_says_what_it_holds(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "notes.txt").write_text("")
    assert "it holds images/, notes.txt" in refused(tmp_path)


def test_a_split_given_in_place_of_the_root_is_recognised(root):
    assert f"Is its parent meant, {root}?" in refused(root / "train")


def test_a_missing_split_is_only_information(root):
    (root / "test").rename(root / "testing")
    source = coco.build(Config(root=str(root)))
    assert set(source.splits) == {"train", "valid"}
    finding = found(root, "missing-split")
    assert finding.level == "info"
    assert "testing/" in finding.message
    assert set(coco.build(Config(root=str(root), test="testing")).splits) == {"train", "valid", "test"}


def test_a_split_without_its_annotation_file(root):
    (root / "valid" / ANNOTATIONS).rename(root / "valid" / "labels.json")
    assert f"valid/{ANNOTATIONS}: the JSON files there are labels.json" in refused(root)
    assert set(scan(root).splits) == {"train", "test"}, "the check goes on with the others"


@pytest.mark.parametrize(
    "content", [b"{", b"", b"\xff\xfe\x00", b"[" * 100_000], ids=["cut", "empty", "binary", "deep"]
)
def test_a_file_that_is_no_json(root, content):
    (root / "train" / ANNOTATIONS).write_bytes(content)
    assert f"no JSON (1): train/{ANNOTATIONS}" in refused(root)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "a list, not an object"),
        ({"images": [], "categories": []}, "lacks 'annotations'"),
        ({"images": {}, "annotations": [], "categories": []}, "'images' is no list"),
    ],
)
def test_json_that_is_not_coco_says_what_is_missing(root, content, reason):
    (root / "train" / ANNOTATIONS).write_text(json.dumps(content))
    message = refused(root)
    assert f"train/{ANNOTATIONS}" in message
    assert reason in message


@pytest.mark.parametrize(
    ("key", "change", "reason"),
    [
        ("images", {"height": "40"}, "images[0] has height = '40', which is not a whole number above 0"),
        ("images", {"width": 0}, "images[0] has width = 0"),
        ("images", {"file_name": 7}, "images[0] has file_name = 7, which is not a text"),
        ("annotations", {"image_id": None}, "annotations[0] has image_id = None"),
        ("categories", {"id": [1]}, "categories[0] has id = [1]"),
    ],
)
def test_entries_of_wrong_types_are_named(root, key, change, reason):
    edit(root, lambda content: content[key][0].update(change))
    assert reason in refused(root)


def test_entries_that_lack_something_are_named(root):
    edit(root, lambda content: content["images"][1].pop("height"))
    edit(root, lambda content: content["annotations"].append("x"))
    message = refused(root)
    assert "images[1] lacks 'height'" in message
    assert "annotations[4] is no object" in message


def test_an_empty_split(root):
    edit(root, lambda content: content.update(images=[], annotations=[]), "valid")
    assert "a split without a usable image (1): valid." in refused(root)


def test_training_without_a_positive_annotation_is_refused_and_testing_is_doubted(root):
    edit(root, lambda content: content.update(annotations=[]), "test")
    assert found(root, "nothing-to-measure").level == "warning"
    edit(root, lambda content: content.update(annotations=[]), "train")
    assert "a training split without one positive annotation (1): train." in refused(root)


def test_no_category_matching_lists_those_there_are(root):
    message = refused(root, pattern="spalling")
    assert "'spalling'" in message
    assert "'crack', 'joint'" in message


def test_a_pattern_that_is_no_regular_expression():
    with pytest.raises(ConfigError, match=r"data\.pattern is '\('"):
        Config(root="x", pattern="(")


# what is wrong: images


@pytest.mark.parametrize(
    "name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "..\\x.jpg", "C:\\x.jpg", "\\\\host\\x.jpg"]
)
def test_names_that_leave_the_folder_are_refused(root, name):
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "x.jpg")
    edit(root, lambda content: content["images"][0].update(file_name=name))
    assert found(root, "unsafe-path").files == (f"train/{name}",)
    assert len(scan(root).splits["train"]) == 1
    assert name in refused(root)


def test_names_in_a_folder_below_are_fine(root):
    (root / "train" / "images").mkdir()
    (root / "train" / "one_polygon.png").rename(root / "train" / "images" / "one_polygon.png")
    edit(root, lambda content: content["images"][0].update(file_name="./images/one_polygon.png"))
    source = coco.build(Config(root=str(root)))
    np.testing.assert_array_equal(masks(source)["one_polygon.png"], painted("train", "one_polygon.png"))


def test_missing_images_are_named(root):
    (root / "train" / "one_polygon.png").unlink()
    assert found(root, "missing-image").files == ("train/one_polygon.png",)
    assert "train/one_polygon.png" in refused(root)


def test_an_image_of_another_size_is_named_with_both_sizes(root):
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(root / "train" / "one_polygon.png")
    assert f"train/one_polygon.png: is {WIDTH} x {HEIGHT + 1}, annotated as {WIDTH} x {HEIGHT}" in refused(root)


def test_the_size_counts_after_exif_orientation(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(root / "train" / "one_polygon.png", exif=exif)
    split = coco.build(Config(root=str(root))).splits["train"]
    assert split.image(0).shape[:2] == split.mask(0).shape == (HEIGHT, WIDTH)


def test_a_file_that_is_no_image(root):
    (root / "train" / "one_polygon.png").write_bytes(b"nothing")
    assert "train/one_polygon.png" in refused(root)
    assert found(root, "unreadable-image").level == "error"


def test_a_truncated_jpeg_is_told_when_it_is_read(root):
    path = root / "train" / "one_polygon.png"
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=r"one_polygon\.png"):
        scan(root).splits["train"].image(0)


def test_images_that_are_not_listed_are_a_warning(root):
    Image.new("RGB", (8, 8)).save(root / "valid" / "more.JPG")
    (root / "valid" / "notes.txt").write_text("")
    finding = found(root, "unlisted-image")
    assert (finding.level, finding.files) == ("warning", ("valid/more.JPG",))


def test_ids_and_names_used_twice_are_refused(root):
    edit(root, lambda content: content["images"].append({**content["images"][0], "file_name": "other.png"}))
    edit(root, lambda content: content["images"].append({**content["images"][0], "id": 9}), "test")
    message = refused(root)
    assert "image ids used twice" in message
    assert "train/other.png: id 0" in message
    assert "images listed twice" in message
    assert "test/two_polygons.png" in message


def test_many_bad_images_make_one_finding_that_lists_them_all(root):
    extra = [{"id": 100 + i, "file_name": f"{i}.png", "height": 4, "width": 4} for i in range(SHOWN + 3)]
    edit(root, lambda content: content["images"].extend(extra))
    finding = found(root, "missing-image")
    assert len(finding.files) == SHOWN + 3
    assert "; and 3 more" in finding.message


# what is wrong: annotations


def test_annotations_of_no_image_are_a_warning(root):
    edit(root, lambda content: content["annotations"][0].update(image_id=77), "valid")
    finding = found(root, "orphan-annotation")
    assert finding.level == "warning"
    assert "image id 77" in finding.message


def test_annotations_of_an_unknown_category_are_refused(root):
    edit(root, lambda content: content["annotations"][0].update(category_id=77))
    assert "category id 77" in refused(root)


def test_a_category_id_with_two_names_is_refused(root):
    edit(root, lambda content: content["categories"].append({"id": 1, "name": "joint"}))
    assert "id 1 is 'crack' and 'joint'" in refused(root)


def segmented(root: Path, segmentation: Any) -> None:
    edit(root, lambda content: content["annotations"][0].update(segmentation=segmentation))


def test_polygons_of_fewer_than_three_points_are_left_out_with_a_warning(root):
    """Left in front, one of four numbers would make pycocotools read every polygon as a box."""
    segmented(root, [[1, 1, 5, 5], SQUARE])
    assert found(root, "short-polygon").level == "warning"
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[10:20, 10:20] = 1
    np.testing.assert_array_equal(masks(scan(root))["one_polygon.png"], expected)


@pytest.mark.parametrize("segmentation", [[], None])
def test_annotations_without_a_segmentation_are_a_warning(root, segmentation):
    segmented(root, segmentation)
    assert found(root, "no-segmentation").files == ("train/one_polygon.png",)
    assert masks(scan(root))["one_polygon.png"].sum() == 0


@pytest.mark.parametrize(
    "segmentation",
    [
        SQUARE,
        "SQUARE",
        [SQUARE[:-1]],
        [[*SQUARE, "1", 2]],
        [[float("nan"), *SQUARE[1:]]],
        [[1e9, *SQUARE[1:]]],
        {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]},
        {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH - 1]},
        {"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]},
        {"size": [HEIGHT, WIDTH], "counts": [1.5, HEIGHT * WIDTH - 1.5]},
        {"size": [HEIGHT, WIDTH], "counts": []},
        {"size": [HEIGHT, WIDTH], "counts": "zzzz"},
        {"size": [HEIGHT, WIDTH], "counts": "5"},
        {"size": [HEIGHT, WIDTH], "counts": "\u00e9"},
        {"size": [HEIGHT, WIDTH], "counts": "P" * 9 + "0"},
        {"size": [HEIGHT, WIDTH]},
    ],
    ids=lambda value: str(value)[:40],
)
def test_segmentations_that_cannot_be_painted_are_refused(root, segmentation):
    """pycocotools would give memory that it does not own for some of these, and loop for ever on others."""
    segmented(root, segmentation)
    assert found(root, "bad-segmentation").files == ("train/one_polygon.png",)
    assert "train/one_polygon.png" in refused(root)


def test_compressed_run_lengths_are_told_as_pycocotools_packs_them():
    random = np.random.default_rng(0)
    for share in (0.0, 0.01, 0.5, 1.0):
        pixels = np.asfortranarray(random.random((70, 90)) < share, dtype=np.uint8)
        packed = pycoco.encode(pixels)["counts"].decode()
        column_wise = np.concatenate([[0], pixels.ravel(order="F")])
        changes = np.flatnonzero(np.diff(column_wise))
        expected = np.diff(np.concatenate([[0], changes, [pixels.size]]))
        got = run_lengths(packed)
        assert got is not None
        np.testing.assert_array_equal(got, expected)
