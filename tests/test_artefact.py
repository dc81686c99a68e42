"""ARTeFACT's layout: folders of PNG files and the published parquet files give the same 16 classes."""

import builtins
import pickle

import pytest

from readers import errors, found, images, masks, same
from segwright.datasets import READERS, artefact
from segwright.datasets.artefact import CLASSES, Config
from segwright.datasets.artefact_example import SAMPLES, annotation
from segwright.errors import ConfigError, DataError, MissingPackageError
from segwright.images import MAX_PIXELS


@pytest.fixture
def root(tmp_path):
    return artefact.example(tmp_path / "data")


def scan(root, **options):
    return artefact.scan(Config(root=str(root), **options))


def as_parquet(root, target, **columns):
    """The example as it is published: pictures as structs of bytes, two files."""
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    target.mkdir()
    rows = []
    for name, (material, content, _) in SAMPLES.items():
        row = {"id": name, "material": material, "content": content}
        for kind in ("image", "annotation"):
            row[kind] = {"bytes": (root / kind / f"{name}.png").read_bytes(), "path": f"{name}.png"}
        rows.append(row | columns)
    for number, row in enumerate(rows):
        parquet.write_table(pyarrow.Table.from_pylist([row]), target / f"train-{number:05d}-of-00002.parquet")
    return target


def test_masks_are_the_ids_as_stored_and_255_is_ignored(root):
    source = READERS.build("artefact", Config(root=str(root)))
    assert set(source.splits) == {"train"}
    same(masks(source), {f"train/{name}": annotation(name) for name in SAMPLES})
    assert (masks(source)["train/0a1b"] == 255).any()


def test_there_are_sixteen_classes_with_their_colours():
    """Clean and fifteen kinds of damage."""
    assert len(CLASSES) == 16
    assert list(CLASSES).index("Clean") == 0
    assert list(CLASSES).index("Cracks") == 9
    assert list(CLASSES)[15] == "Lightleak"
    assert len(set(CLASSES.values())) == 16


def test_the_colours_are_rgb_in_id_order(root):
    source = scan(root)
    assert source.colours[1] == (0x1C, 0xE6, 0xFF)
    assert len(source.colours) == source.num_classes == 16


def test_images_know_their_material_or_content(root):
    split = pickle.loads(pickle.dumps(scan(root).splits["train"]))
    assert [split.group(index) for index in range(2)] == ["Paper", "Canvas"]
    split = scan(root, group_by="content").splits["train"]
    assert split.group(0) == "Photograph"
    with pytest.raises(ConfigError, match="colour"):
        Config(root="x", group_by="colour")


def test_images_beside_the_table_are_told(root):
    table = root / "metadata.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "2c3d" not in line))
    assert found(scan(root), "not-in-metadata").files == ("2c3d.png",)
    table.unlink()
    assert found(scan(root), "no-metadata").level == "info"


def test_parquet_files_give_the_same_data_set(root, tmp_path):
    published = as_parquet(root, tmp_path / "published")
    assert artefact.recognises(published)
    source = artefact.build(Config(root=str(published)))
    same(masks(source), masks(scan(root)))
    same(images(source), images(scan(root)))
    assert [source.splits["train"].group(index) for index in range(2)] == ["Paper", "Canvas"]


def test_parquet_files_are_unpacked_once(root, tmp_path):
    published = as_parquet(root, tmp_path / "published")
    scan(published)
    file = published / "unpacked/image/0a1b.png"
    before = file.stat().st_mtime_ns
    scan(published)
    assert file.stat().st_mtime_ns == before
    assert not list(published.glob(".*"))


def test_rows_of_one_id_and_ids_that_are_no_file_names_stay_apart_and_inside(root, tmp_path):
    source = scan(as_parquet(root, tmp_path / "published", id="../same name"))
    assert {source.splits["train"].path(index).name for index in range(2)} == {"same_name.png", "same_name_2.png"}


def test_without_pyarrow_the_command_to_install_it_is_named(root, tmp_path, monkeypatch):
    published = as_parquet(root, tmp_path / "published")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r"pip install 'segwright\[parquet\]'"):
        scan(published)
    assert [path.suffix for path in published.iterdir()] == [".parquet", ".parquet"]


def test_other_parquet_files_are_refused_and_nothing_is_left(root, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    published = as_parquet(root, tmp_path / "published")
    (published / "train-00001-of-00002.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="train-00001"):
        scan(published)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), published / "train-00001-of-00002.parquet")
    with pytest.raises(DataError, match="no column id, image, annotation"):
        scan(published)
    assert {path.suffix for path in published.iterdir()} == {".parquet"}


def test_an_annotation_without_image_is_an_error(root):
    (root / "image/0a1b.png").unlink()
    assert errors(scan(root)) == {"missing-image"}
    assert found(scan(root), "missing-image").files == ("annotation/0a1b.png",)


def test_two_folders_of_anybodys_are_not_taken_for_it(root):
    assert artefact.recognises(root)
    (root / "metadata.csv").unlink()
    assert not artefact.recognises(root)


def test_another_folder_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="photos/"):
        scan(tmp_path)


def test_the_largest_image_is_let_in():
    assert MAX_PIXELS > 243_748_701


def test_ids_above_the_classes_reach_the_check(root):
    """An id that stands for no class is not silently changed."""
    from segwright.checks import check_source
    from segwright.png import write_png

    mask = annotation("0a1b")
    mask[10, 10] = 16
    write_png(root / "annotation/0a1b.png", mask)
    with pytest.raises(DataError, match=r"0a1b\.png holds values that stand for no class: 16\."):
        masks(scan(root))
    assert "unreadable-mask" in {finding.code for finding in check_source(scan(root))}
