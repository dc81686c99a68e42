"""One thing is spoiled in a good data set: the check finds it, names the right file, and says nothing else."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.checks import check_quick, check_source, sizes
from segwright.datasets import coco, folder
from segwright.datasets.base import Finding, Source

HEIGHT, WIDTH = 96, 128
COUNTS = {"train": 12, "valid": 4, "test": 4}
THREE, CRACK = ("background", "leaf", "stem"), ("crack",)


def photograph(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Coloured noise at several scales, (H, W, 3)."""
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128.0)
    for cell in (2, 8, 32):
        noise = random.normal(0, 25, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(noise[:, :, channel]).resize((width, height), Image.Resampling.BICUBIC)
            image[:, :, channel] += np.asarray(layer)
    return image.clip(0, 255).astype(np.uint8)


def labels(seed: int, classes: int) -> np.ndarray:
    """A disc of each class but the first somewhere, (H, W)."""
    random, mask = np.random.default_rng(seed), np.zeros((HEIGHT, WIDTH), np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for value in range(1, max(classes, 2)):
        left = WIDTH * (value - 1) / 2
        centre = random.uniform(25, HEIGHT - 25), random.uniform(left + 20, left + 44)
        mask[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < random.uniform(10, 14) ** 2] = value
    return mask


@dataclass(frozen=True)
class Garden:
    """A data set on disk, to be spoiled."""

    root: Path
    classes: tuple[str, ...] = THREE

    def image(self, split: str, index: int, suffix: str = ".png") -> Path:
        return self.root / split / "images" / f"{split}{index}{suffix}"

    def mask(self, split: str, index: int) -> Path:
        return self.root / split / "masks" / f"{split}{index}.png"

    @property
    def shape(self) -> tuple[int, int]:
        return load(self.mask("train", 0)).shape

    def plant(self) -> None:
        """The good data set."""
        for number, (split, count) in enumerate(COUNTS.items()):
            for kind in ("images", "masks"):
                (self.root / split / kind).mkdir(parents=True)
            for index in range(count):
                save(self.image(split, index), photograph(100 * number + index))
                save(self.mask(split, index), labels(100 * number + index, len(self.classes)))

    def config(self) -> dict:
        """As the section `data` of a configuration."""
        classes = {"crack": 1} if self.classes == CRACK else list(self.classes)
        return {"name": "folder", "root": str(self.root), "classes": classes, "kind": "index"}

    def source(self) -> Source:
        return folder.scan(folder.Config(**{key: value for key, value in self.config().items() if key != "name"}))


def save(path: Path, array: np.ndarray, **options) -> None:
    Image.fromarray(array).save(path, **options)


def load(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def every_mask(garden: Garden, split: str, change: Callable[[np.ndarray], np.ndarray]) -> list[Path]:
    paths = [garden.mask(split, index) for index in range(COUNTS[split])]
    for path in paths:
        save(path, change(load(path)))
    return paths


@dataclass(frozen=True)
class Case:
    """What is done, and what must be found: the code and the files."""

    code: str
    spoil: Callable[[Garden], list[Path]]
    """Gives the files that the finding must name; an empty list: any."""
    classes: tuple[str, ...] = THREE
    level: str = "warning"
    also: set[str] = field(default_factory=set)
    """Other warnings that are as true."""
    quick: bool = False
    """Whether the quick check of every training finds it, too."""


# spoilings


def no_mask(garden: Garden) -> list[Path]:
    garden.mask("train", 3).unlink()
    return [garden.image("train", 3)]


def no_image(garden: Garden) -> list[Path]:
    garden.image("valid", 1).unlink()
    return [garden.mask("valid", 1)]


def shrunk_mask(garden: Garden) -> list[Path]:
    save(garden.mask("train", 2), load(garden.mask("train", 2))[::2, ::2])
    return [garden.mask("train", 2)]


def strange_value(garden: Garden) -> list[Path]:
    mask = load(garden.mask("test", 1)).copy()
    mask[:3, :3] = 77
    save(garden.mask("test", 1), mask)
    return [garden.mask("test", 1)]


def all_ignored(garden: Garden) -> list[Path]:
    save(garden.mask("train", 5), np.full(garden.shape, 255, np.uint8))
    return [garden.mask("train", 5)]


def nearly_all_ignored(garden: Garden) -> list[Path]:
    mask = np.full(garden.shape, 255, np.uint8)
    mask[:8] = 0
    save(garden.mask("valid", 0), mask)
    return [garden.mask("valid", 0)]


def without(value: int, *splits: str) -> Callable[[Garden], list[Path]]:
    def spoil(garden: Garden) -> list[Path]:
        for split in splits:
            every_mask(garden, split, lambda mask: np.where(mask == value, 0, mask).astype(np.uint8))
        return []

    return spoil


def not_learnt(garden: Garden) -> list[Path]:
    without(2, "train", "test")(garden)
    masks = [garden.mask("valid", index) for index in range(COUNTS["valid"])]
    return [path for path in masks if (load(path) == 2).any()]


def rare(garden: Garden) -> list[Path]:
    without(2, "train")(garden)
    mask = load(garden.mask("train", 7)).copy()
    mask[:5, :5] = 2
    save(garden.mask("train", 7), mask)
    return [garden.mask("train", 7)]


def left_empty(garden: Garden) -> list[Path]:
    paths = [garden.mask("train", index) for index in range(8)]
    for path in paths:
        save(path, np.zeros(garden.shape, np.uint8))
    return paths


def one_inverted(garden: Garden) -> list[Path]:
    save(garden.mask("train", 4), 1 - load(garden.mask("train", 4)))
    return [garden.mask("train", 4)]


def all_inverted(garden: Garden) -> list[Path]:
    for split in COUNTS:
        every_mask(garden, split, lambda mask: 1 - mask)
    return []


def one_full(garden: Garden) -> list[Path]:
    save(garden.mask("train", 4), np.ones(garden.shape, np.uint8))
    return [garden.mask("train", 4)]


def filled(garden: Garden) -> list[Path]:
    save(garden.mask("train", 4), np.full(garden.shape, 2, np.uint8))
    return [garden.mask("train", 4)]


def with_orientation(orientation: int, shape: tuple[int, int]) -> Callable[[Garden], list[Path]]:
    """The image is saved with an EXIF tag; its mask lies as the file does."""

    def spoil(garden: Garden) -> list[Path]:
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(garden.image("train", 1), photograph(500, *shape), exif=exif)
        save(garden.mask("train", 1), labels(1, 3)[: shape[0], : shape[1]])
        return [garden.mask("train", 1) if shape[0] != shape[1] and orientation > 4 else garden.image("train", 1)]

    return spoil


def copied(source: str, target: str) -> Callable[[Garden], list[Path]]:
    """Image and mask, both."""

    def spoil(garden: Garden) -> list[Path]:
        for path in (garden.image, garden.mask):
            shutil.copy(path(source, 0), path(target, 2))
        return [garden.image(source, 0), garden.image(target, 2)]

    return spoil


def changed_copy(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Garden], list[Path]]:
    """Of a training image and its mask in valid."""

    def spoil(garden: Garden) -> list[Path]:
        for path in (garden.image, garden.mask):
            save(path("valid", 2), change(load(path("train", 0))))
        return [garden.image("train", 0), garden.image("valid", 2)]

    return spoil


def siblings(garden: Garden) -> list[Path]:
    paths = []
    for split in ("train", "test"):
        for path in (garden.image(split, 0), garden.mask(split, 0)):
            path.rename(path.with_name(f"leaf_jpg.rf.{split}.png"))
        paths.append(garden.root / split / "images" / f"leaf_jpg.rf.{split}.png")
    return paths


def as_jpeg(garden: Garden) -> Path:
    """A larger JPEG in the place of a PNG; its path."""
    path = garden.image("train", 6, ".jpg")
    garden.image("train", 6).unlink()
    save(path, photograph(600, 3 * HEIGHT, 3 * WIDTH), quality=90)
    save(garden.mask("train", 6), np.kron(labels(6, 3), np.ones((3, 3), np.uint8)))
    return path


def cut_jpeg(garden: Garden) -> list[Path]:
    path = as_jpeg(garden)
    path.write_bytes(path.read_bytes()[:-2000])
    return [path]


def hurt_jpeg(garden: Garden) -> list[Path]:
    path = as_jpeg(garden)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 512] = bytes(512)
    path.write_bytes(data)
    return [path]


def cut_png(garden: Garden) -> list[Path]:
    path = garden.image("test", 3)
    path.write_bytes(path.read_bytes()[:2000])
    return [path]


def no_picture(garden: Garden) -> list[Path]:
    garden.image("test", 3).write_text("not found")
    return [garden.image("test", 3)]


def cut_mask(garden: Garden) -> list[Path]:
    path = garden.mask("valid", 3)
    path.write_bytes(path.read_bytes()[:-30])
    return [path]


def resized(height: int, width: int) -> Callable[[Garden], list[Path]]:
    def spoil(garden: Garden) -> list[Path]:
        save(garden.image("valid", 1), photograph(700, height, width))
        mask = Image.open(garden.mask("valid", 1)).resize((width, height), Image.Resampling.NEAREST)
        mask.save(garden.mask("valid", 1))
        return [garden.image("valid", 1)]

    return spoil


def of_many_sizes(garden: Garden) -> list[Path]:
    resized(5 * garden.shape[0], 5 * garden.shape[1])(garden)
    return []


def grey(garden: Garden) -> list[Path]:
    path = garden.image("train", 9)
    Image.open(path).convert("L").save(path)
    return [path]


def coloured(garden: Garden) -> list[Path]:
    for split, count in COUNTS.items():
        for index in range(count):
            if (split, index) != ("train", 9):
                path = garden.image(split, index)
                Image.open(path).convert("L").save(path)
    return [garden.image("train", 9)]


def twelve_bit(garden: Garden) -> list[Path]:
    path = garden.image("train", 9)
    save(path, load(path)[:, :, 0].astype(np.uint16) * 16)
    return [path]


def see_through(garden: Garden) -> list[Path]:
    path = garden.image("train", 9)
    alpha = np.full((*garden.shape, 1), 255, np.uint8)
    alpha[:20] = 0
    save(path, np.concatenate([load(path), alpha], 2))
    return [path]


def blank(garden: Garden) -> list[Path]:
    save(garden.image("train", 9), np.full((*garden.shape, 3), (40, 90, 160), np.uint8))
    return [garden.image("train", 9)]


def image_as_mask(garden: Garden) -> list[Path]:
    shutil.copy(garden.image("train", 8), garden.mask("train", 8))
    return [garden.mask("train", 8)]


def grey_image_as_mask(garden: Garden) -> list[Path]:
    Image.open(garden.image("train", 8)).convert("L").save(garden.mask("train", 8))
    return [garden.mask("train", 8)]


def same_mask(garden: Garden) -> list[Path]:
    for index in (4, 5):
        shutil.copy(garden.mask("train", 3), garden.mask("train", index))
    return [garden.mask("train", index) for index in (3, 4, 5)]


def speckles(garden: Garden) -> list[Path]:
    save(garden.mask("train", 8), np.random.default_rng(0).integers(0, 3, garden.shape, dtype=np.uint8))
    return [garden.mask("train", 8)]


CASES = {
    "a pair without its mask": Case("missing-mask", no_mask, quick=True),
    "a pair without its image": Case("missing-image", no_image, level="error", quick=True),
    "a mask of another size": Case("mask-size", shrunk_mask, level="error", quick=True),
    "a value that is no class": Case("unknown-value", strange_value, level="error", quick=True),
    "a mask that is ignored": Case("ignored-mask", all_ignored),
    "a mask that is nearly all ignored": Case("mostly-ignored", nearly_all_ignored),
    "a class that nothing has": Case("absent-class", without(2, "train", "valid", "test")),
    "a class that train lacks": Case("unlearnt-class", not_learnt, also={"absent-class"}),
    "a class that test lacks": Case("unmeasured-class", without(2, "test")),
    "a class of a few pixels": Case("rare-class", rare),
    "masks left empty": Case("mostly-empty", left_empty),
    "an inverted mask": Case("inverted-mask", one_inverted, CRACK),
    "all masks inverted": Case("inverted", all_inverted, CRACK),
    "a mask that is all positive": Case("mostly-positive", one_full, CRACK),
    "a mask of one class": Case("constant-mask", filled),
    "EXIF orientation 6": Case("rotated-mask", with_orientation(6, (HEIGHT, WIDTH)), level="error", quick=True),
    "EXIF orientation 8": Case("rotated-mask", with_orientation(8, (HEIGHT, WIDTH)), level="error", quick=True),
    "EXIF orientation 3": Case("turned-image", with_orientation(3, (HEIGHT, WIDTH)), quick=True),
    "EXIF orientation 6 of a square": Case("turned-image", with_orientation(6, (96, 96)), quick=True),
    "an image copied across": Case("duplicate-across", copied("train", "valid"), level="error", quick=True),
    "an image copied within": Case("duplicate-within", copied("train", "train"), quick=True),
    "a mirrored copy across": Case("near-duplicate-across", changed_copy(lambda a: a[:, ::-1].copy())),
    "a turned copy across": Case("near-duplicate-across", changed_copy(lambda a: np.rot90(a, 2).copy())),
    "a cropped copy across": Case("near-duplicate-across", changed_copy(lambda a: a[9:, 4:-8].copy())),
    "siblings across": Case("siblings-across", siblings, quick=True),
    "a JPEG file cut off": Case("unreadable-image", cut_jpeg, level="error", quick=True),
    "a PNG file cut off": Case("unreadable-image", cut_png, level="error", quick=True),
    "a file that is no picture": Case("unreadable-image", no_picture, level="error", quick=True),
    "a mask's file cut off": Case("unreadable-mask", cut_mask, level="error", quick=True),
    "a JPEG file hurt inside": Case("damaged-image", hurt_jpeg),
    "a tiny image": Case("small-image", resized(24, 32), quick=True),
    "images of very different sizes": Case("mixed-sizes", of_many_sizes, quick=True),
    "a huge image": Case("huge-image", resized(384, 512), quick=True),
    "a grey image": Case("grey-among-colour", grey),
    "a colour image": Case("colour-among-grey", coloured),
    "a 16-bit image": Case("sixteen-bit", twelve_bit, level="info", also={"dark-image", "grey-among-colour"}),
    "a dark image": Case("dark-image", twelve_bit, also={"grey-among-colour"}),
    "a transparent image": Case("transparent-image", see_through),
    "a blank image": Case("blank-image", blank),
    "the image saved as its mask": Case("mask-is-image", image_as_mask, level="error", also={"unreadable-mask"}),
    "the grey image saved as its mask": Case(
        "mask-is-image", grey_image_as_mask, level="error", also={"unknown-value"}
    ),
    "a mask copied to other images": Case("copied-mask", same_mask),
    "a mask of noise": Case("speckled-mask", speckles),
}


def findings(garden: Garden, quick: bool = False) -> dict[str, Finding]:
    found = check_quick(garden.source()) if quick else check_source(garden.source())
    return {finding.code: finding for finding in found}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> dict[tuple[str, ...], Path]:
    roots = {}
    for classes in (THREE, CRACK):
        roots[classes] = tmp_path_factory.mktemp("gardens") / "garden"
        Garden(roots[classes], classes).plant()
    return roots


@pytest.mark.parametrize("classes", [THREE, CRACK], ids=["three classes", "binary"])
def test_nothing_is_said_against_a_good_data_set(classes, planted):
    for quick in (True, False):
        found = findings(Garden(planted[classes], classes), quick)
        assert {finding.level for finding in found.values()} <= {"info"}


@pytest.mark.parametrize("name", CASES)
def test_what_was_spoiled_is_found_with_its_file_and_nothing_else(name, planted, tmp_path, monkeypatch):
    case = CASES[name]
    if case.code == "huge-image":  # a truly huge one takes long to save
        monkeypatch.setattr(sizes, "HUGE_PX", 150_000)
    garden = Garden(tmp_path / "garden", case.classes)
    shutil.copytree(planted[case.classes], garden.root)
    files = {path.relative_to(garden.root).as_posix() for path in case.spoil(garden)}
    found = findings(garden)
    assert case.code in found, found.keys()
    assert found[case.code].level == case.level
    if files:
        assert set(found[case.code].files) == files
    others = {code for code, finding in found.items() if finding.level != "info"} - {case.code}
    assert others <= case.also
    assert (case.code in findings(garden, quick=True)) == case.quick


def test_at_least_twenty_five_kinds_are_shown():
    assert len({case.code for case in CASES.values()}) >= 25


# real images


def real_garden(real_data: Path, name: str, root: Path) -> Garden:
    """Twenty photographs, spread over a real data set, with their own masks, all at the first one's size."""
    known = {"crack_coco": (coco, CRACK), "camvid": (folder, None), "magnetic_tile": (folder, None)}
    reader, classes = known[name]
    if not (real_data / name).is_dir():
        pytest.skip(f"no real images: {name} is not there")
    source = reader.scan(reader.Config(root=str(real_data / name)))
    garden = Garden(root, classes or tuple(source.classes))
    size = source.splits["train"].image(0).shape[1::-1]
    for split, count in COUNTS.items():
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        real = source.splits[split]
        for index in range(count):
            place = index * len(real) // count
            for path, pixels in ((garden.image, real.image(place)), (garden.mask, real.mask(place))):
                Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path(split, index))
    return garden


OF_SEVERAL = {"absent-class", "unlearnt-class", "unmeasured-class", "rare-class", "constant-mask", "speckled-mask"}
NOT_OF_TILES = {"grey-among-colour", "colour-among-grey", "copied-mask"}
"""Tiles are grey, and some are photographed several times, which may have one mask."""


def suits(case: Case, garden: Garden, name: str) -> bool:
    """Whether the data set has what the case spoils: one class or several, colour."""
    if name == "magnetic_tile" and case.code in NOT_OF_TILES:
        return False
    if name == "camvid" and case.code == "mostly-empty":  # it has no background
        return False
    return case.classes != CRACK if garden.classes != CRACK else case.code not in OF_SEVERAL


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crack_coco", "camvid", "magnetic_tile"])
def test_what_is_spoiled_in_real_data_is_found_with_its_file(name, real_data, tmp_path, monkeypatch):
    good, shown = real_garden(real_data, name, tmp_path / "good"), set()
    for title, case in CASES.items():
        if not suits(case, good, name):
            continue
        garden = Garden(tmp_path / "spoiled", good.classes)
        shutil.copytree(good.root, garden.root)
        monkeypatch.setattr(sizes, "HUGE_PX", 150_000 if case.code == "huge-image" else 50_000_000)
        files = {path.relative_to(garden.root).as_posix() for path in case.spoil(garden)}
        found = findings(garden)
        assert case.code in found, title
        assert files <= set(found[case.code].files), title
        shown.add(case.code)
        shutil.rmtree(garden.root)
    assert len(shown) >= 25
