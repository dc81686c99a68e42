"""SegHiero's YAML file and folders: the fine classes, whichever way the sections are given."""

import pytest
import yaml

from readers import errors, found, masks, same
from segwright.datasets import READERS, seghiero
from segwright.datasets.seghiero import Config
from segwright.datasets.seghiero_example import CONFIG, SAMPLES, stripes
from segwright.errors import ConfigError, DataError
from segwright.verbs.settings import gather

NAMES = ["road", "pavement", "car", "bicycle"]


@pytest.fixture
def root(tmp_path):
    return seghiero.example(tmp_path / "data")


def drawn():
    train, valid = SAMPLES["train"], SAMPLES["val"]
    return {
        "train/000": stripes(train[0]),
        "train/001": stripes(train[1]),
        "valid/002": stripes(valid[0]),
    }


def sections(**changes):
    return yaml.safe_load(CONFIG) | changes


def scan(root, **content):
    """What is read where the YAML file holds other sections."""
    (root / "config.yaml").write_text(yaml.safe_dump(sections(**content)))
    return seghiero.scan(Config(root=str(root)))


def test_masks_and_fine_classes_are_as_stored(root):
    source = READERS.build("seghiero", Config(root=str(root)))
    assert list(source.classes) == NAMES
    same(masks(source), drawn())
    assert {finding.code for finding in source.findings} == {"missing-split"}


def test_the_yaml_file_alone_is_enough_wherever_we_are(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    same(masks(seghiero.build(Config(yaml="data/config.yaml"))), drawn())
    settings = gather({"data": {"name": "seghiero", "yaml": str(root / "config.yaml")}})
    assert list(READERS.build("seghiero", settings.data.config).classes) == NAMES


def test_a_root_relative_to_where_we_are_is_found_as_seghiero_does(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = sections()["dataset"] | {"root": "data"}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/mine.yaml").write_text(yaml.safe_dump(sections(dataset=dataset)))
    same(masks(seghiero.build(Config(yaml="configs/mine.yaml"))), drawn())


def test_the_sections_may_stand_in_our_config(root, tmp_path):
    (root / "config.yaml").unlink()
    data = {"name": "seghiero", "root": str(root), "dataset": sections()["dataset"], "classes": sections()["classes"]}
    settings = gather({"data": data})
    same(masks(READERS.build("seghiero", settings.data.config)), drawn())
    assert gather(settings.dump()).data == settings.data


def test_data_root_goes_before_the_files_root(root, tmp_path):
    other = seghiero.example(tmp_path / "other")
    config = Config(root=str(other), yaml=str(root / "config.yaml"))
    assert seghiero.build(config).splits["train"].path(0).is_relative_to(other)


@pytest.mark.parametrize(
    "names", [None, {}, {0: "road", 2: "car"}, {1: "road"}, {"a": "b"}, "road", {n: str(n) for n in range(255)}]
)
def test_names_that_do_not_number_the_masks_values_are_refused(root, names):
    with pytest.raises(ConfigError, match="fine_names"):
        scan(root, classes={"fine_names": names})


def test_a_list_of_names_is_numbered_from_0(root):
    assert list(scan(root, classes={"fine_names": NAMES}).classes) == NAMES


def test_a_folder_that_is_not_there_is_named(root):
    dataset = sections()["dataset"]
    dataset["val"]["mask_subdir"] = "masks/valid"
    source = scan(root, dataset=dataset)
    assert found(source, "no-such-folder").files == ("masks/valid",)
    assert errors(source) == {"no-such-folder", "empty-split"}


def test_a_split_without_its_keys_is_a_config_error(root):
    with pytest.raises(ConfigError, match=r"dataset\.val is .*mask_subdir"):
        scan(root, dataset=sections()["dataset"] | {"val": {"image_subdir": "images/val"}})


def test_a_training_section_is_needed(root):
    dataset = sections()["dataset"]
    del dataset["train"]
    (root / "config.yaml").write_text(yaml.safe_dump(sections(dataset=dataset)))
    with pytest.raises(DataError, match=r"dataset\.train"):
        seghiero.build(Config(root=str(root), yaml=str(root / "config.yaml")))


def test_partners_must_have_the_same_name(root):
    (root / "masks/train/000.png").rename(root / "masks/train/000_mask.png")
    source = seghiero.scan(Config(root=str(root)))
    assert found(source, "missing-image").files == ("masks/train/000_mask.png",)
    assert found(source, "missing-mask").files == ("images/train/000.png",)


@pytest.mark.parametrize(
    ("content", "said"), [("a: [", "cannot be read as YAML"), ("- a", "no sections"), (None, "no such file")]
)
def test_a_file_that_is_none_of_its_kind_is_refused(root, content, said):
    (root / "config.yaml").unlink()
    if content is not None:
        (root / "config.yaml").write_text(content)
    with pytest.raises(DataError, match=said):
        seghiero.scan(Config(yaml=str(root / "config.yaml")))


def test_neither_file_nor_sections_is_refused(root):
    assert seghiero.recognises(root)
    (root / "config.yaml").unlink()
    assert not seghiero.recognises(root)
    with pytest.raises(ConfigError, match=r"data\.yaml"):
        seghiero.scan(Config(root=str(root)))


def test_a_root_that_is_not_there_is_refused(root):
    dataset = sections()["dataset"] | {"root": "/no/such/place"}
    (root / "config.yaml").write_text(yaml.safe_dump(sections(dataset=dataset)))
    with pytest.raises(DataError, match="/no/such/place"):
        seghiero.scan(Config(yaml=str(root / "config.yaml")))
