"""The check of the data: what was planted is found, and nothing else is."""

import io
import json
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.checks import check_source, likeness, summary
from segwright.checks.likeness import alike, best_overlay, thumbnail
from segwright.datasets import coco
from segwright.datasets.base import Finding, Source
from segwright.errors import DataError
from segwright.splitting.groups import joined

NEAR = {"near-duplicate-across", "near-duplicate-within"}


@dataclass(frozen=True)
class Shelf:
    """A split in memory."""

    name: str
    images: dict[str, np.ndarray | None]
    masks: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.images)

    def path(self, index: int) -> Path:
        return Path("/data") / self.name / list(self.images)[index]

    def annotation(self, index: int) -> Path:
        return self.path(index).with_suffix(".mask.png")

    def image(self, index: int) -> np.ndarray:
        image = list(self.images.values())[index]
        if image is None:
            raise DataError(f"{self.path(index)} cannot be read: it was made so.")
        return image

    def mask(self, index: int) -> np.ndarray:
        name = list(self.images)[index]
        image = self.images[name]
        shape = (64, 64) if image is None else image.shape[:2]
        return self.masks.get(name, np.zeros(shape, np.uint8))


def shelf(name: str, images: dict[str, np.ndarray | None], masks: dict[str, np.ndarray] | None = None) -> Shelf:
    return Shelf(name, images, masks or {})


def source(*shelves: Shelf, classes: tuple[str, ...] = ("crack",)) -> Source:
    return Source(classes, {one.name: one for one in shelves})


def check(*shelves: Shelf, classes: tuple[str, ...] = ("crack",)) -> dict[str, Finding]:
    """Code -> finding."""
    return {finding.code: finding for finding in check_source(source(*shelves, classes=classes))}


def texture(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """Grey noise at several scales, as of stone or asphalt."""
    random = np.random.default_rng(seed)
    grey = np.full((height, width), 128.0)
    for cell in (2, 8, 32):
        noise = random.normal(0, 25, (height // cell + 2, width // cell + 2)).astype(np.float32)
        grey += np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.array(Image.open(stream))


def cropped(image: np.ndarray, share: float, down: float, right: float) -> np.ndarray:
    height, width = image.shape[:2]
    kept_h, kept_w = round(share * height), round(share * width)
    top, left = round(down * (height - kept_h)), round(right * (width - kept_w))
    return image[top : top + kept_h, left : left + kept_w].copy()


COPIES = {
    "brighter": lambda image: np.minimum(image.astype(int) + 40, 255).astype(np.uint8),
    "of less contrast": lambda image: (image * 0.6 + 30).astype(np.uint8),
    "JPEG 60": lambda image: jpeg(image, 60),
    "mirrored": lambda image: image[:, ::-1].copy(),
    "upside down": lambda image: image[::-1].copy(),
    "turned": lambda image: np.rot90(image).copy(),
    "cropped in the middle": lambda image: cropped(image, 0.95, 0.5, 0.5),
    "cropped at a corner": lambda image: cropped(image, 0.95, 1, 0),
    "cropped anywhere": lambda image: cropped(image, 0.95, 0.3, 0.8),
    "half as large": lambda image: np.asarray(Image.fromarray(image).resize((80, 60), Image.Resampling.BILINEAR)),
    "all at once": lambda image: jpeg(cropped(image, 0.95, 0.2, 0.6)[:, ::-1] // 2 + 60, 70),
}


# duplicates


def test_every_planted_copy_is_found_and_no_other_pair_among_thirty_textures():
    images = {f"{seed}.png": texture(seed) for seed in range(30)}
    copies = {f"copy {kind}.png": copy(texture(seed)) for seed, (kind, copy) in enumerate(COPIES.items())}
    findings = check(shelf("train", images), shelf("test", copies))
    finding = findings["near-duplicate-across"]
    assert finding.level == "warning"
    expected = {f"train/{seed}.png" for seed in range(len(copies))} | {f"test/{name}" for name in copies}
    assert set(finding.files) == expected
    assert f"({len(copies)}): " in finding.message, "each copy with its original, and no further pair"
    assert "near-duplicate-within" not in findings


def test_thirty_different_textures_raise_no_alarm():
    for name, make in (("stone", texture), ("white noise", white_noise)):
        findings = check(shelf("train", {f"{seed}.png": make(seed) for seed in range(100, 130)}))
        assert not NEAR & findings.keys(), name


def white_noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def sand(seed: int) -> np.ndarray:
    """Grains of 4 x 4 pixels without any larger structure: a shift by one grain makes all the difference."""
    grains = np.random.default_rng(seed).integers(0, 256, (40, 50, 1), dtype=np.uint8)
    return grains.repeat(4, 0).repeat(4, 1).repeat(3, 2)


@pytest.mark.parametrize("share", [0.95, 0.92])
@pytest.mark.parametrize(("down", "right"), [(0, 0), (0.5, 0.5), (1, 1), (0.25, 0.75)])
def test_a_cropped_copy_is_found_even_where_there_is_only_fine_detail(share, down, right):
    images = [thumbnail(sand(seed)) for seed in range(20)]
    pairs = alike([*images, thumbnail(cropped(sand(5), share, down, right))])
    assert [(pair.first, pair.second) for pair in pairs] == [(5, 20)]


@pytest.mark.parametrize(("part", "found"), [(0.3, False), (0.7, True)])
def test_only_images_that_have_most_in_common_are_alike(part, found):
    """Two unrelated textures of equal strength laid over each other, p of the first and 1 - p of the second.

    The first correlates with that as p / sqrt(p^2 + (1 - p)^2): 0.39 for p = 0.3, 0.92 for 0.7.
    """
    mixture = (part * texture(1) + (1 - part) * texture(2)).astype(np.uint8)
    assert bool(alike([thumbnail(texture(1)), thumbnail(mixture)])) == found


def test_images_in_one_frame_are_not_alike_for_the_frame_but_a_copy_among_them_is():
    """A bright disc on black in every image, as of a retina, with another texture in each."""
    y, x = np.mgrid[-60:60, -80:80]
    disc = (y**2 + x**2 < 55**2)[:, :, None]
    images = {f"{seed}.png": np.where(disc, texture(seed) // 2 + 90, 0).astype(np.uint8) for seed in range(20)}
    assert not NEAR & check(shelf("train", images)).keys()
    findings = check(shelf("train", images), shelf("test", {"copy.png": jpeg(images["7.png"], 60)}))
    assert set(findings["near-duplicate-across"].files) == {"train/7.png", "test/copy.png"}


def test_a_data_set_of_nothing_but_copies_is_found_out():
    findings = check(shelf("train", {f"{quality}.png": jpeg(texture(0), quality) for quality in (95, 90, 85)}))
    assert findings["near-duplicate-within"].level == "info"
    assert len(findings["near-duplicate-within"].files) == 3


def frames(count: int) -> list[np.ndarray]:
    """(48, 48) thumbnails of two videos in turns; a frame is like every other of its own, however it is turned."""
    rng = np.random.default_rng(0)
    scenes = rng.integers(20, 230, (2, 48, 48))
    scenes = np.mean([likeness.turned(scenes, turn) for turn in range(8)], axis=0)
    return [(scenes[number % 2] + rng.integers(-9, 10, (48, 48))).astype(np.uint8) for number in range(count)]


def test_candidates_among_the_frames_of_videos_take_memory_for_a_few_pairs_of_each_frame():
    """300 frames: 150 x 149 pairs pass the bar, each in eight ways, 27 MB if all are held until the best are chosen."""
    images = frames(300)
    tracemalloc.start()
    try:
        found = likeness._candidates(images)
        assert tracemalloc.get_traced_memory()[1] < 19e6
    finally:
        tracemalloc.stop()
    assert 0 < len(found) <= 8 * len(images)


def test_frames_that_are_all_equal_hang_together():
    found = likeness._candidates(frames(1) * 40)
    assert len(joined(40, [(a, b) for a, b, _ in found])) == 1


def test_the_pairs_that_are_kept_are_those_of_going_through_all_from_the_best_on():
    """As long as one of a pair's two images has fewer than eight, the pair is taken; the slow way, for 40 images."""
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(40, 1)
    promise = rng.permutation(len(first)).astype(np.float32)
    taken, expected = np.zeros(40, int), np.zeros(len(first), bool)
    for pair in np.argsort(-promise):
        ends = [first[pair], second[pair]]
        expected[pair] = taken[ends].min() < 8
        taken[ends] += expected[pair]
    kept = likeness._leading(np.stack([first, second]), np.arange(len(first)), promise, 8)
    assert kept.tolist() == expected.tolist()


def test_the_highest_of_a_row_are_the_first_of_equal_ones_and_none_below_zero():
    excess = np.array([[3, 1, 2, 1, 1], [-1, -1, 0, -2, -3], [5, 5, 5, 5, 5]], np.float32)
    rows, columns = likeness._highest(excess, 3)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [
        *[(0, 0), (0, 1), (0, 2)],
        (1, 2),
        *[(2, 0), (2, 1), (2, 2)],
    ]


def test_flat_images_are_not_compared():
    """Nothing but a little noise of the camera, the same in both."""
    noise = np.random.default_rng(0).integers(0, 2, (90, 120, 3), dtype=np.uint8)
    assert alike([thumbnail(100 + noise), thumbnail(101 + noise)]) == []


def test_the_overlay_of_an_image_and_itself_is_one():
    image = thumbnail(texture(3))
    assert best_overlay(image, image) == pytest.approx(1, abs=1e-5)
    assert best_overlay(image, thumbnail(texture(4))) < 0.4


def test_more_images_than_can_be_compared_are_said_so(monkeypatch):
    monkeypatch.setattr("segwright.checks.duplicates.MOST", 3)
    findings = check(shelf("train", {f"{seed}.png": jpeg(texture(0), 80 + seed) for seed in range(4)}))
    assert "4 images are more than the 3" in findings["near-duplicates-not-sought"].message
    assert not NEAR & findings.keys()


def test_equal_pixels_across_splits_are_an_error_and_within_one_a_warning():
    findings = check(
        shelf("train", {"a.png": texture(0), "b.png": texture(1), "c.png": texture(1)}),
        shelf("test", {"d.png": texture(0)}),
    )
    across, within = findings["duplicate-across"], findings["duplicate-within"]
    assert (across.level, across.files) == ("error", ("train/a.png", "test/d.png"))
    assert (within.level, within.files) == ("warning", ("train/b.png", "train/c.png"))
    assert not NEAR & findings.keys(), "what is equal is not reported as alike once more"


def test_blank_images_are_not_taken_for_duplicates():
    black = np.zeros((64, 64, 3), np.uint8)
    findings = check(shelf("train", {"a.png": black}), shelf("test", {"b.png": black}))
    assert findings["blank-image"].files == ("train/a.png", "test/b.png")
    assert "duplicate-across" not in findings


def test_roboflow_siblings_across_splits_are_found_and_within_one_are_fine():
    train = {name: texture(seed) for seed, name in enumerate(("a_jpg.rf.1f.jpg", "a_jpg.rf.2e.jpg", "b_jpg.rf.3d.jpg"))}
    test = {name: texture(seed) for seed, name in enumerate(("b_jpg.rf.4c.jpg", "c_jpg.rf.5b.jpg"), start=5)}
    findings = check(shelf("train", train), shelf("test", test))
    assert findings["siblings-across"].files == ("train/b_jpg.rf.3d.jpg", "test/b_jpg.rf.4c.jpg")


def test_the_crack_photographed_twice_is_found_in_the_real_data_and_nothing_else(real_data):
    """001 and 095 show the same spot (seen by eye); the conversion put one into train and one into test."""
    folder = real_data / "crack_coco"
    if not folder.is_dir():
        pytest.skip(f"no real cracks: {folder} is not there")
    findings = check_source(coco.scan(coco.Config(root=str(folder))))
    assert [finding.code for finding in findings if finding.level != "info"] == ["near-duplicate-across"]
    assert set(findings[0].files) == {"train/001.jpg", "test/095.jpg"}


@pytest.mark.slow
def test_retinas_raise_no_alarm(real_data):
    paths = sorted((real_data / "Dataset501_CHASEDB1").glob("images*/*.png"))
    if not paths:
        pytest.skip("no retinas: Dataset501_CHASEDB1 is not there")
    assert alike([thumbnail(np.asarray(Image.open(path))) for path in paths]) == []


# images and masks


def test_an_unreadable_image_is_named_and_the_rest_is_checked():
    findings = check(shelf("train", {"a.png": None, "b.png": texture(0), "c.png": texture(0)}))
    assert findings["unreadable-image"].files == ("train/a.png",)
    assert "duplicate-within" in findings


def test_a_mask_of_another_size_is_named_with_both():
    findings = check(shelf("train", {"a.png": texture(0)}, {"a.png": np.zeros((7, 9), np.uint8)}))
    assert findings["mask-size"].level == "error"
    assert "train/a.mask.png: image 160 x 120, mask 9 x 7" in findings["mask-size"].message


def test_small_images_are_named():
    findings = check(shelf("train", {"a.png": texture(0, 31, 40), "b.png": texture(1, 32, 32)}))
    assert findings["small-image"].files == ("train/a.png",)
    assert "40 x 31" in findings["small-image"].message


@pytest.mark.parametrize(
    ("classes", "values", "named"),
    [
        (("crack",), [0, 1, 255], False),
        (("crack",), [0, 2], True),
        (("a", "b", "c"), [2, 255], False),
        (("a", "b"), [2], True),
    ],
)
def test_mask_values_that_are_no_class_are_errors(classes, values, named):
    mask = np.resize(np.array(values, np.uint8), (120, 160))
    findings = check(shelf("train", {"x.png": texture(0)}, {"x.png": mask}), classes=classes)
    assert ("mask-value" in findings) == named


def masked(positive: list[float]) -> Shelf:
    """A training split whose masks have these shares of positive pixels, in rows from the top of 100."""
    masks = {
        f"{i}.png": (np.arange(100)[:, None] < 100 * part).repeat(50, 1).astype(np.uint8)
        for i, part in enumerate(positive)
    }
    return shelf("train", {name: texture(i, 100, 50) for i, name in enumerate(masks)}, masks)


def test_empty_masks_are_counted():
    findings = check(masked([0, 0.1, 0.2]))
    assert findings["empty-masks"].level == "info"
    assert findings["empty-masks"].files == ("train/0.mask.png",)
    assert "1 of 3 images" in findings["empty-masks"].message


def test_mostly_empty_masks_are_a_warning():
    findings = check(masked([0, 0, 0.2]))
    assert "2 of 3 images" in findings["mostly-empty"].message
    assert findings["mostly-empty"].level == "warning"


def test_a_mask_that_is_nearly_full_is_doubted():
    findings = check(masked([0.1, 0.1, 0.96]))
    assert findings["mostly-positive"].files == ("train/2.mask.png",)
    assert "inverted" not in findings


def test_masks_that_are_all_nearly_full_are_probably_inverted_and_this_is_said_once():
    findings = check(masked([0.99, 0.98]))
    assert "98.5 % positive" in findings["inverted"].message
    assert "mostly-positive" not in findings


def test_class_shares_are_told_for_each_split():
    message = check(masked([0.1, 0.2]))["class-shares"].message
    assert "train: crack 15 %" in message


def test_a_class_that_training_lacks_is_a_warning():
    mask = np.resize(np.array([0, 2], np.uint8), (120, 160))
    findings = check(shelf("train", {"x.png": texture(0)}, {"x.png": mask}), classes=("a", "b", "c"))
    assert findings["absent-class"].message.endswith("(1): b.")


# the whole


def test_a_good_data_set_gives_information_only(tmp_path):
    found = coco.scan(coco.Config(root=str(coco.example(tmp_path))))
    for quick in (True, False):
        assert {finding.level for finding in check_source(found, quick=quick)} == {"info"}


def test_errors_come_first_and_the_readers_findings_are_among_them(tmp_path):
    root = coco.example(tmp_path)
    (root / "train" / "one_polygon.png").unlink()
    (root / "test" / "stray.png").write_bytes((root / "test" / "no_crack.png").read_bytes())
    findings = check_source(coco.scan(coco.Config(root=str(root))))
    levels = [finding.level for finding in findings]
    assert levels == sorted(levels, key=["error", "warning", "info"].index)
    assert {"missing-image", "unlisted-image"} <= {finding.code for finding in findings}


def test_a_quick_check_finds_equal_files_and_reads_no_other_pixels(tmp_path, monkeypatch):
    root = coco.example(tmp_path)
    (root / "test" / "no_crack.png").write_bytes((root / "train" / "one_polygon.png").read_bytes())
    found = coco.scan(coco.Config(root=str(root)))
    read: list[str] = []
    image = coco.CocoSplit.image
    monkeypatch.setattr(coco.CocoSplit, "image", lambda self, i: read.append(self.path(i).name) or image(self, i))
    findings = {finding.code: finding for finding in check_source(found, quick=True)}
    assert set(findings["duplicate-across"].files) == {"train/one_polygon.png", "test/no_crack.png"}
    assert read == ["one_polygon.png"], "one of the equal files, to see that it is not blank"


def test_progress_counts_every_image(tmp_path):
    found = coco.scan(coco.Config(root=str(coco.example(tmp_path))))
    for quick in (True, False):
        calls: list[tuple[int, int]] = []
        check_source(found, quick=quick, progress=lambda done, of, calls=calls: calls.append((done, of)))
        assert calls == [(i, 6) for i in range(1, 7)]


def test_the_summary_is_plain_numbers_worked_out_by_hand(tmp_path):
    """Boxes of the example: test has 4 * 15 + 3 * 26 = 138 positive pixels in two images of 40 * 56 = 2240."""
    found = summary(coco.scan(coco.Config(root=str(coco.example(tmp_path)))))
    assert found["classes"] == ["crack"]
    assert list(found["splits"]) == ["train", "valid", "test"]
    test = found["splits"]["test"]
    assert test.pop("pixel_share") == {"crack": pytest.approx(138 / 4480)}
    assert test == {
        "images": 2,
        "annotated_images": 1,
        "unreadable_images": 0,
        "ignored_share": 0.0,
        "height": [40, 40],
        "width": [56, 56],
    }
    assert json.loads(json.dumps(found))["splits"]["train"]["images"] == 2


def test_ignored_pixels_count_for_no_class():
    """Of 100 rows 20 are ignored and 20 positive: 20 / 80."""
    mask = np.zeros((100, 50), np.uint8)
    mask[:20], mask[20:40] = 255, 1
    found = check_source(source(shelf("train", {"x.png": texture(0, 100, 50)}, {"x.png": mask})))
    assert "train: crack 25 %" in next(one.message for one in found if one.code == "class-shares")


def test_a_source_without_images_is_checked_without_a_crash():
    assert check_source(Source(("crack",), {})) == []
    assert summary(Source(("crack",), {})) == {"classes": ["crack"], "splits": {}}


def test_the_turns_undo_each_other():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for turn in range(8):
        back = likeness.turned(likeness.turned(image, turn), likeness._inverse(turn))
        np.testing.assert_array_equal(back, image)
