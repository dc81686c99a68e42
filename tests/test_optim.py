"""Optimizers: groups, rates, decay, and steps by hand."""

import logging

import pytest
import torch

from segwright.errors import ConfigError
from segwright.model import SegFormerLite
from segwright.training.optim import Config, build_optimizer, depths, rates_now

VIT = ["vit.cls_token", "vit.patch_embed.proj.weight", "vit.blocks.0.norm1.weight", "vit.blocks.0.mlp.fc1.weight",
       "vit.blocks.1.norm1.weight", "vit.norm.weight"]  # fmt: skip
CONVNEXT = ["stem_0.weight", "stages_0.blocks.0.gamma", "stages_1.downsample.0.weight", "stages_1.blocks.0.gamma",
            "stages_1.blocks.1.mlp.fc1.weight"]  # fmt: skip
RESNET = ["conv1.0.weight", "layer1.0.conv1.weight", "layer1.0.downsample.0.weight", "layer1.1.conv1.weight",
          "layer2.0.bn1.weight"]  # fmt: skip
MIT = ["patch_embed1.proj.weight", "block1.0.attn.q.weight", "block1.1.attn.q.weight", "norm1.weight",
       "patch_embed2.proj.weight", "block2.0.attn.q.weight"]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (VIT, [0, 0, 1, 1, 2, 2]),
        (CONVNEXT, [0, 1, 1, 2, 3]),
        (RESNET, [0, 1, 1, 2, 3]),
        (MIT, [0, 1, 2, 2, 2, 3]),
        (["conv.weight", "norm.weight"], [0, 0]),
    ],
)
def test_blocks_are_counted_in_the_order_of_the_names(names, wanted):
    assert list(depths([f"encoder.net.{name}" for name in names]).values()) == wanted


def test_layer_decay_gives_each_block_its_rate_and_loses_no_weight():
    """test_vit has six blocks: the last learns at lr_encoder, what lies before the first at 0.5^6 of it."""
    model = SegFormerLite("test_vit", pretrained=False)
    optimizer = build_optimizer(model, Config(lr=0.1, lr_encoder=0.64, layer_decay=0.5))
    names = [group["name"] for group in optimizer.param_groups]
    assert names == ["head", "encoder", *(f"encoder.{level}" for level in range(5, -1, -1))]
    found = [group["lr"] for group in optimizer.param_groups]
    assert found == pytest.approx([0.1, 0.64, 0.32, 0.16, 0.08, 0.04, 0.02, 0.01])
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters()}
    assert rates_now(optimizer) == pytest.approx({"head": 0.1, "encoder": 0.64, "encoder_lowest": 0.01})


def test_layer_decay_without_blocks_is_refused():
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    with pytest.raises(ConfigError, match="tell no blocks"):
        build_optimizer(model, Config(layer_decay=0.9))


def test_no_decay_spares_vectors_and_tables_alone():
    model = SegFormerLite("test_vit", pretrained=False)
    optimizer = build_optimizer(model, Config(no_decay=True, weight_decay=0.3))
    names = [group["name"] for group in optimizer.param_groups]
    assert names == ["head", "head.no_decay", "encoder", "encoder.no_decay"]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0, 0.3, 0.0]
    spared = {id(p) for group in optimizer.param_groups[1::2] for p in group["params"]}
    own = {name for name, p in model.named_parameters() if id(p) in spared}
    assert {name for name, p in model.named_parameters() if p.ndim <= 1} < own
    assert {name.rpartition(".")[2] for name, p in model.named_parameters() if id(p) in spared and p.ndim > 1} == {
        "cls_token",
        "pos_embed",
    }
    assert rates_now(optimizer) == pytest.approx({"head": 1e-3, "encoder": 1e-4})
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_by_hand(nesterov):
    """w = 1, gradient 1 twice, lr 0.1, momentum 0.5. The buffer is 1, then 1.5; w falls by 0.1 (1 + 1.5) = 0.25, with
    nesterov by 0.1 (1 + 0.5) + 0.1 (1 + 0.5 * 1.5) = 0.325."""
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(1, 1), "head": torch.nn.Linear(1, 1, bias=False)})
    weight = model["head"].weight
    torch.nn.init.ones_(weight)
    config = Config(name="sgd", lr=0.1, momentum=0.5, nesterov=nesterov, weight_decay=0.0)
    optimizer = build_optimizer(model, config)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert weight.item() == pytest.approx(0.675 if nesterov else 0.75)


def test_rates_are_scaled_with_the_images_of_a_step_when_asked_and_it_is_logged(caplog):
    model = SegFormerLite("test_resnet", pretrained=False)
    with caplog.at_level(logging.INFO, "segwright"):
        optimizer = build_optimizer(model, Config(lr=0.01, lr_encoder=0.004, scale_lr=16), images_per_step=8)
    assert rates_now(optimizer) == pytest.approx({"head": 0.005, "encoder": 0.002})
    assert "learning rates x 0.5: they are meant for 16 images a step, and a step has 8" in caplog.text
    assert rates_now(build_optimizer(model, Config(lr=0.01), images_per_step=8))["head"] == 0.01


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"momentum": 0.9}, "SGD's, but optim.name is adamw"),
        ({"nesterov": True}, "SGD's"),
        ({"name": "sgd", "momentum": 1.0}, "below 1"),
        ({"name": "sgd", "momentum": 0.0, "nesterov": True}, "looks ahead"),
        ({"layer_decay": 1.5}, "between 0 and 1"),
        ({"scale_lr": 0}, "number of images"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys, said):
    with pytest.raises(ConfigError, match=said):
        Config(**keys)
