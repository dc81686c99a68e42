"""LoRA: what trains, that it has an effect, that merging and saving lose nothing, and the traps of it."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright import lora
from segwright.encoders import create_encoder
from segwright.errors import ConfigError, MissingPackageError, WeightsError
from segwright.heads.segformer import SegformerHead

pytest.importorskip("peft", reason="LoRA needs peft: pip install 'segwright[lora]'")


class Model(nn.Module):
    """An encoder and a head, as a `Segmenter` has them."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.encoder(image))


def segmenter(pyramid: bool = True, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    encoder = create_encoder("test_vit", pyramid=pyramid)
    return Model(encoder, SegformerHead(encoder.channels, 2, width=16))


def train(model: nn.Module, steps: int = 5) -> None:
    model.train()
    torch.manual_seed(1)
    image, mask = torch.randn(2, 3, 32, 32), torch.randint(0, 2, (2, 8, 8))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(F.interpolate(model(image), size=(8, 8)), mask).backward()
        optimizer.step()
    model.eval()


def names(model: nn.Module) -> set[str]:
    """Of what trains."""
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("encoder", "targets", "count"),
    [
        ("vit_small_patch16_dinov3", ["qkv"], 147_456),
        ("vit_base_patch14_dinov2", ["qkv"], 294_912),
        pytest.param("vit_large_patch16_224", ["qkv"], 786_432, marks=pytest.mark.slow),
        ("vit_small_patch14_dinov2", ["qkv", "attn.proj", "fc1", "fc2"], 589_824),
        pytest.param("vit_base_patch16_224", ["qkv", "attn.proj", "fc1", "fc2"], 1_179_648, marks=pytest.mark.slow),
        pytest.param("vit_large_patch16_dinov3", ["qkv", "attn.proj", "fc1", "fc2"], 3_145_728, marks=pytest.mark.slow),
    ],
)
def test_adapters_have_as_many_weights_as_rank_and_sides_say(encoder: str, targets: list[str], count: int) -> None:
    """Rank 8, qkv: depth * 8 * (D + 3 D): 12 * 8 * 4 * 384, 12 * 8 * 4 * 768, 24 * 8 * 4 * 1024. All four: each block
    4 D for qkv, 2 D for the projection, 5 D for each half of the MLP: 12 * 8 * 16 * 384 and so on."""
    with torch.device("meta"):
        model = Model(create_encoder(encoder, pyramid=False), nn.Identity())
    lora.enable_lora(model, targets=targets)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


def test_the_encoder_is_frozen_but_for_adapters_and_pyramid_and_the_head_trains() -> None:
    model = segmenter()
    head = names(model.head)
    lora.enable_lora(model)
    assert names(model.head) == head
    trains = names(model.encoder)
    assert all("lora_" in name or name.startswith("net.pyramid.") for name in trains)
    assert len([name for name in trains if "lora_" in name]) == 2 * 6
    assert len([name for name in trains if "pyramid" in name]) == 8


def test_the_model_starts_unchanged_then_learns_and_merges_without_loss() -> None:
    model = segmenter().eval()
    image = torch.randn(1, 3, 40, 48)
    with torch.no_grad():
        before = model(image)
        lora.enable_lora(model)
        assert torch.equal(model(image), before)
        keys = set(segmenter().state_dict())
    train(model)
    moved = [p for name, p in model.named_parameters() if "lora_B" in name]
    assert all(p.any() for p in moved)
    with torch.no_grad():
        trained = model(image)
        lora.disable_lora(model)
        assert (trained - before).abs().max() > 0.01
        assert (model(image) - trained).abs().max() < 1e-5
    assert set(model.state_dict()) == keys


def test_without_adapters_merging_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = segmenter()
    with caplog.at_level(logging.INFO):
        lora.disable_lora(model)
    assert "not enabled" in caplog.text


def test_saved_adapters_alone_give_the_same_in_a_fresh_model(tmp_path: Path) -> None:
    model = segmenter(pyramid=False)
    lora.enable_lora(model, r=4, alpha=8)
    train(model)
    path = tmp_path / "adapters.safetensors"
    lora.save_adapters(model, path)
    assert path.stat().st_size < 6 * 4 * (64 + 192) * 4 + 4000  # 6 blocks, rank 4, 4 bytes each, and the header
    fresh = segmenter(pyramid=False).eval()
    lora.load_adapters(fresh, path)
    image = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        for found, expected in zip(fresh.encoder(image), model.encoder(image), strict=True):
            assert torch.equal(found, expected)
    again = segmenter(pyramid=False)
    lora.enable_lora(again, r=4, alpha=8)
    lora.load_adapters(again, path)
    assert torch.equal(again.encoder.net.vit.blocks[0].attn.qkv.lora_B["default"].weight.detach(), _first(model))


@pytest.mark.parametrize(
    ("encoder", "targets"),
    [
        ("test_vit", ["qkv", "mlp.fc2"]),
        ("mit_b0", ["attn.q", "patch_embed1.proj", "mlp.fc2"]),
        ("test_resnet", ["conv1", "conv2"]),
    ],
)
def test_a_state_dict_is_merged_as_the_model_is(encoder: str, targets: list[str]) -> None:
    """Linear layers, and convolutions of 1 x 1, 3 x 3 and 7 x 7 pixels."""
    plain = Model(create_encoder(encoder), nn.Identity()).eval()
    model = Model(create_encoder(encoder), nn.Identity())
    model.load_state_dict(plain.state_dict())
    lora.enable_lora(model, r=3, alpha=7, targets=targets)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        adapted = model.eval()(image)
    state = lora.merged(model.state_dict(), 7)
    before = plain.state_dict()
    moved = [key for key in before if not torch.equal(before[key], state[key])]
    assert moved
    assert all(key.removesuffix(".weight").endswith(tuple(targets)) for key in moved)
    lora.disable_lora(model)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(state[key], tensor, rtol=0, atol=1e-6)
    plain.load_state_dict(state)
    with torch.no_grad():
        for found, expected in zip(plain(image), adapted, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_merging_a_state_dict_without_adapters_changes_nothing() -> None:
    state = segmenter().state_dict()
    merged = lora.merged(state, 16)
    assert all(merged[key] is tensor for key, tensor in state.items())


def _first(model: Any) -> Tensor:
    return model.encoder.net.vit.blocks[0].attn.qkv.lora_B["default"].weight.detach()


def test_adapters_of_another_encoder_or_rank_are_refused(tmp_path: Path) -> None:
    model = segmenter()
    lora.enable_lora(model, r=4)
    lora.save_adapters(model, tmp_path / "a.safetensors")
    other = segmenter()
    lora.enable_lora(other, r=2)
    with pytest.raises(WeightsError, match=r"\(4, 64\) in the file, \(2, 64\) in the model"):
        lora.load_adapters(other, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="layers that this encoder has not"):
        lora.load_adapters(Model(create_encoder("mit_b0"), nn.Identity()), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="no adapter file"):
        lora.load_adapters(segmenter(), tmp_path / "absent")
    (tmp_path / "text").write_text("not adapters")
    with pytest.raises(WeightsError, match="cannot be read"):
        lora.load_adapters(segmenter(), tmp_path / "text")
    with pytest.raises(ConfigError, match="no LoRA adapters to save"):
        lora.save_adapters(segmenter(), tmp_path / "b")


# ------------------------------------------------------------------------------------------------ traps


class Reads(nn.Module):
    """An attention's way to go round an adapter: it takes the layer's weight and never calls the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.qkv = nn.Linear(4, 4)

    def forward(self, image: Tensor) -> Tensor:
        return F.linear(self.stem(image).permute(0, 2, 3, 1), self.qkv.weight)


def test_adapters_that_would_be_dead_are_refused_and_removed() -> None:
    model = Model(Reads(), nn.Identity())
    with pytest.raises(ConfigError, match="LoRA on qkv would have no effect"):
        lora.enable_lora(model, r=2)
    assert type(model.encoder.qkv) is nn.Linear
    assert set(model.encoder.state_dict()) == set(Reads().state_dict())


def test_dinov3_with_bias_is_mended_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """Its attention reads the weight of qkv, as `Reads`, unless the bias is added apart."""
    encoder = timm.create_model("vit_small_patch16_dinov3_qkvb", embed_dim=32, depth=4, num_heads=2, num_classes=0)
    for block in encoder.blocks:
        nn.init.normal_(block.attn.q_bias)
        nn.init.ones_(block.gamma_1)  # 1e-5 at first, which would hide any effect
    model, image = Model(encoder.eval(), nn.Identity()), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = model(image)
        with caplog.at_level(logging.INFO):
            lora.enable_lora(model)
        torch.testing.assert_close(model(image), before)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
        assert (model(image) - before).abs().max() > 1e-3
    assert "biases of 4 attentions" in caplog.text


def test_a_patch_embedding_is_not_hit_by_accident(caplog: pytest.LogCaptureFixture) -> None:
    model = segmenter()
    found = lora.find_targets(model.encoder, ["qkv", "proj"])
    assert len(found) == 12
    assert not [name for name in found if "patch_embed" in name]
    assert "'proj' also means the convolution net.vit.patch_embed.proj, which is left out" in caplog.text
    assert lora.find_targets(model.encoder, ["patch_embed.proj"]) == ["net.vit.patch_embed.proj"]


def test_targets_that_mean_nothing_are_answered_with_the_layers_names() -> None:
    encoder = segmenter().encoder
    with pytest.raises(ConfigError, match=r"'qvk'\. Did you mean 'qkv'\? There are: .*attn.proj, attn.qkv.*mlp.fc1"):
        lora.find_targets(encoder, ["qvk"])
    with pytest.raises(ConfigError, match=r"'norm1' means net.vit.blocks.0.norm1, a LayerNorm"):
        lora.find_targets(encoder, ["norm1"])
    with pytest.raises(ConfigError, match="is empty"):
        lora.find_targets(encoder, [])


def test_convolutions_in_groups_are_refused_since_nothing_can_be_merged_into_them() -> None:
    with pytest.raises(ConfigError, match=r"a Conv2d in 128 groups; .* not in groups\. "):
        lora.find_targets(create_encoder("mit_b0"), ["dwconv"])
    with pytest.raises(ConfigError, match=r"attn\.sr, a BlockConv2d;"):
        lora.find_targets(create_encoder("mit_b0"), ["sr"])


def test_what_is_no_layer_does_not_hide_the_layers_of_its_name() -> None:
    """The stem of this ResNet is a sequence called conv1, as the first convolution of each block is."""
    found = lora.find_targets(create_encoder("test_resnet"), ["conv1"])
    assert found
    assert all(name.endswith("0.conv1") for name in found)


@pytest.mark.parametrize("wrong", [{"r": 0}, {"dropout": 1.0}, {"alpha": 0}])
def test_values_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="r is 1 or more, dropout from 0 to below 1"):
        lora.enable_lora(segmenter(), **wrong)


def test_a_second_set_and_a_model_without_encoder_are_refused() -> None:
    model = segmenter()
    lora.enable_lora(model)
    with pytest.raises(ConfigError, match="already"):
        lora.enable_lora(model)
    with pytest.raises(ConfigError, match="no part 'encoder' or 'backbone'"):
        lora.enable_lora(nn.Linear(1, 1))


def test_random_weights_are_warned_of_loudly(caplog: pytest.LogCaptureFixture) -> None:
    lora.enable_lora(segmenter())
    assert "LORA ON RANDOM WEIGHTS" in caplog.text
    caplog.clear()
    model = segmenter()
    model.encoder.origin = "weights.pth"
    lora.enable_lora(model)
    assert caplog.text == ""


def test_it_looks_at_adapters_without_a_trace() -> None:
    """Every module keeps its mode, and batch norm its statistics."""
    model = Model(create_encoder("resnet10t"), nn.Identity()).train()
    model.encoder.net.conv1.eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items() if "running" in key}
    lora.enable_lora(model, targets=["layer1.0.conv1"])
    assert model.encoder.net.layer1.training
    assert not model.encoder.net.conv1[0].training
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in before.items())


def test_without_peft_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingPackageError, match=r"segwright\[lora\]"):
        lora.enable_lora(segmenter())


def test_trainable_parameters_are_printed_whole_and_by_part(capsys: pytest.CaptureFixture) -> None:
    """6 adapters of 8 * (64 + 192) = 12,288; the head has 4 * (64 * 16 + 16) + 4 * 16 * 16 + 32 + 34 = 5,250."""
    model = segmenter(pyramid=False)
    total = sum(p.numel() for p in model.parameters()) + 12_288
    lora.enable_lora(model)
    lora.print_trainable_parameters(model, detailed=True)
    out = capsys.readouterr().out
    assert f"trainable params: 17,538 || all params: {total:,} || trainable%: {100 * 17_538 / total:.2f}%" in out
    assert "head:                5,250 /        5,250 (100.00%)" in out
    assert "encoder:            12,288 /" in out


def test_adapters_work_in_convolutional_and_mixed_encoders() -> None:
    make: list[tuple[Callable[[], nn.Module], str]] = [
        (lambda: create_encoder("mit_b0"), "q"),
        (lambda: create_encoder("convnext_atto"), "mlp.fc1"),
    ]
    for encoder, target in make:
        model = Model(encoder(), nn.Identity())
        lora.enable_lora(model, targets=[target])
        sum(x.square().mean() for x in model.encoder(torch.randn(1, 3, 64, 64))).backward()
        assert all(p.grad is not None for name, p in model.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize(
    ("encoder", "targets"),
    [
        ("swin_tiny_patch4_window7_224", ["qkv"]),
        ("pvt_v2_b0", ["attn.q", "attn.kv"]),
        ("convnext_atto", ["mlp.fc1", "mlp.fc2"]),
        ("resnet10t", ["conv2"]),
    ],
)
def test_the_targets_that_the_page_names_fit(encoder: str, targets: list[str]) -> None:
    model = Model(create_encoder(encoder), nn.Identity())
    lora.enable_lora(model, targets=targets)
    assert len([name for name in names(model) if "lora_A" in name]) >= 4


@pytest.mark.parametrize(("encoder", "targets"), [("test_vit", ["qkv"]), ("mit_b0", ["attn.q"])])
def test_adapters_learn_beside_gradient_checkpointing(encoder: str, targets: list[str]) -> None:
    """Nothing before the first adapter has a gradient, at which some ways of recomputing lose those behind it."""
    model = Model(create_encoder(encoder, checkpointing=True), nn.Identity()).train()
    lora.enable_lora(model, targets=targets)
    sum(x.square().mean() for x in model.encoder(torch.randn(1, 3, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.any() for name, p in model.named_parameters() if "lora_B" in name)
