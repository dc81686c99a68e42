"""An exported folder is the same model in transformers, and its certificate says how equal it is."""

import json
import logging
import os
import sys
from pathlib import Path

import pytest
import torch
from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

import segwright
from segwright import checkpoint, cli
from segwright.errors import ConfigError, SegwrightError, WeightsError
from segwright.hierarchy import read
from segwright.hierarchy.decode import decode
from segwright.model import Segmenter, build_model
from segwright.verbs import export as verb
from segwright.verbs.settings import gather
from segwright.verbs.trees import channels

CLASSES = ("wall", "crack")
LARGEST_PX = 128


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "SIZES", ((64, 96), (61, 47)))


TREE = {"ground": {"road": 0, "path": 1}, "sky": 2}
LEAVES = ("road", "path", "sky")


def write_checkpoint(path: Path, classes: tuple[str, ...] = CLASSES, **sections) -> Segmenter:
    """What a run leaves, without the run; batch norm statistics are not the initial ones."""
    values = {"model": {"name": "segformer_b0"}, "encoder": {"pretrained": False}, "data": {"root": "x"}}
    s = gather({**values, "input": {"size": [64, LARGEST_PX]}, **sections})
    torch.manual_seed(0)
    model = build_model(s.model, s.encoder, s.head, len(channels(s, classes)))
    for name, tensor in model.head.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 2)
    payload = {"model": model.state_dict(), "config": s.dump(), "classes": list(classes)}
    payload |= {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1], "weights": {"origin": "random", "licence": None}}
    checkpoint.save(path, payload)
    return model.eval()


@torch.no_grad()
def test_transformers_loads_the_folder_and_gives_the_same_logits(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "best.pth")
    done = segwright.export(tmp_path / "best.pth", tmp_path / "hf")
    theirs, info = SegformerForSemanticSegmentation.from_pretrained(done.folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for size in ((64, 128), (61, 47), (128, 64)):
        image = torch.randn(1, 3, *size)
        torch.testing.assert_close(
            theirs.eval()(image).logits, model.head(model.encoder(image)), rtol=0, atol=verb.TOLERANCE
        )
    assert theirs.config.id2label == {0: "wall", 1: "crack"}
    assert theirs.config.label2id == {"wall": 0, "crack": 1}
    processor = SegformerImageProcessor.from_pretrained(done.folder)
    assert [*processor.image_mean, *processor.image_std] == [0.5, 0.4, 0.3, 0.2, 0.2, 0.1]
    assert (processor.size["height"], processor.size["width"], processor.do_reduce_labels) == (64, 128, False)
    assert segwright.Segmenter.from_pretrained(done.folder).classes == CLASSES


@pytest.mark.slow
@torch.no_grad()
def test_a_model_of_a_tree_has_the_nodes_as_labels_and_the_certificate_the_tree(tmp_path: Path, caplog) -> None:
    """Trained with tree-triplet: the embedding, which is for training alone, stays behind."""
    sections = {"hierarchy": {"classes": TREE}, "loss": {"triplet_weight": 1.0}}
    model = write_checkpoint(tmp_path / "best.pth", LEAVES, **sections)
    assert model.embedding is not None
    with caplog.at_level(logging.INFO, "segwright"):
        done = segwright.export(tmp_path / "best.pth", tmp_path / "hf")
    theirs, info = SegformerForSemanticSegmentation.from_pretrained(done.folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    nodes = ["ground/road", "ground/path", "sky", "ground"]
    assert [theirs.config.id2label[number] for number in range(4)] == nodes
    certificate = json.loads((done.folder / "certificate.json").read_text())
    assert (certificate["classes"], certificate["channels"]) == (list(LEAVES), nodes)
    assert read(certificate["tree"]) == read(TREE)
    assert certificate["equal"]
    assert "the first 3 are the classes, the others groups" in caplog.text
    image = torch.randn(1, 3, 64, 128)
    logits = theirs.eval()(image).logits
    torch.testing.assert_close(logits, model.head(model.encoder(image)), rtol=0, atol=verb.TOLERANCE)
    ours = decode(model(image, resize=False), read(TREE))
    assert (decode(logits, read(TREE)) == ours).float().mean() > 0.99


def test_the_certificate_holds_the_measured_differences(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.pth")
    written = segwright.export(tmp_path / "best.pth", tmp_path / "hf").certificate
    assert written == json.loads((tmp_path / "hf" / "certificate.json").read_text())
    assert [(row["height"], row["width"]) for row in written["sizes"]] == [(64, LARGEST_PX), (64, 96), (61, 47)]
    for row in written["sizes"]:
        assert 0 < row["max_abs_difference_with_equal_epsilons"] < row["max_abs_difference"] < 1e-4
        assert row["max_abs_logit"] > 0.01
    assert written["equal"]
    assert written["compared"]
    assert written["first_weights"] == {"origin": "random", "licence": None}


def test_another_function_in_the_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if transformers changed what it makes of the folder."""
    write_checkpoint(tmp_path / "best.pth")
    load = SegformerForSemanticSegmentation.from_pretrained

    def changed(folder: Path) -> SegformerForSemanticSegmentation:
        model = load(folder)
        with torch.no_grad():
            model.decode_head.classifier.bias.add_(1e-2)
        return model

    monkeypatch.setattr(SegformerForSemanticSegmentation, "from_pretrained", changed)
    with pytest.raises(SegwrightError, match="another function in transformers"):
        segwright.export(tmp_path / "best.pth", tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["best.pth"]


def test_without_transformers_the_certificate_says_that_nothing_was_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path / "best.pth", classes=("crack",))
    monkeypatch.setattr(verb, "find_spec", lambda name: None)
    written = segwright.export(tmp_path / "best.pth", tmp_path / "hf").certificate
    assert not written["compared"]
    assert "pip install transformers" in written["reason"]
    assert "pip install transformers" in caplog.text
    assert written["threshold"] == 0.4


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("mine", ["config.json", "model.safetensors", "certificate.json"])
def test_files_of_others_are_not_overwritten(tmp_path: Path, mine: str) -> None:
    write_checkpoint(tmp_path / "best.pth")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / mine).write_text('{"format": "mine"}')
    before = contents(tmp_path / "hf")
    with pytest.raises(ConfigError, match=f"holds {mine}, and no certificate.json of an earlier 'hf' export"):
        segwright.export(tmp_path / "best.pth", tmp_path / "hf")
    assert contents(tmp_path / "hf") == before


def test_an_earlier_export_is_replaced_and_what_lies_beside_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the second one fails, or is cut off in between, the certificate never tells of another model's files."""
    monkeypatch.setattr(verb, "find_spec", lambda name: None)
    for name, classes in (("one.pth", CLASSES), ("two.pth", ("crack",))):
        write_checkpoint(tmp_path / name, classes=classes)
    folder = segwright.export(tmp_path / "one.pth", tmp_path / "hf").folder
    (folder / "README.md").write_text("mine")
    before = contents(folder)
    with monkeypatch.context() as patch:
        patch.setattr(verb, "judge", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            segwright.export(tmp_path / "two.pth", folder)
    assert contents(folder) == before
    with monkeypatch.context() as patch:
        patch.setattr("segwright.files.os.replace", second_is_cut_off(folder))
        with pytest.raises(KeyboardInterrupt):
            segwright.export(tmp_path / "two.pth", folder)
    assert "cut off" in json.loads((folder / "certificate.json").read_text())["reason"]
    segwright.export(tmp_path / "two.pth", folder)
    assert contents(folder).keys() == before.keys()
    assert (folder / "README.md").read_text() == "mine"
    assert json.loads((folder / "certificate.json").read_text())["classes"] == ["crack"]
    assert segwright.Segmenter.from_pretrained(folder).classes == ("crack",)


def second_is_cut_off(folder: Path):
    """`os.replace`, but a Ctrl-C comes before the weights take their place in `folder`."""
    real = os.replace

    def replace(source, target):
        if Path(target) == folder / "model.safetensors":
            raise KeyboardInterrupt
        real(source, target)

    return replace


def test_save_pretrained_replaces_a_model_only_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_checkpoint(tmp_path / "best.pth")
    folder = model.save_pretrained(tmp_path / "hf")
    before = contents(folder)
    monkeypatch.setattr("segwright.pretrained.folder._preprocessor", lambda *_: 1 / 0)
    with torch.no_grad():
        model.head.classifier.bias.add_(1)
    with pytest.raises(ZeroDivisionError):
        model.save_pretrained(folder)
    assert contents(folder) == before


def test_the_command_writes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "find_spec", lambda name: None)
    write_checkpoint(tmp_path / "best.pth")
    words = ["export", "--weights", str(tmp_path / "best.pth"), "--format", "hf", "--output", str(tmp_path / "hf")]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 0
    names = {path.name for path in (tmp_path / "hf").iterdir()}
    assert names == {"certificate.json", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert "segwright.verbs.export" in sys.modules


def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "lite.pth", model={"name": "segformer_lite"})
    write_checkpoint(tmp_path / "detail.pth", model={"name": "segformer_b0", "detail": 4})
    for name, seen in (("lite.pth", "with a LiteHead"), ("detail.pth", "has a detail path")):
        with pytest.raises(ConfigError, match=seen):
            segwright.export(tmp_path / name, tmp_path / "hf")
    with pytest.raises(ConfigError, match="no export format 'onyx'"):
        segwright.export(tmp_path / "lite.pth", tmp_path / "hf", format="onyx")
    with pytest.raises(WeightsError, match="there is no checkpoint"):
        segwright.export(tmp_path / "none.pth", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
