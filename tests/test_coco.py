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


# several classes


def several(tmp_path: Path, annotations: dict[str, list[dict[str, Any]]], categories: list[tuple[int, str]]) -> Path:
    """One image of 20 x 30 in each split, with these annotations; `box` is top, left, bottom, right."""
    for split, entries in annotations.items():
        (tmp_path / split).mkdir(parents=True)
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / split / f"{split}.png")
        listed = []
        for number, entry in enumerate(entries):
            top, left, bottom, right = entry.pop("box")
            polygon = [left, top, right, top, right, bottom, left, bottom]
            listed.append({"id": number, "image_id": 0, "segmentation": [polygon], "iscrowd": 0} | entry)
        content = {
            "images": [{"id": 0, "file_name": f"{split}.png", "height": 20, "width": 30}],
            "categories": [{"id": number, "name": name, "supercategory": "none"} for number, name in categories],
            "annotations": listed,
        }
        (tmp_path / split / ANNOTATIONS).write_text(json.dumps(content))
    return tmp_path


STREET = [(7, "car"), (3, "road"), (9, "person")]


def only(root: Path, **options: Any) -> np.ndarray:
    return coco.build(Config(root=str(root), **options)).splits["train"].mask(0)


def test_all_categories_are_classes_by_their_ids_over_a_background(tmp_path):
    entries = [{"category_id": 7, "box": (0, 0, 5, 5)}, {"category_id": 9, "box": (10, 10, 15, 12)}]
    root = several(tmp_path, {"train": entries}, STREET)
    source = coco.build(Config(root=str(root), classes="all"))
    assert list(source.classes) == ["background", "road", "car", "person"]
    expected = np.zeros((20, 30), np.uint8)
    expected[:5, :5], expected[10:15, 10:12] = 2, 3
    np.testing.assert_array_equal(source.splits["train"].mask(0), expected)


def test_a_list_gives_the_classes_and_their_order(tmp_path):
    entries = [{"category_id": 7, "box": (0, 0, 5, 5)}, {"category_id": 9, "box": (10, 10, 15, 12)}]
    root = several(tmp_path, {"train": entries}, STREET)
    source = coco.build(Config(root=str(root), classes=["person", "road"]))
    assert list(source.classes) == ["background", "person", "road"]
    assert np.unique(source.splits["train"].mask(0)).tolist() == [0, 1]
    assert "'car' is background" in found(root, "classes", classes=["person", "road"]).message


def test_ids_are_dense_over_the_union_of_the_splits_and_equal_in_all(tmp_path):
    """The splits name the same class by different ids, and each lacks one that the other has."""
    root = several(tmp_path, {"train": [{"category_id": 7, "box": (0, 0, 5, 5)}]}, [(7, "car"), (3, "road")])
    other = several(tmp_path / "other", {"valid": [{"category_id": 2, "box": (0, 0, 5, 5)}]}, [(2, "car"), (5, "dog")])
    (other / "valid").rename(root / "valid")
    source = coco.build(Config(root=str(root), classes="all"))
    assert list(source.classes) == ["background", "car", "road", "dog"]  # least ids 2, 3, 5
    assert source.splits["train"].mask(0).max() == source.splits["valid"].mask(0).max() == 1


@pytest.mark.parametrize("turned", [False, True])
def test_the_smaller_annotation_lies_on_top_whatever_the_order(tmp_path, turned):
    entries = [{"category_id": 7, "box": (2, 2, 18, 28)}, {"category_id": 9, "box": (5, 5, 9, 9)}]
    root = several(tmp_path, {"train": entries[::-1] if turned else entries}, STREET)
    mask = only(root, classes="all")
    assert (mask == 3).sum() == 16
    assert (mask == 2).sum() == 16 * 26 - 16


def test_of_equal_annotations_the_later_lies_on_top(tmp_path):
    entries = [{"category_id": 7, "box": (2, 2, 8, 8)}, {"category_id": 9, "box": (2, 5, 8, 11)}]
    mask = only(several(tmp_path, {"train": entries}, STREET), classes="all")
    assert (mask[2:8, 5:8] == 3).all()


def test_a_crowd_lies_below_single_things_however_small_it_is(tmp_path):
    entries = [{"category_id": 7, "box": (2, 2, 18, 28)}, {"category_id": 9, "box": (5, 5, 9, 9), "iscrowd": 1}]
    assert not (only(several(tmp_path, {"train": entries}, STREET), classes="all") == 3).any()


def test_what_is_ignored_is_255_and_lies_on_top(tmp_path):
    categories = [*STREET, (11, "ignore"), (12, "void")]
    entries = [{"category_id": 11, "box": (2, 2, 18, 28)}, {"category_id": 9, "box": (5, 5, 9, 9)}]
    root = several(tmp_path, {"train": entries}, categories)
    assert np.unique(only(root, classes="all")).tolist() == [0, 255]
    other = coco.build(Config(root=str(root), classes="all", ignore="void"))
    assert list(other.classes) == ["background", "road", "car", "person", "ignore"]


def test_an_annotated_background_is_0(tmp_path):
    entries = [{"category_id": 3, "box": (0, 0, 20, 30)}, {"category_id": 7, "box": (5, 5, 9, 9)}]
    root = several(tmp_path, {"train": entries}, STREET)
    source = coco.build(Config(root=str(root), classes="all", background="road"))
    assert list(source.classes) == ["road", "car", "person"]
    assert np.unique(source.splits["train"].mask(0)).tolist() == [0, 1]


@pytest.mark.parametrize(("classes", "names"), [(["car"], ["car"]), (["background", "car"], ["background", "car"])])
def test_one_class_is_a_binary_task_unless_the_background_is_named(tmp_path, classes, names):
    entries = [{"category_id": 7, "box": (0, 0, 5, 5)}, {"category_id": 9, "box": (10, 10, 15, 12)}]
    source = coco.build(Config(root=str(several(tmp_path, {"train": entries}, STREET)), classes=classes))
    assert list(source.classes) == names
    assert source.splits["train"].mask(0).sum() == 25


def test_a_class_that_is_not_there_is_an_error_with_the_nearest(root):
    finding = found(root, "no-such-class", classes=["crak"])
    assert finding.level == "error"
    assert "Did you mean 'crack'?" in finding.message


def test_more_classes_than_masks_can_tell_apart_are_an_error(tmp_path):
    categories = [(number, f"class {number}") for number in range(1, 255)]
    root = several(tmp_path, {"train": [{"category_id": 1, "box": (0, 0, 5, 5)}]}, categories)
    assert found(root, "too-many-classes", classes="all").level == "error"
    (tmp_path / "fits").mkdir()
    fewer = several(tmp_path / "fits", {"train": [{"category_id": 1, "box": (0, 0, 5, 5)}]}, categories[:-1])
    assert len(coco.build(Config(root=str(fewer), classes="all")).classes) == 254


@pytest.mark.parametrize("classes", ["every", [], ["a", "a"], [1], 3, {"a": 1}])
def test_classes_that_are_no_names_are_refused(classes):
    with pytest.raises(ConfigError, match=r"data\.classes"):
        Config(root="x", classes=classes)


def test_classes_come_through_a_config_and_the_command_line(root):
    from segwright.verbs.settings import gather

    flags = {"data.root": str(root)}
    settings = gather(None, flags, ["data.name=coco", "data.classes=[joint,crack]"])
    assert list(READERS.build("coco", settings.data.config).classes) == ["background", "joint", "crack"]
    assert gather(settings.dump()).data == settings.data
    assert gather(None, flags, ["data.name=coco", "data.classes=all"]).data.config.classes == "all"


def test_real_annotations_of_several_classes_equal_pycocotools(real_data, tmp_path):
    """The real cracks, every third one of another class; pycocotools draws them, the largest first."""
    folder = real_data / "crack_coco"
    if not folder.is_dir():
        pytest.skip(f"no real cracks: {folder} is not there")
    (tmp_path / "train").mkdir()
    for image in (folder / "train").glob("*.jpg"):
        (tmp_path / "train" / image.name).symlink_to(image)
    content = json.loads((folder / "train" / ANNOTATIONS).read_text())
    content["categories"] = [{"id": number, "name": f"crack {number}"} for number in (1, 2, 3)]
    for number, entry in enumerate(content["annotations"]):
        entry["category_id"] = 1 + number % 3
    (tmp_path / "train" / ANNOTATIONS).write_text(json.dumps(content))
    split = coco.build(Config(root=str(tmp_path), classes="all")).splits["train"]
    reference = COCO(tmp_path / "train" / ANNOTATIONS)
    ids = {picture["file_name"]: picture["id"] for picture in reference.dataset["images"]}
    seen = set()
    for index in range(len(split)):
        drawn = [
            (reference.annToMask(one), one["category_id"]) for one in reference.imgToAnns[ids[split.path(index).name]]
        ]
        expected = np.zeros((320, 480), np.uint8)
        for mask, category in sorted(drawn, key=lambda pair: -int(pair[0].sum())):
            expected[mask == 1] = category
        np.testing.assert_array_equal(split.mask(index), expected)
        seen |= set(np.unique(expected).tolist())
    assert seen == {0, 1, 2, 3}
