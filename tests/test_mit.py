"""The Mix Transformer against transformers' and segmentation_models.pytorch's, and foreign checkpoints into it."""

import re
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segwright.encoders import create_encoder
from segwright.encoders.layouts import HUGGING_FACE, MMSEG, NVLABS, from_mit
from segwright.encoders.mit import BlockConv2d, as_map, as_tokens
from segwright.encoders.mit_variants import VARIANTS
from segwright.encoders.weights import to_mit
from segwright.errors import ConfigError, WeightsError

MISSING = {
    "hub": "segformer.encoder.block.2.1.attention.self.value.weight",
    "memory": "segformer.stages.2.blocks.1.attention.v_proj.weight",
    "nvlabs": "block3.1.attn.kv.weight",
    "nvlabs-whole": "backbone.block3.1.attn.kv.weight",
    "mmseg": "backbone.layers.2.1.1.attn.attn.in_proj_weight",
    "smp": "encoder.block3.1.attn.kv.weight",
}
"""For each layout one key of the file whose absence must be an error."""


def shake(model: nn.Module) -> nn.Module:
    """No parameter keeps a value like 0 or 1 that another could have as well."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def transformers_model(name: str) -> transformers.SegformerForImageClassification:
    torch.manual_seed(0)
    variant = VARIANTS[name]
    config = transformers.SegformerConfig(
        hidden_sizes=list(variant["widths"]), depths=list(variant["depths"]), num_labels=1000
    )
    return shake(transformers.SegformerForImageClassification(config))


def features(name: str, state_dict: dict[str, Tensor]) -> nn.Module:
    net = timm.create_model(name, features_only=True).eval()
    net.model.load_state_dict(to_mit(state_dict, net.model))
    return net


def mmseg_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What mmsegmentation's converter makes of NVlabs' file: stage, then 0 embed, 1 blocks, 2 norm; q, k, v in one."""
    rules = (
        (r"^(patch_embed|block|norm)(\d)\.?", lambda m: f"layers.{int(m[2]) - 1}.{'pbn'.index(m[1][0])}."),
        (r"\.0\.proj\.", ".0.projection."),
        (r"attn\.proj\.", "attn.attn.out_proj."),
        (r"mlp\.fc1", "ffn.layers.0"),
        (r"mlp\.dwconv\.dwconv", "ffn.layers.1"),
        (r"mlp\.fc2", "ffn.layers.4"),
    )
    named = {}
    for key, tensor in tensors.items():
        if ".attn.kv." in key:
            continue
        new = key
        for pattern, by in rules:
            new = re.sub(pattern, by, new)
        if ".attn.q." in key:
            new = new.replace("attn.q.", "attn.attn.in_proj_")
            tensor = torch.cat([tensor, tensors[key.replace(".q.", ".kv.")]])
        if "ffn.layers.0" in new or "ffn.layers.4" in new:
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        named[f"backbone.{new}"] = tensor
    return named


def distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """transformers' b0 with its ImageNet classifier, and the file that it writes."""
    model = transformers_model("mit_b0")
    folder = tmp_path_factory.mktemp("hub")
    model.save_pretrained(folder)
    return model, folder / "model.safetensors"


@pytest.fixture(scope="module")
def checkpoints(hub: tuple[nn.Module, Path]) -> dict[str, dict[str, Tensor]]:
    """The same b0 in each layout, each with what stands beside the encoder in such files."""
    model, path = hub
    theirs = smp.Segformer("mit_b0", encoder_weights=None)
    theirs.encoder.load_state_dict(features("mit_b0", model.state_dict()).model.state_dict())
    encoder = {key: tensor.clone() for key, tensor in theirs.encoder.state_dict().items()}
    head = {"decode_head.linear_pred.bias": torch.zeros(3)}
    return {
        "hub": load_file(path),
        "memory": dict(model.state_dict()),
        "nvlabs": encoder | {"head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)},
        "nvlabs-whole": {f"backbone.{k}": v for k, v in encoder.items()} | head,
        "mmseg": mmseg_names(encoder) | head,
        "smp": dict(theirs.state_dict()),
    }


def save(tensors: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    else:
        torch.save({"state_dict": tensors, "meta": {"epoch": 3}}, path)
    return path


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mit_b0", (512, 512)),
        ("mit_b0", (500, 333)),
        pytest.param("mit_b2", (512, 512), marks=pytest.mark.slow),
        pytest.param("mit_b2", (500, 333), marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_maps_equal_those_of_transformers(name: str, size: tuple[int, int]) -> None:
    model = transformers_model(name).segformer
    net = features(name, model.state_dict())
    image = torch.randn(1, 3, *size)
    ours = net(image)
    theirs = list(model(image, output_hidden_states=True).hidden_states)
    assert distance(ours, theirs) < 5e-5
    for module_name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and not re.search("patch_embeddings|sequence_reduction", module_name):
            module.eps = 1e-6
    assert distance(ours, list(model(image, output_hidden_states=True).hidden_states)) < 1e-5


@torch.no_grad()
def test_maps_equal_those_of_segmentation_models_pytorch_at_its_epsilons() -> None:
    torch.manual_seed(0)
    theirs = shake(smp.encoders.get_encoder("mit_b1", weights=None))
    net = features("mit_b1", theirs.state_dict())
    image = torch.randn(2, 3, 96, 64)
    assert distance(net(image), theirs(image)[2:]) < 1e-5


@torch.no_grad()
def test_scores_equal_those_of_transformers(hub: tuple[nn.Module, Path]) -> None:
    model, path = hub
    ours = timm.create_model("mit_b0", pretrained=True, pretrained_cfg_overlay={"file": str(path)}).eval()
    image = torch.randn(2, 3, 64, 96)
    assert (ours(image) - model(image).logits).abs().max() < 5e-5


@pytest.mark.parametrize(
    ("name", "encoder", "with_classes"),
    [
        ("mit_b0", 3_319_392, 3_576_392),
        ("mit_b1", 13_151_424, 13_664_424),
        ("mit_b2", 24_196_288, 24_709_288),
        ("mit_b3", 44_072_128, 44_585_128),
        ("mit_b4", 60_842_688, 61_355_688),
        ("mit_b5", 81_443_008, 81_956_008),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, encoder: int, with_classes: int) -> None:
    with torch.device("meta"):
        net, whole = timm.create_model(name, features_only=True), timm.create_model(name)
    assert sum(p.numel() for p in net.parameters()) == encoder
    assert sum(p.numel() for p in whole.parameters()) == with_classes


def test_timm_knows_the_weights_licence_and_channels() -> None:
    net = timm.create_model("mit_b0", features_only=True)
    assert net.feature_info.channels() == [32, 64, 160, 256]
    assert net.feature_info.reduction() == [4, 8, 16, 32]
    for name in VARIANTS:
        cfg = timm.get_pretrained_cfg(name)
        assert cfg.hf_hub_id == f"nvidia/{name.replace('_', '-')}"
        assert "non-commercial" in cfg.license
        assert cfg.mean == (0.485, 0.456, 0.406)


def test_fewer_maps_drop_the_stages_that_are_not_needed() -> None:
    net = timm.create_model("mit_b0", features_only=True, out_indices=(0, 1))
    assert [tuple(x.shape) for x in net(torch.randn(1, 3, 64, 64))] == [(1, 32, 16, 16), (1, 64, 8, 8)]
    assert sum(p.numel() for p in net.parameters()) == 164_096 + 255_296


def test_intermediates_come_with_the_last_map_or_alone() -> None:
    model = timm.create_model("mit_b0").eval()
    image = torch.randn(1, 3, 64, 64)
    last, maps = model.forward_intermediates(image, indices=[-3])
    assert (tuple(last.shape), tuple(maps[0].shape)) == ((1, 256, 2, 2), (1, 64, 8, 8))
    assert torch.equal(last, model.forward_features(image))
    assert len(model.forward_intermediates(image, indices=2, intermediates_only=True)) == 2
    with pytest.raises(ConfigError, match="NLC"):
        model.forward_intermediates(image, output_fmt="NLC")


@pytest.mark.parametrize("size", [(32, 32), (29, 37)])
@torch.no_grad()
def test_block_convolution_equals_the_convolution(size: tuple[int, int]) -> None:
    conv = BlockConv2d(6, 4).double()
    maps = torch.randn(2, 6, *size, dtype=torch.double)
    expected = nn.functional.conv2d(maps, conv.weight, conv.bias, stride=4)
    assert torch.allclose(conv(maps), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_depthwise_convolution_copies_no_tokens(batch: int) -> None:
    """Tokens -> channels-last map -> convolution -> tokens: views at both ends, for a batch of one too."""
    tokens = torch.randn(batch, 12, 8)
    maps = as_map(tokens, 3, 4)
    assert maps.data_ptr() == tokens.data_ptr()
    assert maps[:, 5, 1, 2].tolist() == tokens[:, 1 * 4 + 2, 5].tolist()
    out = nn.Conv2d(8, 8, 3, padding=1, groups=8)(maps)
    assert out.stride() == maps.stride()
    assert as_tokens(out).data_ptr() == out.data_ptr()


def test_drop_path_grows_evenly_to_its_rate() -> None:
    model = timm.create_model("mit_b0", drop_path_rate=0.7)
    blocks = [block for stage in range(1, 5) for block in getattr(model, f"block{stage}")]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert timm.create_model("mit_b0").block4[1].drop_path.drop_prob == pytest.approx(0.1)


def test_initial_values_have_the_published_spread() -> None:
    """fan_out of the depthwise 3x3 is 9, of the first convolution 7 * 7 * 32."""
    torch.manual_seed(0)
    model = timm.create_model("mit_b1")
    block = model.requires_grad_(False).block4[0]
    assert float(block.mlp.fc1.weight.std()) == pytest.approx(0.02, rel=0.02)
    assert float(block.mlp.dwconv.dwconv.weight.std()) == pytest.approx((2 / 9) ** 0.5, rel=0.03)
    assert float(model.patch_embed1.proj.weight.std()) == pytest.approx((2 / (49 * 64)) ** 0.5, rel=0.03)
    assert not block.mlp.fc1.bias.any()


def test_recomputing_blocks_gives_the_same_gradients() -> None:
    model = timm.create_model("mit_b0", features_only=True).eval()
    image = torch.randn(1, 3, 64, 64)
    found = []
    for enable in (False, True):
        model.model.set_grad_checkpointing(enable=enable)
        model.zero_grad()
        sum(x.square().mean() for x in model(image)).backward()
        found.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*found, strict=True))


def test_29_pixels_are_enough_and_28_are_refused() -> None:
    encoder = create_encoder("mit_b0").eval()
    assert [tuple(x.shape[2:]) for x in encoder(torch.randn(1, 3, 29, 29))] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    with pytest.raises(ConfigError, match="at least 29 x 29 pixels"):
        encoder(torch.randn(1, 3, 28, 40))


@pytest.mark.parametrize(
    ("layout", "suffix"),
    [(layout, ".safetensors" if layout in ("hub", "nvlabs") else ".pth") for layout in MISSING] + [("hub", ".bin")],
)
@torch.no_grad()
def test_every_layout_loads_in_full(
    layout: str, suffix: str, checkpoints: dict, hub: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    """Through our own door and through timm's: both give the maps of transformers' model."""
    path = save(checkpoints[layout], tmp_path / f"file{suffix}")
    overlay = {"file": str(path)}
    nets = (
        create_encoder("mit_b0", pretrained=path),
        timm.create_model("mit_b0", features_only=True, pretrained=True, pretrained_cfg_overlay=overlay),
    )
    image = torch.randn(1, 3, 64, 64)
    expected = list(hub[0].segformer(image, output_hidden_states=True).hidden_states)
    for net in nets:
        assert distance(net.eval()(image), expected) < 5e-5


@pytest.mark.parametrize(("layout", "key"), MISSING.items())
def test_a_missing_key_is_an_error_that_names_it(layout: str, key: str, checkpoints: dict, tmp_path: Path) -> None:
    tensors = dict(checkpoints[layout])
    del tensors[key]
    path = save(tensors, tmp_path / "file.pth")
    overlay = {"file": str(path)}
    with pytest.raises(WeightsError, match=re.escape(key)):
        create_encoder("mit_b0", pretrained=path)
    for features_only in (True, False):
        with pytest.raises(WeightsError, match=re.escape(key)):
            timm.create_model(
                "mit_b0", features_only=features_only, num_classes=1000, pretrained=True, pretrained_cfg_overlay=overlay
            )


def test_a_classifier_for_other_classes_keeps_its_own_values(checkpoints: dict) -> None:
    overlay = {"state_dict": checkpoints["hub"]}
    model = timm.create_model("mit_b0", num_classes=7, pretrained=True, pretrained_cfg_overlay=overlay)
    assert model.head.weight.shape == (7, 256)
    assert torch.equal(model.norm4.bias, checkpoints["hub"]["segformer.encoder.layer_norm.3.bias"])


def test_a_classifier_that_is_missing_is_an_error(checkpoints: dict) -> None:
    overlay = {"state_dict": checkpoints["smp"]}
    with pytest.raises(WeightsError, match=r"head\.weight"):
        timm.create_model("mit_b0", pretrained=True, pretrained_cfg_overlay=overlay)


def test_a_checkpoint_of_another_size_or_kind_is_refused(checkpoints: dict) -> None:
    b1 = timm.create_model("mit_b1", num_classes=0)
    with pytest.raises(
        WeightsError, match=r"mit_b1.*of another shape: patch_embed1.proj.weight \(32, 3, 7, 7\) instead"
    ):
        to_mit(checkpoints["nvlabs"], b1)
    more = checkpoints["nvlabs"] | {"block1.2.norm1.weight": torch.ones(32)}
    b0 = timm.create_model("mit_b0", num_classes=0)
    with pytest.raises(WeightsError, match=r"1 not known: block1\.2\.norm1\.weight"):
        to_mit(more, b0)
    with pytest.raises(WeightsError, match=r"keys like layer1\.weight.*NVlabs.*Hugging Face.*mmseg"):
        to_mit({"layer1.weight": torch.ones(2)}, b0)


@pytest.mark.parametrize("channels", [1, 4])
def test_pretrained_weights_fit_other_numbers_of_channels(channels: int, checkpoints: dict, tmp_path: Path) -> None:
    """timm: one channel gets the sum over RGB, four get R, G, B, R times 3/4."""
    path = save(checkpoints["hub"], tmp_path / "file.safetensors")
    rgb = checkpoints["hub"]["segformer.encoder.patch_embeddings.0.proj.weight"]
    expected = rgb.sum(1, keepdim=True) if channels == 1 else rgb[:, [0, 1, 2, 0]] * 0.75
    encoder = create_encoder("mit_b0", pretrained=path, in_channels=channels)
    assert torch.allclose(encoder.net.model.patch_embed1.proj.weight, expected, atol=1e-6)
    assert len(encoder.mean) == len(encoder.std) == channels
    assert encoder(torch.randn(1, channels, 64, 64))[3].shape == (1, 256, 2, 2)


def test_the_way_back_gives_the_files_we_read(checkpoints: dict) -> None:
    model = timm.create_model("mit_b0")
    ours = to_mit(checkpoints["hub"], model)
    for layout, prefix, original in ((HUGGING_FACE, "segformer.", "hub"), (NVLABS, "", "nvlabs")):
        back = from_mit(ours, layout, prefix)
        assert back.keys() == checkpoints[original].keys()
        encoder = [key for key in back if not key.startswith("head.")]
        assert all(torch.equal(back[key], checkpoints[original][key]) for key in encoder)


def test_the_way_back_into_mmsegmentations_layout_gives_what_its_converter_makes(checkpoints: dict) -> None:
    ours = to_mit(checkpoints["mmseg"], timm.create_model("mit_b0", num_classes=0))
    expected = {key: tensor for key, tensor in checkpoints["mmseg"].items() if key.startswith("backbone.")}
    for tensors in (ours, dict(reversed(ours.items()))):
        back = from_mit(tensors, MMSEG, "backbone.")
        assert back.keys() == expected.keys()
        assert all(torch.equal(back[key], tensor) for key, tensor in expected.items())
