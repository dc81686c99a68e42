"""The challenge's zip: written whole and right, or not at all."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segwright
from segwright.cli import main
from segwright.datasets import spark
from segwright.errors import DataError, WeightsError
from segwright.images import read_image
from segwright.verbs import submission as verb
from segwright.verbs.submission import OWN_DATA, Rules, submission

pytestmark = pytest.mark.slow

SIDE = 96
"""Of the example's images."""
TWO = Rules(images=2, size=(SIDE, SIDE))
COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return spark.example(tmp_path_factory.mktemp("spark") / "data")


@pytest.fixture(scope="module")
def weights(root, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("run") / "r"
    values = {
        "data": {"name": "spark", "root": str(root)},
        "encoder": {"name": "test_resnet", "pretrained": False},
        "head": {"width": 8},
        "input": {"size": 64},
        "train": {"epochs": 6, "batch_size": 1, "amp": False},
        "optim": {"lr": 1e-2, "lr_encoder": 1e-2},
        "run": {"output": str(run)},
    }
    return segwright.train(values).best


def unpacked(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: np.load(io.BytesIO(archive.read(name)))["data"] for name in archive.namelist()}


def test_the_archive_holds_the_masks_that_infer_writes_in_exact_colours(weights, root, tmp_path):
    done = submission(weights, output=tmp_path / "s.zip", rules=TWO)
    segwright.infer(weights, root / "stream-1-test", tmp_path / "masks")
    held = unpacked(done.path)
    assert list(held) == ["test_00000_layer.npz", "test_00001_layer.npz"]
    for number in range(2):
        layer = held[f"test_{number:05d}_layer.npz"]
        assert (layer.dtype, layer.shape) == (np.uint8, (SIDE, SIDE, 3))
        shown = read_image(tmp_path / f"masks/test_{number:05d}_img_mask.png")
        np.testing.assert_array_equal(layer, shown)
        assert len(np.unique(layer.reshape(-1, 3), axis=0)) > 1


def test_equal_masks_make_equal_archives(weights, tmp_path):
    one, two = (submission(weights, output=tmp_path / name, rules=TWO).path for name in ("a.zip", "b.zip"))
    assert one.read_bytes() == two.read_bytes()


def test_the_challenges_own_rules_refuse_two_small_images_and_write_nothing(weights, root, tmp_path):
    with pytest.raises(DataError) as caught:
        submission(weights, output=tmp_path / "s.zip")
    for told in ("there are 2 images, not 4000", f"({SIDE} x {SIDE})", "not 1024 x 1024", "--own-data"):
        assert told in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_command_finds_the_test_images_and_says_what_is_wrong(weights, tmp_path, capsys):
    words = ["submission", "--weights", str(weights), "--output", str(tmp_path / "s.zip")]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 1
    assert "4000" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main([*words, "--own-data"])
    assert left.value.code == 0
    assert len(unpacked(tmp_path / "s.zip")) == 2


def test_images_of_ones_own_may_have_any_name_and_size(weights, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 50, 3), dtype=np.uint8)).save(folder / "a.png")
    done = submission(weights, folder, tmp_path / "s.zip", rules=OWN_DATA)
    assert unpacked(done.path)["a_layer.npz"].shape == (70, 50, 3)


@pytest.mark.parametrize(("name", "told"), [("test_7_img.png", "five digits"), ("test_00000.png", "would both be")])
def test_names_that_the_challenge_does_not_know_are_told(weights, root, tmp_path, name, told):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in (root / "stream-1-test").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=told):
        submission(weights, folder, tmp_path / "s.zip", rules=Rules(images=None, size=None))


def test_other_classes_than_the_challenges_are_refused(weights, root, tmp_path):
    with pytest.raises(WeightsError, match="colours"):
        submission(weights, output=tmp_path / "s.zip", rules=Rules(2, (SIDE, SIDE), colours=((0, 0, 0), (0, 255, 0))))


def test_weights_without_colours_are_refused(finished, tmp_path):
    with pytest.raises(WeightsError, match="knows no colours"):
        submission(finished / "best.pth", tmp_path, tmp_path / "s.zip")


def packed(array: np.ndarray, key: str = "data") -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **{key: array})
    return file.getvalue()


GOOD = COLOURS[np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 3]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (packed(GOOD, "mask"), "cannot be read as an array 'data'"),
        (packed(GOOD.astype(np.int16)), "not uint8"),
        (packed(GOOD[..., 0]), "not uint8 (height, width, 3)"),
        (packed(GOOD[:50]), "pixels, not"),
        (packed(GOOD | 1), "no class's"),
        (packed(GOOD)[:-40], "cannot be read"),
        (packed(GOOD), ""),
    ],
)
def test_each_flaw_of_a_file_is_found(content, told):
    found = verb.flaws(content, None, COLOURS, TWO)
    assert any(told in one for one in found) if told else not found


def test_what_reading_back_finds_wrong_leaves_no_file(weights, tmp_path, monkeypatch):
    """A file that is right by itself, but not this image's."""
    real = verb.write_archive

    def mixed(file, *args):
        entries = real(file, *args)
        return {name: verb.Entry(entry.shape, entry.digest ^ 1) for name, entry in entries.items()}

    monkeypatch.setattr(verb, "write_archive", mixed)
    with pytest.raises(DataError, match="not what was predicted"):
        submission(weights, output=tmp_path / "s.zip", rules=TWO)
    assert not list(tmp_path.iterdir())


def test_an_archive_that_lacks_a_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("test_00000_layer.npz", packed(GOOD))
    wanted = {f"test_0000{n}_layer.npz": verb.Entry(GOOD.shape, 0) for n in range(2)}
    with pytest.raises(DataError, match="names are not those"):
        verb.check(tmp_path / "s.zip", wanted, COLOURS, TWO)
