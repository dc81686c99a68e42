"""SegHiero's architecture guide: every YAML block of it loads as it stands there, and each combination has a recipe."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from runs import read_csv
from segwright import cli
from segwright.engine import Engine
from segwright.errors import ConfigError
from segwright.png import write_png
from segwright.verbs.settings import gather

RECIPES = Path(__file__).parents[1] / "recipes/seghiero"
RESNET, CONVNEXT, MIT = (
    'backbone:\n  type: "resnet"\n  depth: 101\n  pretrained: true\n',
    'backbone:\n  type: "convnext"\n  variant: "tiny"   # Options: tiny, small, base, large, xlarge\n'
    "  pretrained: true\n",
    'backbone:\n  type: "segformer"\n  variant: "mit-b0"  # Options: mit-b0 through mit-b5\n  pretrained: true\n',
)
ASPP = 'head:\n  type: "aspp"\n'
BLOCKS: dict[str, tuple[str, tuple[str, str, int]]] = {
    "quick start": (RESNET + "\n" + ASPP, ("resnet101", "aspp", 512)),
    "resnet": (RESNET, ("resnet101", "aspp", 512)),
    "convnext": (CONVNEXT, ("convnext_tiny", "aspp", 512)),
    "segformer": (MIT, ("mit_b0", "aspp", 512)),
    "aspp head": (ASPP, ("resnet101", "aspp", 512)),
    "segformer head": ('head:\n  type: "segformer"\n  proj_dim: 256\n', ("resnet101", "segformer", 256)),
    "ultrafast head": (
        'head:\n  type: "ultrafast_segformer"\n  proj_dim: 128\n',
        ("resnet101", "ultrafast_segformer", 128),
    ),
    "extremely fast head": (
        'head:\n  type: "extremely_fast_segformer"\n  proj_dim: 64\n',
        ("resnet101", "extremely_fast_segformer", 64),
    ),
    "maximum_accuracy": (
        'backbone:\n  type: "segformer"\n  variant: "mit-b5"\n  pretrained: true\n\n'
        'head:\n  type: "segformer"\n  proj_dim: 256\n',
        ("mit_b5", "segformer", 256),
    ),
    "balanced": (RESNET + "\n" + ASPP, ("resnet101", "aspp", 512)),
    "maximum_speed": (
        MIT.replace("  # Options: mit-b0 through mit-b5", "")
        + '\nhead:\n  type: "extremely_fast_segformer"\n  proj_dim: 64\n',
        ("mit_b0", "extremely_fast_segformer", 64),
    ),
    "budget_gpu": (RESNET.replace("101", "50") + "\n" + ASPP, ("resnet50", "aspp", 512)),
}
"""Title, or recipe -> the block, and encoder, head and its width."""


def said(settings) -> tuple[str, str, int]:
    return settings.encoder.name, settings.head.name, settings.head.config.width


@pytest.mark.parametrize("title", BLOCKS)
def test_a_block_of_the_guide_loads_as_it_stands(title, tmp_path):
    block, expected = BLOCKS[title]
    (tmp_path / "block.yaml").write_text(block)
    settings = gather(tmp_path / "block.yaml", {"data.root": "x"})
    assert said(settings) == expected
    assert settings.encoder.pretrained is True
    assert settings.model.name is None


@pytest.mark.parametrize(
    ("type", "key", "value", "encoder"),
    [
        *(("resnet", "depth", depth, f"resnet{depth}") for depth in (18, 34, 50, 101, 152)),
        *(("convnext", "variant", v, f"convnext_{v}") for v in ("tiny", "small", "base", "large", "xlarge")),
        *(("segformer", "variant", f"mit-b{n}", f"mit_b{n}") for n in range(6)),
    ],
)
def test_every_backbone_of_the_guide_is_an_encoder(type, key, value, encoder):
    settings = gather({"backbone": {"type": type, key: value, "pretrained": False}}, {"data.root": "x"})
    assert settings.encoder.name == encoder


@pytest.mark.parametrize("name", ["maximum_accuracy", "balanced", "maximum_speed", "budget_gpu"])
def test_a_recommended_combination_is_a_recipe_and_nothing_else_of_it_differs(name):
    settings, plain = gather(RECIPES / f"{name}.yaml"), gather(RECIPES / "config.yaml")
    assert said(settings) == BLOCKS[name][1]
    other = {section for section, value in settings.dump().items() if value != plain.dump()[section]}
    assert other <= {"encoder", "head", "run"}
    assert settings.run.output == f"runs/seghiero_{name}"


EXAMPLE = """
dataset: {root: x, train: {image_subdir: a, mask_subdir: b}, val: {image_subdir: c, mask_subdir: d}}
classes: {fine_names: {0: a, 1: b, 2: c}, coarse_names: {0: g, 1: h}, coarse_to_fine_map: [[0, 1], [2]]}
model: {pretrained_model: resnet101}
training: {epochs: 3, batch_size: 2, lr: 0.01}
transform: {resize: [64, 64], hflip_prob: 0.5}
output: {checkpoint_dir: out, project_name: fun}
"""
"""SegHiero's older form, before there were backbones and heads to choose from."""


def older(**changes) -> dict:
    return {key: value for key, value in (yaml.safe_load(EXAMPLE) | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "encoder"),
    [
        ({}, "resnet101"),
        ({"model": None}, "resnet101"),
        ({"classes": None}, "resnet101"),
        ({"model": {"pretrained_model": "resnet-50"}}, "resnet50"),
        ({"model": {"pretrained_model": "weights/some.pth"}}, "resnet101"),
        ({"encoder": {"pretrained": False}}, "resnet101"),
    ],
)
def test_a_file_without_backbone_and_head_has_its_defaults(changes, encoder):
    assert said(gather(older(**changes), {"data.root": "x"})) == (encoder, "aspp", 512)


def test_a_pretrained_model_that_counts_is_not_said_to_be_unused(caplog):
    with caplog.at_level("INFO", "segwright"):
        gather(older())
        assert "pretrained_model" not in caplog.text
        gather(older(backbone={"type": "convnext"}))
    assert "model.pretrained_model is not used" in caplog.text


def test_a_network_of_ours_beside_such_a_file_stays():
    assert gather(older(MODEL_NAME="segformer_b1")).model.name == "segformer_b1"
    assert gather(older(model={"name": "segformer_b1"})).model.name == "segformer_b1"
    ours = gather(older(encoder={"name": "mit_b1"}, head={"name": "lite"}))
    assert said(ours)[:2] == ("mit_b1", "lite")


def test_its_learning_rate_is_that_of_encoder_and_head():
    settings = gather(older())
    assert (settings.optim.lr, settings.optim.lr_encoder) == (0.01, 0.01)
    assert gather(older(optim={"lr_encoder": 0.001})).optim.lr_encoder == 0.001


def test_a_runs_folder_is_given_whole_and_without_misspelling():
    assert gather(older()).run.output == "out/fun"
    with pytest.raises(ConfigError, match=r"output\.project_nam\. Did you mean 'project_name'"):
        gather(older(output={"checkpoint_dir": "out", "project_nam": "fun"}))
    with pytest.raises(ConfigError, match=r"Give run\.output="):
        gather(older(), overrides=["output.project_name=other"])


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"type": "resnet", "variant": "50"}, r"backbone\.variant is '50', .* depth: 101"),
        ({"type": "resnet", "depth": 50, "variant": "tiny"}, r"leave variant out"),
        ({"type": "segformer", "depth": 5}, r"backbone\.depth is 5, .* variant: mit-b0"),
        ({"type": "efficientnet_b0", "depth": 5}, r"backbone\.depth is 5, .* backbone\.type"),
    ],
)
def test_a_key_of_another_backbone_is_refused(backbone, message):
    with pytest.raises(ConfigError, match=message):
        gather({"backbone": backbone}, {"data.root": "x"})


def test_the_guides_other_two_sections_are_read():
    """Troubleshooting's `device`, and `training` as the example has it."""
    training = yaml.safe_load('training:\n  device: "cuda"\n  batch_size: 4\n  epochs: 3\n')
    settings = gather(training | yaml.safe_load(RESNET + ASPP), {"data.root": "x"})
    assert (settings.train.device, settings.train.batch_size, settings.train.epochs) == ("cuda", 4, 3)


def test_a_gpu_that_is_insisted_on_and_missing_is_an_error_and_not_a_silent_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="cuda"):
        Engine(amp=False, device="cuda")


def painted_streets(root: Path) -> Path:
    """Eleven classes as upright stripes of their own grey, in the folders that the recipe names; one row is ignored."""
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            ids = np.repeat(random.permutation(11).astype(np.uint8)[None], 48, axis=0).repeat(6, axis=1)
            grey = (20 * ids + random.normal(0, 3, ids.shape)).clip(0, 255).astype(np.uint8)
            ids[-1] = 255
            write_png(root / split / "images" / f"{number}.png", np.repeat(grey[:, :, None], 3, axis=2))
            write_png(root / split / "masks" / f"{number}.png", ids)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["config", "maximum_speed"])
def test_the_command_trains_a_recipe_for_an_epoch(recipe, tmp_path):
    """With a small encoder at a small size: the rest of the file is as it stands."""
    smaller = ["encoder.name=test_resnet", "encoder.pretrained=false", "input.size=[48,64]", "train.epochs=1"]
    smaller += ["train.batch_size=2", "train.device=cpu", "head.width=16", f"run.output={tmp_path}/run"]
    config, data = str(RECIPES / f"{recipe}.yaml"), str(painted_streets(tmp_path / "data"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--config", config, "--data", data, *smaller])
    assert ended.value.code == 0
    row = read_csv(tmp_path / "run")[0]
    assert 0 <= float(row["valid_iou_coarse"]) <= 1
    assert "movable" in (tmp_path / "run/hierarchy.txt").read_text()
