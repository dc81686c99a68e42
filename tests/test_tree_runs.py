"""A tree of classes through a whole run: training, scores on every level, masks on every level, and SegHiero's YAML."""

import io
import json
import logging
import re

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

import segwright
from runs import read_csv
from segwright import checkpoint
from segwright.config.dialects import translate
from segwright.config.lines import with_lines
from segwright.config.seghiero import KEYS, UNUSED
from segwright.datasets.seghiero_example import example
from segwright.errors import ConfigError, DataError
from segwright.hierarchy import read
from segwright.hierarchy.decode import coherent, decode
from segwright.inference.levels import TreeDecoder, independent_resized, levels_resized
from segwright.png import is_prediction
from segwright.verbs.findings import metrics_table
from segwright.verbs.loading import load_model
from segwright.verbs.settings import gather
from trees import logits_for, made

DOCUMENT = """
dataset:
  root: {root}
  train: {{image_subdir: images/train, mask_subdir: masks/train}}
  val: {{image_subdir: images/val, mask_subdir: masks/val}}
classes:
  super_coarse_to_coarse_map: [[0, 1], [2]]
  super_coarse_names: {{0: outside, 1: moving}}
  coarse_to_fine_map: [[0], [1], [2, 3]]
  coarse_names: {{0: drivable, 1: walkable, 2: vehicle}}
  fine_names: {{0: road, 1: pavement, 2: car, 3: bicycle}}
backbone: {{type: test_resnet, pretrained: false}}
head: {{type: segformer, proj_dim: 16}}
model: {{c1_channels: 48}}
training:
  epochs: 2
  batch_size: 2
  lr: 0.01
  momentum: 0.9
  device: cpu
  gpus: [0]
  fine_weight: 1.0
  coarse_weight: 0.5
  super_weight: 0.25
  hiera_loss_multiplier: 4.0
transform: {{resize: [64, 96], hflip_prob: 0.25}}
output: {{checkpoint_dir: {root}/out, project_name: fun}}
"""
"""The form of SegHiero's example: three levels, ranges and single ids."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = example(tmp_path_factory.mktemp("tree") / "data")
    path = root.parent / "document.yaml"
    path.write_text(DOCUMENT.format(root=root))
    return segwright.train(path, overrides=["input.workers=0"])


def test_the_documents_form_says_what_it_means(tmp_path):
    (tmp_path / "c.yaml").write_text(DOCUMENT.format(root=tmp_path))
    settings = gather(tmp_path / "c.yaml")
    assert settings.encoder.name == "test_resnet"
    assert (settings.head.name, settings.head.config.width) == ("segformer", 16)
    assert settings.loss.name == "tree"
    loss = settings.loss.config
    assert (loss.fine_weight, loss.coarse_weight, loss.super_weight, loss.tree_weight) == (1.0, 0.5, 0.25, 4.0)
    assert settings.input.pixels() == (64, 96), "height first"
    assert settings.augment.hflip == 0.25
    assert (settings.train.epochs, settings.train.batch_size, settings.optim.lr) == (2, 2, 0.01)
    assert settings.run.output == f"{tmp_path}/out/fun"
    assert gather(settings.dump()) == settings


def test_what_it_has_no_use_for_is_said(caplog, tmp_path):
    with caplog.at_level(logging.INFO, "segwright"):
        translate(yaml.safe_load(DOCUMENT.format(root=tmp_path)), "c.yaml")
    for key in ("training.momentum", "training.gpus", "model.c1_channels"):
        assert f"c.yaml: {key} is not used" in caplog.text


def test_a_single_key_on_the_command_line_leaves_the_rest():
    settings = gather(
        {"encoder": {"name": "mit_b1"}, "head": {"name": "segformer"}, "model": {"name": None}},
        overrides=["head.proj_dim=32", "data.root=x"],
    )
    assert (settings.encoder.name, settings.head.config.width) == ("mit_b1", 32)


def test_a_backbone_is_not_changed_by_halves():
    with pytest.raises(ConfigError, match="several keys at once"):
        gather({"backbone": {"type": "segformer"}}, overrides=["backbone.variant=mit-b5", "data.root=x"])
    settings = gather({"backbone": {"type": "segformer"}}, overrides=["backbone.pretrained=false", "data.root=x"])
    assert (settings.encoder.name, settings.encoder.pretrained) == ("mit_b0", False)


def test_a_misspelt_key_is_named():
    with pytest.raises(ConfigError, match=r"training\.epoch\. Did you mean 'training\.epochs'"):
        gather({"training": {"epoch": 3}})
    with pytest.raises(ConfigError, match=r"backbone\.varient\. Did you mean 'variant'"):
        gather({"backbone": {"type": "convnext", "varient": "tiny"}})


def test_no_key_is_both_used_and_not():
    assert not KEYS.keys() & UNUSED.keys()


def test_a_run_predicts_every_node_and_its_checkpoint_carries_the_tree(run):
    payload = checkpoint.load(run.best)
    assert payload["classes"] == ["road", "pavement", "car", "bicycle"]
    assert payload["config"]["loss"]["name"] == "tree"
    loaded = load_model(run.best)
    assert loaded.model.head.classifier.out_channels == 9
    assert loaded.predictor.tree.hierarchy.level_names == ("super_coarse", "coarse", "fine")


def test_every_epoch_is_scored_on_every_level(run):
    rows = read_csv(run.folder)
    assert len(rows) == 2
    for key in (
        "valid_iou",
        "valid_iou_coarse",
        "valid_iou_super_coarse",
        "valid_coherence",
        "valid_hierarchical_error",
    ):
        assert 0 <= float(rows[-1][key]) <= 3


def test_a_runs_folder_and_report_show_the_tree_and_every_level(run):
    text = (run.folder / "hierarchy.txt").read_text()
    assert text.splitlines()[:3] == ["├── outside", "│   ├── drivable", "│   │   └── road (0)"]
    assert (run.folder / "hierarchy.png").read_bytes().startswith(b"\x89PNG")
    page = (run.folder / "report.html").read_text()
    assert "the tree of classes" in page
    assert "drivable" in page
    for score in ("valid iou_coarse", "valid iou_super_coarse", "valid coherence", "valid hierarchical_error"):
        assert score in page
    fine = 32  # rows of an image; each level has as many, and a legend
    assert np.asarray(Image.open(next((run.folder / "samples").iterdir()))).shape[0] > 3 * fine


def test_evaluation_gives_every_level(run, tmp_path):
    metrics = segwright.evaluate(run.best, split="valid", output=tmp_path)
    assert set(metrics["per_class"]) == {"road", "pavement", "car", "bicycle"}
    assert list(metrics["per_level"]) == ["super_coarse", "coarse"]
    assert set(metrics["per_level"]["coarse"]["per_class"]) == {"drivable", "walkable", "vehicle"}
    assert json.loads((tmp_path / "metrics_valid.json").read_text())["coherence"] == metrics["coherence"]


def test_every_level_is_a_table_in_the_terminal_and_on_the_page(run, tmp_path):
    metrics = segwright.evaluate(run.best, split="valid", output=tmp_path)
    printed = io.StringIO()
    metrics_table(metrics, Console(file=printed, width=200))
    text, page = printed.getvalue(), (tmp_path / "evaluation_valid.html").read_text()
    assert "{" not in text
    assert "per_level" not in text
    for level, names in (("coarse", ("drivable", "walkable", "vehicle")), ("super_coarse", ("outside", "moving"))):
        table = text[text.index(f"{level} class") :]
        assert all(name in table and name in page for name in names)
        iou = metrics["per_level"][level]["iou"]
        assert re.search(rf"iou_{level} +│ +{iou:.4f}", text)
        assert f"{level} class" in page
        assert f"iou_{level}" in page


def test_other_ways_to_decode_may_be_asked_for(run, tmp_path):
    found = {how: segwright.evaluate(run.best, split="valid", output=tmp_path, overrides=[f"hierarchy.decode={how}"])
             for how in ("path", "leaf", "independent")}  # fmt: skip
    assert found["leaf"]["iou"] == found["independent"]["iou"], "both take the best leaf"
    assert found["path"]["coherence"] == found["independent"]["coherence"], "it is about the levels by themselves"


def test_masks_of_every_level_are_those_of_the_tree(run, tmp_path):
    image = sorted((run.folder.parents[1] / "images/val").iterdir())[0]
    segwright.infer(run.best, image, tmp_path)
    said = json.loads((tmp_path / "mask_classes.json").read_text())
    assert {kind: len(those) for kind, those in said.items()} == {"mask": 4, "coarse_mask": 3, "super_coarse_mask": 2}
    pictures = set(tmp_path.glob("*.png"))
    assert {path.name for path in pictures} == {
        f"{image.stem}{level}_{kind}.png" for level in ("", "_coarse", "_super_coarse") for kind in ("mask", "overlay")
    }
    assert all(map(is_prediction, pictures))
    fine, coarse, top = (
        np.asarray(Image.open(tmp_path / f"{image.stem}{level}_mask.png")) for level in ("", "_coarse", "_super_coarse")
    )
    assert np.array_equal(coarse, np.array([0, 1, 2, 2])[fine])
    assert np.array_equal(top, np.array([0, 0, 1, 1])[fine])


@pytest.mark.slow
def test_a_flat_model_is_scored_on_the_levels_of_a_tree(tmp_path):
    root = example(tmp_path / "data")
    values = yaml.safe_load(DOCUMENT.format(root=root)) | {"loss": {"name": "ce"}}
    for key in ("fine_weight", "coarse_weight", "super_weight", "hiera_loss_multiplier"):
        del values["training"][key]
    values["training"]["epochs"] = 1
    run = segwright.train(values, overrides=["input.workers=0"])
    row = read_csv(run.folder)[0]
    assert float(row["valid_coherence"]) == 1
    assert load_model(run.best).model.head.classifier.out_channels == 4


# decoding at another size, one node at a time


@pytest.mark.parametrize("how", ["path", "leaf", "independent"])
def test_decoding_in_pieces_is_decoding_all_at_once(how):
    tree = read({"sky": 4, "c": {"b": 1, "w": {"x": 0, "y": 3}}, "m": {"car": 2, "bike": 5}})
    small = made(1, tree.num_nodes, 5, 7)
    large = torch.nn.functional.interpolate(small, size=(16, 20), mode="bilinear", align_corners=False)
    found = levels_resized(small[0], (16, 20), tree, how)
    assert torch.equal(found.long(), decode(large, tree, how)[0])
    if how != "independent":
        assert coherent(found[None].long(), tree).all()
    assert torch.equal(independent_resized(small[0], (16, 20), tree).long(), decode(large, tree, "independent")[0])


def test_probabilities_peak_at_what_is_decoded():
    tree = read({"g": {"a": 0, "b": 1}, "h": {"c": 2}, "d": 3})
    logits = logits_for(tree, 3)[0]
    for how in ("path", "leaf"):
        probability = TreeDecoder(tree, how).probabilities(logits)
        assert torch.equal(probability.argmax(0), levels_resized(logits, (3, 4), tree, how)[-1].long())
        torch.testing.assert_close(probability.sum(0), torch.ones(3, 4))


# configurations that cannot work


@pytest.mark.parametrize(
    ("hierarchy", "message"),
    [
        ({"ground": {"road": 0, "pavement": 1}, "car": 2}, r"no leaf for the data's bicycle \(3\)"),
        ({"a": {"road": 0, "x": 1}, "car": 2, "bicycle": 3, "y": 7}, r"no class with id 7 \(y\)"),
        ({"a": ["road", "pavment"], "b": ["car", "bicycle"]}, "names pavment, which is no class.*'pavement'"),
    ],
)
def test_a_tree_that_does_not_fit_the_data_costs_nothing(hierarchy, message, tmp_path):
    values = yaml.safe_load(DOCUMENT.format(root=example(tmp_path / "data"))) | {"hierarchy": {"classes": hierarchy}}
    with pytest.raises(ConfigError, match=message):
        segwright.train(values)
    assert not (tmp_path / "data/out").exists()


def test_a_tree_loss_without_a_tree_is_refused():
    with pytest.raises(ConfigError, match=r"hierarchy\.classes gives no tree"):
        gather({"loss": {"name": "tree"}})


NESTED = """
hierarchy:
  classes:
    ground:
      road: 0
      pavement: 1
    vehicle:
      car: {car}
      bicycle: {bicycle}
"""


@pytest.mark.parametrize(
    ("car", "bicycle", "message"),
    [
        ("1", "3", r"id 1 is at ground/pavement and vehicle/car; .* \(.*mine\.yaml, lines 6 and 8\)"),
        ("2", "", r"hierarchy\.classes\.vehicle\.bicycle is None; .* \(.*mine\.yaml, line 9\)"),
    ],
)
def test_what_is_wrong_with_a_tree_is_named_with_its_line(car, bicycle, message, tmp_path):
    path, root = tmp_path / "mine.yaml", example(tmp_path / "data")
    path.write_text(NESTED.format(car=car, bicycle=bicycle))
    with pytest.raises(ConfigError, match=message):
        segwright.train(
            path, flags={"data.root": str(root)}, overrides=["train.device=cpu", "encoder.name=test_resnet"]
        )


def test_words_of_a_message_are_not_taken_for_sections(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {root: x}\nhead: {name: aspp}\nclasses:\n  fine_names: {0: a}\n")
    assert with_lines("the data have a head, and classes", path) == "the data have a head, and classes"
    assert with_lines("the data: data.root is x", path) == f"the data: data.root is x ({path}, line 1)"
    assert with_lines("hierarchy.classes is odd", path) == f"hierarchy.classes is odd ({path}, line 3)"


def test_a_range_past_the_end_is_named_with_its_line(tmp_path):
    path = tmp_path / "document.yaml"
    text = DOCUMENT.format(root=example(tmp_path / "data")).replace("[2, 3]]", "[2, 5]]")
    path.write_text(text)
    line = next(number for number, words in enumerate(text.splitlines(), 1) if "coarse_to_fine_map" in words)
    with pytest.raises(ConfigError, match=rf"lists ids 4, 5, but .* \(.*document\.yaml, line {line}\)"):
        segwright.train(path)


def test_a_cycle_in_a_file_is_named_with_its_line(tmp_path):
    (tmp_path / "c.yaml").write_text("hierarchy:\n  classes:\n    a: &x\n      b: 0\n      back: *x\n")
    with pytest.raises(ConfigError, match=r"c\.yaml cannot be read as YAML: line 3: .*aliases are not supported\. "):
        gather(tmp_path / "c.yaml")


def test_a_mask_value_outside_the_tree_is_named_with_its_file(tmp_path):
    root = example(tmp_path / "data")
    mask = sorted((root / "masks/train").iterdir())[1]
    values = np.array(Image.open(mask))
    values[3, 4] = 7
    Image.fromarray(values).save(mask)
    with pytest.raises(DataError, match=rf"{mask.name}.*7"):
        segwright.train(yaml.safe_load(DOCUMENT.format(root=root)) | {"run": {"check": False}})
