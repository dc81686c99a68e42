"""SegHiero's three factory functions and the models of `segwright.nnunet`."""

import inspect
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from segwright import factories, nnunet
from segwright.encoders import create_encoder
from segwright.errors import ConfigError, WeightsError
from segwright.factories import create_backbone, create_head, encoder_name, get_backbone_channels
from segwright.heads.segformer import SegformerHead
from segwright.nnunet import model as nnunet_model

CHANNELS = {
    ("resnet", 18): [64, 128, 256, 512],
    ("resnet", 34): [64, 128, 256, 512],
    ("resnet", 50): [256, 512, 1024, 2048],
    ("resnet", 101): [256, 512, 1024, 2048],
    ("resnet", 152): [256, 512, 1024, 2048],
    ("convnext", "tiny"): [96, 192, 384, 768],
    ("convnext", "small"): [96, 192, 384, 768],
    ("convnext", "base"): [128, 256, 512, 1024],
    ("convnext", "large"): [192, 384, 768, 1536],
    ("convnext", "xlarge"): [256, 512, 1024, 2048],
    ("segformer", "mit-b0"): [32, 64, 160, 256],
    **{("segformer", f"mit-b{size}"): [64, 128, 320, 512] for size in range(1, 6)},
}
"""As its guide lists them."""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "which"), CHANNELS)
def test_channels_are_those_of_the_guide(kind: str, which: Any) -> None:
    key = "depth" if kind == "resnet" else "variant"
    config = {"backbone": {"type": kind, key: which, "pretrained": True}, "classes": 3}
    assert get_backbone_channels(config) == CHANNELS[kind, which]


def test_defaults_are_resnet_101_and_aspp() -> None:
    assert encoder_name({}) == "resnet101"
    assert encoder_name({"backbone": {"type": "convnext"}}) == "convnext_tiny"
    assert encoder_name({"backbone": {"type": "segformer"}}) == "mit_b0"
    head = create_head({}, [8, 16, 24, 32], 3)
    assert type(head.head).__name__ == "AsppHead"
    assert head.head.width == 512


@pytest.mark.parametrize(
    ("head", "width"),
    [
        ({"type": "aspp"}, 512),
        ({"type": "segformer", "proj_dim": 256}, 256),
        ({"type": "ultrafast_segformer", "proj_dim": 128}, 128),
        ({"type": "extremely_fast_segformer", "proj_dim": 64}, 64),
        ({"type": "extremely_fast_segformer"}, 64),
    ],
)
def test_a_backbone_and_a_head_give_logits_and_an_embedding(head: dict[str, Any], width: int) -> None:
    config = {"backbone": {"type": "segformer", "pretrained": False}, "head": head | {"embedding_width": 12}}
    backbone = create_backbone(config)
    built = create_head(config, get_backbone_channels(config), 5)
    assert built.head.width == width
    maps = backbone(torch.randn(2, 3, 64, 64))
    logits, embedding = built(maps)
    assert (logits.shape[:2], embedding.shape) == ((2, 5), (2, 12, 2, 2))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2, 2, 2))
    (logits.mean() + embedding[:, 0].mean()).backward()
    assert [name for name, p in built.named_parameters() if p.grad is None] == []


def test_any_encoder_is_a_type_and_pretrained_takes_a_file(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "w.pth")
    backbone = create_backbone({"backbone": {"type": "resnet10t", "pretrained": str(tmp_path / "w.pth")}})
    assert (backbone.name, backbone.origin) == ("resnet10t", str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"type": "resnet", "depth": 99}, "depth is 99; there are: 18, 34, 50, 101, 152"),
        ({"type": "convnext", "variant": "tinny"}, "Did you mean 'tiny'"),
        ({"type": "segformer", "variant": "mit-b6"}, "Did you mean 'mit-b"),
        ({"type": "convnext", "depth": 50}, "a backbone of type 'convnext' has none"),
        ({"type": "resnet", "variant": "tiny"}, "a backbone of type 'resnet' has none"),
        ({"type": "resnett10t"}, "no encoder is called 'resnett10t'"),
        ({"typ": "resnet"}, "Did you mean 'type'"),
        ("resnet", "must be a mapping"),
    ],
)
def test_a_backbone_that_cannot_be_is_refused(backbone: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_backbone_channels({"backbone": backbone})


def test_channels_that_do_not_fit_are_said() -> None:
    head = create_head({"head": {"type": "segformer"}}, [8, 12], 3)
    with pytest.raises(ConfigError, match=r"maps of \[3, 12\] channels, and was made for \[8, 12\]"):
        head([torch.randn(1, 3, 4, 4), torch.randn(1, 12, 2, 2)])
    for channels, classes in (([], 3), ([8], 3), ([8, 0], 3), ([8, 12], 0)):
        with pytest.raises(ConfigError, match="channels are"):
            create_head({}, channels, classes)


def test_a_head_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'segformer'"):
        create_head({"head": {"type": "segfromer"}}, [8, 8], 2)
    with pytest.raises(ConfigError, match=r"head\.project: no such key"):
        create_head({"head": {"type": "segformer", "project": 4}}, [8, 8], 2)
    with pytest.raises(ConfigError, match="embedding's width is 0"):
        create_head({"head": {"type": "segformer", "embedding_width": 0}}, [8, 8], 2)


# ------------------------------------------------------------------------------------------------ segwright.nnunet

ARGUMENTS = {
    "backbone_name": "dinov3",
    "backbone_size": "large",
    "num_classes": 1,
    "decoder_hidden_size": 256,
    "checkpoint_path": None,
    "freeze_backbone": False,
    "use_lora": True,
    "lora_rank": 8,
    "lora_alpha": 16.0,
    "lora_dropout": 0.05,
    "lora_target_modules": None,
}


def defaults(function: Any) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(function).parameters.items() if name != "self"}


def test_arguments_and_defaults_are_those_of_the_integration() -> None:
    assert defaults(nnunet.create_segformer_model) == ARGUMENTS
    assert defaults(nnunet.SegFormerSegmentationModel) == ARGUMENTS | {"use_lora": False}
    assert list(defaults(nnunet.create_backbone)) == ["model_name", "model_size", "checkpoint_path"]
    assert list(defaults(nnunet.get_vit_features)) == ["backbone", "x", "indices"]
    assert set(nnunet.__all__) <= set(dir(nnunet))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every backbone is one that is made at once, of random weights."""
    made = partial(create_encoder, "test_vit", False)
    monkeypatch.setattr(nnunet_model, "create_encoder", lambda name, pretrained, pyramid: made(pyramid=pyramid))


@pytest.mark.parametrize("size", [(64, 64), (50, 41)])
def test_logits_have_the_images_size_and_gradients_reach_everything(size: tuple[int, int], tiny: None) -> None:
    model = nnunet.SegFormerSegmentationModel(num_classes=4, decoder_hidden_size=16)
    assert model.feature_indices == [0, 2, 3, 5]
    logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 4, *size)
    logits.mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_what_pads_an_image_moves_nothing(tiny: None) -> None:
    """41 x 50 pixels, and the same within zeros of 48 x 64, multiples of the patch: the same logits."""
    model = nnunet.SegFormerSegmentationModel(decoder_hidden_size=16).eval()
    image = torch.randn(1, 3, 41, 50)
    padded = torch.nn.functional.pad(image, (0, 14, 0, 7))
    with torch.no_grad():
        torch.testing.assert_close(model(image), model(padded)[..., :41, :50])


def test_a_frozen_backbone_leaves_the_head(tiny: None) -> None:
    model = nnunet.create_segformer_model(use_lora=False, freeze_backbone=True)
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"decode_head"}


def test_lora_is_on_by_default_and_can_be_merged(
    tiny: None, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft: pip install 'segwright[lora]'")
    model = nnunet.create_segformer_model(decoder_hidden_size=16).eval()
    assert "LORA ON RANDOM WEIGHTS" in caplog.text
    assert "decode_head:" in capsys.readouterr().out
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
        before = model(image)
        model.disable_lora()
        assert (model(image) - before).abs().max() < 1e-5
    assert not [name for name in model.state_dict() if "lora_" in name]
    model.enable_lora(rank=2, target_modules=["mlp.fc1"])
    assert len([name for name, _ in model.named_parameters() if "lora_A" in name]) == 6


@pytest.mark.parametrize(("name", "size", "patch", "dim"), [("dinov3", "small", 16, 384), ("dinov2", "base", 14, 768)])
def test_backbones_by_family_and_size(
    name: str, size: str, patch: int, dim: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights are out of reach: a warning, and random ones."""
    with torch.device("meta"), caplog.at_level(logging.WARNING):
        backbone, patch_size, embed_dim = nnunet.create_backbone(name, size)
    assert (patch_size, embed_dim, len(backbone.blocks)) == (patch, dim, 12)
    assert "cannot be reached" in caplog.text


def test_the_sizes_of_a_vit_l_model() -> None:
    """The head at width 256: 4 * (1024 * 256 + 256) + 4 * 256 * 256 + 2 * 256 = 1,312,256, and 257 a class."""
    with torch.device("meta"):
        head = SegformerHead((1024,) * 4, 3, 256)
    assert sum(p.numel() for p in head.parameters()) == 1_312_256 + 3 * 257


def test_backbones_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'dinov3'"):
        nnunet.create_backbone("dinov33")
    with pytest.raises(ConfigError, match="small, base, large"):
        nnunet.create_backbone("dinov3", "huge")
    for name in ("retfound", "visionfm"):
        for path in (None, ""):
            with pytest.raises(WeightsError, match="checkpoint_path"):
                nnunet.create_backbone(name, "large", path)


def test_kinds_of_the_guide_are_all_there() -> None:
    assert set(factories.KINDS) == {"convnext", "resnet", "segformer"}


@pytest.mark.parametrize("config", [{"name": "resnet-18"}, {"type": "resnet", "depth": 18}, "resnet-18"])
@pytest.mark.parametrize(
    "make", [create_backbone, get_backbone_channels, lambda config: create_head(config, [8, 8], 2)]
)
def test_a_section_without_its_name_is_no_configuration(make: Any, config: Any) -> None:
    """It would be taken for none at all, and the default be made."""
    with pytest.raises(ConfigError, match="sections backbone and head"):
        make(config)
