import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from segwright.errors import ConfigError, DataError
from segwright.painting import best_grey_threshold_iou, paint, write_dataset

SMALL = (96, 128)


@pytest.fixture(scope="module")
def painted():
    return [paint(seed) for seed in range(20)]


def test_the_same_seed_paints_the_same_picture_and_another_one_another():
    image, mask = paint(3, SMALL)
    again, mask_again = paint(3, SMALL)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, mask_again)
    assert not np.array_equal(image, paint(7, SMALL)[0])


def test_pictures_and_masks_have_the_promised_form(painted):
    for image, mask in painted:
        assert image.shape == (192, 256, 3)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1}
        assert 20 < image.mean() < 240
        assert image.std() > 3


def test_one_picture_in_ten_has_no_crack_and_the_others_have_thin_ones(painted):
    shares = [mask.mean() for _, mask in painted]
    assert [i for i, share in enumerate(shares) if share == 0] == [9, 19]
    assert all(0.002 < share < 0.15 for share in shares if share)


def eroded(mask: np.ndarray) -> np.ndarray:
    inside = mask.astype(bool)
    for axis in (0, 1):
        for step in (1, -1):
            inside = inside & np.roll(mask, step, axis).astype(bool)
    return inside


def test_cracks_are_at_most_about_six_pixels_wide_except_where_they_meet(painted):
    """Four erosions leave nothing of what is narrower than 8 px."""
    left = total = 0
    for _, mask in painted:
        total += mask.sum()
        for _ in range(4):
            mask = eroded(mask)
        left += mask.sum()
    assert left < 0.01 * total


def test_the_truth_fits_the_darkness_to_the_pixel(painted):
    """Moved by two pixels in any direction, the mask covers brighter ground in every picture."""
    for image, mask in painted:
        if not mask.any():
            continue
        grey = image.mean(-1)
        here = grey[mask == 1].mean()
        for step in ((2, 0), (-2, 0), (0, 2), (0, -2)):
            assert here < grey[np.roll(mask, step, (0, 1)) == 1].mean()


def test_no_grey_threshold_finds_the_cracks(painted):
    _, iou = best_grey_threshold_iou(*zip(*painted, strict=True))
    assert 0 < iou < 0.2


def test_other_sizes_can_be_painted():
    image, mask = paint(1, (200, 131))
    assert image.shape == (200, 131, 3)
    assert mask.shape == (200, 131)


@pytest.mark.parametrize(("seed", "size"), [(-1, SMALL), (0, (96, 10))])
def test_what_cannot_be_painted_is_refused(seed, size):
    with pytest.raises(ConfigError):
        paint(seed, size)


# the best threshold


def test_the_best_threshold_by_hand():
    """Greys 10, 20, 30, 40, cracks at 10 and 30: <=10 gives 1/2, <=20 1/3, <=30 2/3, <=40 2/4."""
    image = np.repeat(np.array([[[10], [20], [30], [40]]], np.uint8), 3, -1)
    assert best_grey_threshold_iou([image], [np.array([[1, 0, 1, 0]])]) == (30, pytest.approx(2 / 3))


def test_ignored_pixels_do_not_count():
    image = np.repeat(np.array([[[10], [20], [30], [40]]], np.uint8), 3, -1)
    assert best_grey_threshold_iou([image], [np.array([[1, 255, 1, 0]])]) == (30, 1.0)


def test_the_threshold_agrees_with_trying_all_of_them(painted):
    greys = [np.asarray(Image.fromarray(image).convert("L")) for image, _ in painted]
    grey, truth = np.concatenate(greys), np.concatenate([mask for _, mask in painted]) == 1
    tried = [(truth & (grey <= t)).sum() / (truth | (grey <= t)).sum() for t in range(256)]
    threshold, iou = best_grey_threshold_iou(*zip(*painted, strict=True))
    assert iou == pytest.approx(max(tried), abs=1e-3)
    assert tried[threshold] == pytest.approx(max(tried), abs=1e-3)


# the data set


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode with NumPy 2
def test_the_data_set_holds_the_painted_pictures_in_roboflows_layout(tmp_path):
    counted = []
    (tmp_path / "cracks").mkdir()  # an empty folder may be there
    folder = write_dataset(tmp_path / "cracks", 8, 1, 1, SMALL, seed=2, progress=lambda *c: counted.append(c))
    assert counted == [(n, 10) for n in range(1, 11)]
    assert [p.name for p in tmp_path.iterdir()] == ["cracks"]
    files = {}
    for split, count in (("train", 8), ("valid", 1), ("test", 1)):
        coco = json.loads((folder / split / "_annotations.coco.json").read_text())
        assert coco["categories"][0]["supercategory"] == "none"
        assert coco["categories"][1] == {"id": 1, "name": "crack", "supercategory": coco["categories"][0]["name"]}
        assert len(coco["images"]) == count
        assert len(list((folder / split).iterdir())) == count + 1
        files.update({entry["file_name"]: (split, entry, coco) for entry in coco["images"]})
    assert len(files) == 10
    for name, (split, entry, coco) in files.items():
        image, mask = paint(int(name.split("_")[1].split(".")[0]), SMALL)
        stored = np.asarray(Image.open(folder / split / name)).astype(int)
        assert np.abs(stored - image).mean() < 8
        assert stored.shape == (entry["height"], entry["width"], 3)
        found = [a for a in coco["annotations"] if a["image_id"] == entry["id"]]
        decoded = sum((rle.decode(a["segmentation"]) for a in found), np.zeros(SMALL, np.uint8))
        np.testing.assert_array_equal(decoded, mask)
        assert all(a["area"] == mask.sum() and a["category_id"] == 1 for a in found)


def test_other_seeds_share_no_picture(tmp_path):
    names = [
        {p.name for p in write_dataset(tmp_path / str(seed), 2, 1, 1, SMALL, seed=seed).rglob("*.jpg")}
        for seed in (0, 1)
    ]
    assert [len(n) for n in names] == [4, 4]
    assert not names[0] & names[1]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        write_dataset(tmp_path, 1, 0, 0, SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_half_painted_is_left_behind(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "cracks", 2, 0, 0, SMALL, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the painted pictures"):
        write_dataset(tmp_path / "file" / "cracks", 1, 0, 0, SMALL)
