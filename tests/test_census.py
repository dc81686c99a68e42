"""What a run notes down of its data: a changed image is seen, and what earlier versions noted still counts."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.data.fingerprint import END_BYTES, census, cut, digest
from segwright.datasets import folder
from segwright.datasets.base import Split
from segwright.errors import DataError
from segwright.verbs.identity import Identity, changed_identity


def split_of(root: Path, kind: str, height: int = 32) -> Split:
    """The example with images (height, 48) that are not compressed."""
    folder.example(root)
    for path in sorted(root.glob("*/images/*")):
        path.unlink()
        Image.new("RGB", (48, height), (90, 60, 30)).save(path.with_suffix(kind))
        mask = path.parents[1] / "masks" / path.name
        Image.open(mask).resize((48, height), 0).save(mask)
    return folder.scan(folder.Config(root=str(root))).splits["train"]


@pytest.mark.parametrize("kind", [".bmp", ".tif"])
@pytest.mark.parametrize("height", [32, 2000])
@pytest.mark.parametrize("row", [0, -1])
def test_an_image_of_the_same_size_in_bytes_is_another_one(kind, height, row, tmp_path):
    split = split_of(tmp_path, kind, height)
    before, path = census(split, tmp_path), split.path(0)
    length = path.stat().st_size
    pixels = np.array(Image.open(path))
    pixels[row] = 7
    Image.fromarray(pixels).save(path)
    assert path.stat().st_size == length
    assert (length > 2 * END_BYTES) == (height == 2000)
    after = census(split, tmp_path)
    assert [name for name in before if before[name] != after[name]] == [path.relative_to(tmp_path).as_posix()]


def test_the_same_files_have_the_same_census_and_one_that_is_gone_is_named(tmp_path):
    split = split_of(tmp_path, ".bmp")
    assert census(split, tmp_path) == census(split, tmp_path)
    split.path(0).unlink()
    with pytest.raises(DataError, match=split.path(0).name):
        census(split, tmp_path)


def test_a_run_that_an_earlier_version_began_goes_on_and_what_changed_is_named(tmp_path):
    """Its census had no third word, and its identity no version."""
    split = split_of(tmp_path / "data", ".bmp")
    now = Identity(["crack"], {"train": census(split, tmp_path)}, 2)
    old_files = {name: " ".join(fact.split(" ")[:2]) for name, fact in now.data["train"].items()}
    assert old_files == {name: cut(fact, 1) for name, fact in now.data["train"].items()}
    old = now.short() | {"data": {"train": {"images": 2, "hash": digest(old_files, 1)}}}
    assert changed_identity(old, now, tmp_path) == []
    assert changed_identity(now.short(), now, tmp_path) == []
    (tmp_path / "data.json").write_text(json.dumps({"splits": {"train": old_files}}))
    Image.new("RGB", (50, 32)).save(split.path(0))
    later = Identity(["crack"], {"train": census(split, tmp_path)}, 2)
    name = split.path(0).relative_to(tmp_path).as_posix()
    assert changed_identity(old, later, tmp_path) == [f"the images of train: 1 changed ({name})"]
    (tmp_path / "data.json").write_text(json.dumps({"splits": now.data}))
    assert changed_identity(now.short(), later, tmp_path) == [f"the images of train: 1 changed ({name})"]
