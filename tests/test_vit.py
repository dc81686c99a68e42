"""Plain ViTs as encoders: what their maps are, that they lie where the image does, and every family's weight files."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from segwright.encoders import create_encoder, families, feature_blocks, get_vit_features, resolve_name
from segwright.encoders.vit import cover
from segwright.encoders.vit_weights import fit_vit
from segwright.errors import ConfigError, WeightsError


def small(name: str, **options: Any) -> Any:
    """timm's architecture of that name, but with four narrow blocks."""
    return timm.create_model(name, embed_dim=32, depth=4, num_heads=2, num_classes=0, **options)


def eva(name: str) -> Any:
    return small(name, dynamic_img_size=True)


@pytest.mark.parametrize(
    ("depth", "blocks"), [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (6, (0, 2, 3, 5)), (40, (9, 19, 29, 39))]
)
def test_the_last_block_of_each_quarter_gives_a_map(depth: int, blocks: tuple[int, ...]) -> None:
    assert feature_blocks(depth) == blocks


def test_three_blocks_are_too_few() -> None:
    with pytest.raises(ConfigError, match="3 blocks"):
        feature_blocks(3)


@pytest.mark.parametrize("size", [(64, 96), (50, 75)])
@pytest.mark.parametrize("pyramid", [True, False])
def test_maps_have_the_stated_channels_and_strides_and_every_parameter_gets_a_gradient(
    pyramid: bool, size: tuple[int, int]
) -> None:
    encoder = create_encoder("test_vit", pyramid=pyramid)
    expected = ((16, 32, 64, 64), (4, 8, 16, 32)) if pyramid else ((64,) * 4, (16,) * 4)
    assert (encoder.channels, encoder.strides) == expected
    maps = encoder(torch.randn(2, 3, *size))
    shapes = [(2, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(*expected, strict=True)]
    assert [tuple(x.shape) for x in maps] == shapes
    sum(x.square().mean() for x in maps).backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None] == []


def test_levels_finer_than_min_stride_are_not_even_made() -> None:
    encoder = create_encoder("test_vit", min_stride=8)
    assert (encoder.strides, encoder.channels) == ((8, 16, 32), (32, 64, 64))
    assert len(encoder.net.pyramid) == 3
    with pytest.raises(ConfigError, match="min_stride"):
        create_encoder("test_vit", pyramid=False, min_stride=32)


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"])
def test_features_are_the_normed_patch_tokens(name: str) -> None:
    """Those that timm itself gives after the last block, without class and register tokens, in rows of the grid."""
    vit = small(name, **({"dynamic_img_size": True} if "dinov2" in name else {})).eval()
    side = vit.patch_embed.patch_size[0]
    image = torch.randn(1, 3, 3 * side, 2 * side)
    with torch.no_grad():
        tokens = vit.forward_features(image)[:, vit.num_prefix_tokens :]
        maps = get_vit_features(vit, image, [1, 3])
    assert vit.num_prefix_tokens == 5
    assert [tuple(x.shape) for x in maps] == [(1, 32, 3, 2)] * 2
    torch.testing.assert_close(maps[1], tokens.transpose(1, 2).reshape(1, 32, 3, 2))


def test_what_pads_an_image_is_below_and_at_the_right() -> None:
    vit = small("vit_small_patch16_224", dynamic_img_size=True).eval()
    image = torch.randn(1, 3, 40, 50)
    padded = torch.zeros(1, 3, 48, 64)
    padded[..., :40, :50] = image
    with torch.no_grad():
        (found,), (expected,) = (get_vit_features(vit, x, [3]) for x in (image, padded))
    assert torch.equal(found, expected)


def ramp(cells: int, cell_px: float) -> Tensor:
    """A map (1, 1, cells, cells) of the cells' centres: pixels from the left, plus 1000 times those from the top."""
    centres = (torch.arange(cells) + 0.5) * cell_px
    return (centres[None, :] + 1000 * centres[:, None])[None, None]


@pytest.mark.parametrize(("cell_px", "stride"), [(16, 16), (14, 14), (14, 16), (3.5, 4)])
def test_a_map_covers_the_image_exactly(cell_px: float, stride: int) -> None:
    """50 pixels, n = ceil(50 / stride) cells of 50 / n pixels: cell i's centre is at (i + 1/2) 50 / n, wherever the
    ViT's own cells lie; the first and the last may be clamped to the outermost known centre."""
    cells = 5 if cell_px > 4 else 16
    found = cover(ramp(cells, cell_px), cell_px, (50, 50), stride)[0, 0]
    count = -(-50 // stride)
    centres = ((torch.arange(count) + 0.5) * 50 / count).clamp(cell_px / 2, (cells - 0.5) * cell_px)
    torch.testing.assert_close(found, centres[None, :] + 1000 * centres[:, None], rtol=1e-5, atol=0.05)


def test_a_map_of_whole_cells_is_cut_and_not_touched() -> None:
    maps = torch.randn(1, 2, 8, 8)
    assert torch.equal(cover(maps, 4, (24, 28), 4), maps[..., :6, :7])


def test_an_object_lies_where_it_does_in_the_image() -> None:
    """A bright square in 72 pixels, no multiple of 16: without positions and attention, only its cells answer."""
    torch.manual_seed(0)
    encoder = create_encoder("test_vit", pyramid=False).eval()
    vit = encoder.net.vit
    vit.pos_embed.data.zero_()
    for block in vit.blocks:
        block.attn.proj.weight.data.zero_()
    image = torch.zeros(1, 3, 72, 72)
    square = image.clone()
    square[..., 40:56, 8:24] = 1
    with torch.no_grad():
        difference = (encoder(square)[3] - encoder(image)[3]).abs().sum(1)
    enlarged = torch.nn.functional.interpolate(difference[None], size=(72, 72), mode="bilinear")[0, 0]
    weights = enlarged / enlarged.sum()
    centre = [float((weights.sum(axis) * (torch.arange(72) + 0.5)).sum()) for axis in (1, 0)]
    assert centre == pytest.approx([48, 16], abs=1.5)


def test_a_pyramid_is_for_plain_vits_alone() -> None:
    with pytest.raises(ConfigError, match=r"pyramid is True.*'resnet10t'"):
        create_encoder("resnet10t", pyramid=True)


def test_checkpointing_drop_path_and_channels_reach_a_vit() -> None:
    encoder = create_encoder("test_vit", checkpointing=True, drop_path_rate=0.5, in_channels=1)
    assert encoder.net.vit.grad_checkpointing
    assert encoder.net.vit.blocks[-1].drop_path1.drop_prob == 0.5
    assert encoder(torch.zeros(1, 1, 32, 32))[0].shape == (1, 16, 8, 8)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vit_small_patch14_dinov2", 22_056_192),
        ("vit_large_patch14_reg4_dinov2", 304_370_688),
        ("vit_base_patch16_dinov3", 85_641_216),
        ("retfound", 303_301_632),
        ("visionfm", 85_798_656),
    ],
)
def test_parameters_are_those_published(name: str, parameters: int) -> None:
    with torch.device("meta"):
        encoder = create_encoder(name, pyramid=False)
    assert sum(p.numel() for p in encoder.parameters()) == parameters


# ------------------------------------------------------------------------------------------------ weight files


def values(vit: Any, seed: int = 0) -> dict[str, Tensor]:
    """Other values for all its tensors."""
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(tensor.shape, generator=generator) for key, tensor in vit.state_dict().items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


def test_mae_files_lose_decoder_and_mask_token() -> None:
    vit = small("vit_small_patch16_224")
    tensors = values(vit)
    beside = {"mask_token": torch.zeros(1), "decoder_embed.weight": torch.zeros(1), "decoder_pos_embed": torch.zeros(1)}
    assert same(fit_vit(tensors | beside, vit, "x"), tensors)


def test_a_teacher_loses_its_prefix_and_the_heads_of_its_training() -> None:
    vit = small("vit_small_patch14_dinov2")
    tensors = values(vit)
    foreign = {f"module.backbone.{key}": tensor for key, tensor in tensors.items()}
    foreign |= {"module.backbone.mask_token": torch.zeros(1), "module.head.mlp.0.weight": torch.zeros(1)}
    foreign |= {"dino_head.mlp.0.weight": torch.zeros(1), "ibot_head.last_layer.weight": torch.zeros(1)}
    assert same(fit_vit(foreign, vit, "x"), tensors)


def test_metas_dinov2_with_registers() -> None:
    """There the class token's position is in the table; in timm's model it is part of the token."""
    vit = small("vit_small_patch14_reg4_dinov2")
    tensors = values(vit)
    place = torch.randn(1, 1, 32)
    foreign = dict(tensors) | {"mask_token": torch.zeros(1, 32), "register_tokens": tensors["reg_token"]}
    foreign |= {"cls_token": tensors["cls_token"] - place, "pos_embed": torch.cat([place, tensors["pos_embed"]], 1)}
    del foreign["reg_token"]
    fitted = fit_vit(foreign, vit, "x")
    torch.testing.assert_close(fitted, tensors)


def metas_dinov3(tensors: dict[str, Tensor], bias: float) -> dict[str, Tensor]:
    """timm's names -> Meta's."""
    names = {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma", "reg_token": "storage_tokens"}
    foreign = {}
    for key, tensor in tensors.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        foreign[key] = tensor
    foreign |= {f"blocks.{block}.attn.qkv.bias": torch.full((96,), bias) for block in range(4)}
    return foreign | {"mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.zeros(8)}


def test_metas_dinov3_and_its_bias(capsys: pytest.CaptureFixture) -> None:
    vit = eva("vit_small_patch16_dinov3")
    tensors = values(vit)
    assert same(fit_vit(metas_dinov3(tensors, bias=0), vit, "x"), tensors)
    assert capsys.readouterr().out == ""
    with pytest.raises(WeightsError, match=r"qkv.bias' is not zero.*'x_qkvb'"):
        fit_vit(metas_dinov3(tensors, bias=1), vit, "x")
    biased = eva("vit_small_patch16_dinov3_qkvb")
    fitted = fit_vit(metas_dinov3(tensors, bias=1), biased, "x")
    assert torch.equal(fitted["blocks.2.attn.v_bias"], torch.ones(32))


def test_positions_of_another_size_are_resized_and_patches_never() -> None:
    vit = small("vit_small_patch16_224")
    larger = small("vit_small_patch16_224", img_size=320)
    fitted = fit_vit(values(larger), vit, "x")
    assert fitted["pos_embed"].shape == (1, 197, 32)
    with pytest.raises(WeightsError, match="14 x 14 pixels instead of 16 x 16"):
        fit_vit(values(small("vit_small_patch14_dinov2")), vit, "x")


def test_what_is_missing_unknown_or_of_another_shape_is_named() -> None:
    vit = small("vit_small_patch16_224")
    tensors = values(vit)
    del tensors["norm.weight"]
    tensors["blocks.0.extra"] = torch.zeros(1)
    tensors["cls_token"] = torch.zeros(1, 1, 5)
    with pytest.raises(WeightsError) as error:
        fit_vit(tensors, vit, "x")
    for part in ("1 missing: norm.weight", "1 not known: blocks.0.extra", "cls_token (1, 1, 5) instead of (1, 1, 32)"):
        assert part in str(error.value)
    with pytest.raises(WeightsError, match=r"none, but keys like conv1\.weight"):
        fit_vit({"conv1.weight": torch.zeros(1)}, vit, "x")


def test_a_file_for_colour_fits_one_channel() -> None:
    vit = small("vit_small_patch16_224", in_chans=1)
    tensors = values(small("vit_small_patch16_224"))
    first = fit_vit(tensors, vit, "x")["patch_embed.proj.weight"]
    torch.testing.assert_close(first, tensors["patch_embed.proj.weight"].sum(1, keepdim=True))


@pytest.fixture
def tiny_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """The families with an architecture that is made at once."""
    for name, family in families.FAMILIES.items():
        monkeypatch.setitem(families.FAMILIES, name, replace(family, model="test_vit"))


@pytest.mark.parametrize(
    ("name", "key"), [("retfound", "model"), ("retfound_dinov2", "teacher"), ("visionfm", "teacher")]
)
def test_a_familys_file_brings_its_normalisation_and_licence(
    name: str, key: str, tiny_families: None, tmp_path: Path
) -> None:
    tensors = values(timm.create_model("test_vit", num_classes=0, img_size=224))
    foreign = {f"backbone.{k}" if key == "teacher" else k: v for k, v in tensors.items()}
    torch.save({key: foreign, "args": argparse.Namespace(lr=0.1, size=[224]), "epoch": 3}, tmp_path / "w.pth")
    encoder = create_encoder(name, tmp_path / "w.pth")
    assert torch.equal(encoder.net.vit.blocks[3].attn.qkv.weight, tensors["blocks.3.attn.qkv.weight"])
    assert (encoder.name, encoder.origin, encoder.licence) == (name, str(tmp_path / "w.pth"), "CC BY-NC 4.0")
    assert encoder.mean == ((0.42374, 0.26095, 0.12840) if name == "visionfm" else (0.485, 0.456, 0.406))


def test_visionfm_has_a_name_for_each_modality(tiny_families: None) -> None:
    encoder = create_encoder("visionfm_oct")
    assert (encoder.mean, encoder.std) == ((0.21091926,) * 3, (0.17598893,) * 3)
    assert create_encoder("visionfm_fundus").mean == create_encoder("visionfm").mean


@pytest.mark.parametrize("name", ["retfound", "retfound_dinov2", "visionfm", "visionfm_oct_base"])
@pytest.mark.parametrize("pretrained", [True, 1, "1"])
def test_a_family_without_a_path_says_where_its_weights_are(name: str, pretrained: Any) -> None:
    assert resolve_name(name) == name
    with pytest.raises(WeightsError, match=r"https://(huggingface.co/YukunZhou|github.com/ABILab-CUHK/VisionFM).*path"):
        create_encoder(name, pretrained)


def test_other_peoples_weights_are_not_passed_off_as_a_familys() -> None:
    with pytest.raises(WeightsError, match="cannot be fetched"):
        create_encoder("retfound", "augreg_in21k")
    with pytest.raises(ConfigError, match="has no tags"):
        create_encoder("retfound.augreg_in21k")
    with pytest.raises(ConfigError, match="Did you mean 'retfound'"):
        create_encoder("retfoundd")


def test_a_vits_file_that_lacks_a_tensor_is_refused_by_name_and_path(tmp_path: Path) -> None:
    tensors = values(timm.create_model("test_vit"))
    torch.save(tensors, tmp_path / "whole.pth")
    encoder = create_encoder("test_vit", tmp_path / "whole.pth")
    assert torch.equal(encoder.net.vit.norm.bias, tensors["norm.bias"])
    del tensors["norm.bias"]
    torch.save(tensors, tmp_path / "holed.pth")
    with pytest.raises(WeightsError, match=r"holed.pth: .*test_vit.*1 missing: norm.bias"):
        create_encoder("test_vit", tmp_path / "holed.pth")
