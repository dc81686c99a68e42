"""The configuration and network of the nnU-Net trainers, which need no nnU-Net themselves."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import Tensor, nn

from segwright import nnunet
from segwright.encoders import create_encoder
from segwright.errors import ConfigError, WeightsError
from segwright.heads import HEADS
from segwright.lora import inject, trainable_parameters
from segwright.nnunet.config import from_plain, load_config, same_network, to_plain
from segwright.nnunet.network import IN_0_1, SegFormerNetwork, add_adapters, build_network, encoder_name
from slim import VIT, slim

DOCUMENT: dict[str, dict[str, Any]] = {
    "model": {"backbone": "dinov3", "backbone_size": "large", "decoder_hidden_size": 256, "checkpoint_path": ""},
    "lora": {"enabled": True, "r": 8, "lora_alpha": 16, "target_modules": ["qkv"], "lora_dropout": 0.05},
    "train": {"initial_lr": 1e-3, "weight_decay": 3e-5, "gradient_clip": 12.0},
}
"""Fields and defaults that the integration's users know, in their order."""
TINY = {"backbone": "timm/test_vit", "decoder_hidden_size": 16, "pretrained": False}


def configured(lora: bool = False, **model: Any) -> nnunet.SegFormernnUNetConfig:
    return from_plain({"model": TINY | model, "lora": {"enabled": lora, "r": 2}})


def stirred(network: SegFormerNetwork) -> SegFormerNetwork:
    """With adapters, DINOv2's scales and batch norms that are not neutral any more, in evaluation mode."""
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
        if name.endswith("gamma"):
            nn.init.ones_(parameter)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return network.eval()


# configuration


@pytest.mark.parametrize("section", DOCUMENT)
def test_the_integrations_fields_stand_first_with_its_defaults(section: str) -> None:
    part = getattr(nnunet.SegFormernnUNetConfig(), section)
    names = [field.name for field in fields(part)]
    assert names[: len(DOCUMENT[section])] == list(DOCUMENT[section])
    assert {name: getattr(part, name) for name in DOCUMENT[section]} == DOCUMENT[section]


def test_omegaconf_reads_the_dataclasses() -> None:
    merged = OmegaConf.merge(OmegaConf.structured(nnunet.SegFormernnUNetConfig), {"lora": {"r": 4}})
    made = OmegaConf.to_object(merged)
    assert isinstance(made, nnunet.SegFormernnUNetConfig)
    assert (made.lora.r, made.model.backbone) == (4, "dinov3")


def test_the_packaged_file_says_what_the_dataclasses_say() -> None:
    assert load_config() == nnunet.SegFormernnUNetConfig()
    packaged = OmegaConf.load(Path(nnunet.__file__).parent / "segformer_default.yaml")
    assert packaged == asdict(nnunet.SegFormernnUNetConfig())


def test_the_readmes_yaml_shows_the_defaults() -> None:
    readme = (Path(__file__).parents[1] / "recipes" / "nnunet" / "README.md").read_text()
    shown = yaml.safe_load(readme.partition("```yaml")[2].partition("```")[0])
    assert list(shown) == ["model", "lora", "train"]
    assert from_plain(shown) == nnunet.SegFormernnUNetConfig()
    assert shown == asdict(nnunet.SegFormernnUNetConfig())


def test_a_file_changes_what_it_names_and_survives_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("lora: {enabled: false, target_modules: [attn.proj]}\ntrain: {initial_lr: 1e-4}\n")
    config = load_config(path)
    expected = DOCUMENT["lora"] | {"enabled": False, "target_modules": ["attn.proj"]}
    assert asdict(config.lora) == expected
    assert (config.train.initial_lr, config.train.weight_decay) == (1e-4, 3e-5)
    assert from_plain(to_plain(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {bakbone: dinov2}", "Did you mean 'backbone'"),
        ("modle: {}", "Did you mean 'model'"),
        ("train: {epochs: 0}", "1000 and 250"),
        ("train: {initial_lr: 0}", "above 0"),
        ("train: {iterations_per_epoch: many}", "train.iterations_per_epoch is 'many'"),
        ("[1, 2]", "mapping"),
    ],
)
def test_a_bad_configuration_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_path_that_does_not_exist_is_an_error_and_no_default() -> None:
    with pytest.raises(ConfigError, match=r"no configuration file nowhere\.yaml"):
        load_config("nowhere.yaml")


def test_what_a_training_started_from_does_not_make_another_network() -> None:
    assert same_network(configured(), configured(pretrained=True, checkpoint_path="gone.pth")) == []
    assert same_network(configured(), configured(detail=4)) == ["model.detail is 0 there and 4 here"]


# network


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dinov2", "vit_small_patch14_dinov2"),
        ("dinov3", "vit_small_patch16_dinov3"),
        ("retfound", "retfound_small"),
        ("visionfm", "visionfm_small"),
        ("mit_b0", "mit_b0"),
        ("segformer_b5", "mit_b5"),
        ("timm/convnext_tiny", "convnext_tiny"),
    ],
)
def test_backbones_are_segwrights_encoders(name: str, expected: str) -> None:
    assert encoder_name(configured(backbone=name, backbone_size="small").model) == expected


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"backbone": "dinov4"}, r"no backbone is called 'dinov4'.*dinov[23].*mit_b0 to mit_b5.*timm/"),
        ({"backbone": "convnext_tiny"}, "timm/convnext_tiny"),
        ({"backbone": "timm/convnext_tinny"}, "Did you mean 'convnext_tiny'"),
        ({"backbone": "dinov2", "backbone_size": "huge"}, "small, base, large"),
        ({"head": "segfromer"}, "Did you mean 'segformer'"),
        ({"decoder_hidden_size": 0}, "width is 0"),
        ({"backbone": "timm/resnet10t", "pyramid": True}, "pyramid"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(configured(**model), 3, 2)


def test_a_backbone_that_nobody_can_fetch_asks_for_its_file() -> None:
    with pytest.raises(WeightsError, match="checkpoint_path"):
        build_network(configured(backbone="retfound", backbone_size="large", pretrained=True), 3, 2, fresh=True)


def test_a_checkpoint_of_another_layout_names_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(1), "layer1.0.conv.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"conv1\.weight"):
        build_network(configured(checkpoint_path=str(path)), 3, 2, fresh=True)
    with pytest.raises(WeightsError, match=r"gone\.pth"):
        build_network(configured(checkpoint_path="gone.pth"), 3, 2, fresh=True)
    build_network(configured(checkpoint_path="gone.pth"), 3, 2)  # a trained one needs it no more


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "model",
    [{}, {"pyramid": True, "detail": 4}, {"backbone": "mit_b0"}, {"backbone": "timm/test_resnet", "detail": 4}],
    ids=["flat", "pyramid and detail", "mit", "timm and detail"],
)
def test_every_head_takes_every_kind_of_backbone(head: str, model: dict[str, Any]) -> None:
    """Any number of channels, a patch of odd size; and every parameter learns, as DDP needs."""
    network = build_network(configured(head=head, **model), 2, 3)
    logits = network(torch.randn(2, 2, 64, 75))
    assert logits.shape == (2, 3, 64, 75)
    logits.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("size", [(224, 224), (512, 512), (320, 256)])
def test_merged_adapters_give_the_same_logits_at_sizes_that_patch_14_does_not_fit(size: tuple[int, int]) -> None:
    """The network of a prediction has no adapters; those of the checkpoint are added to its weights."""
    pytest.importorskip("peft", reason="LoRA needs peft: pip install 'segwright[lora]'")
    config = configured(lora=True, backbone="dinov2", backbone_size="small")
    with slim("vit_small_patch14_dinov2", VIT), torch.no_grad():
        trained, plain = build_network(config, 3, 2), build_network(config, 3, 2)
        add_adapters(trained, config)
        plain.load_state_dict(stirred(trained).state_dict())
        image = torch.randn(1, 3, *size)
        expected = trained(image)
        assert expected.shape == (1, 2, *size)
        assert (plain.eval()(image) - expected).abs().max() < 1e-5
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
        assert (trained(image) - expected).abs().max() > 1e-3, "the adapters did nothing"


def test_the_sizes_of_a_vit_l_are_printed_as_in_the_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 blocks of r (1024 + 3072) = 786,432 in adapters; the head 4 (1024 + 1) 256 + 4 * 256 * 256 + 2 * 256
    = 1,312,256, and 257 a class."""
    pytest.importorskip("peft", reason="LoRA needs peft: pip install 'segwright[lora]'")
    config = from_plain({})
    monkeypatch.setattr(inject, "_dead", lambda encoder: [])  # without memory for its weights, it cannot run
    with torch.device("meta"):
        network = build_network(config, 3, 2)
        add_adapters(network, config)
    first, _, backbone, head = trainable_parameters(network, detailed=True).splitlines()
    assert first.startswith(f"trainable params: {786_432 + 1_312_256 + 514:,} || all params: 305,178,626")
    assert backbone.split() == ["backbone:", "786,432", "/", "303,865,856", "(0.26%)"]
    assert head.split() == ["decode_head:", "1,312,770", "/", "1,312,770", "(100.00%)"]


def test_the_default_network_computes_what_create_segformer_model_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from segwright.nnunet import model as own

    monkeypatch.setattr(own, "create_encoder", lambda *_, **__: create_encoder("test_vit", pyramid=False))
    model = nnunet.create_segformer_model(num_classes=2, decoder_hidden_size=16, use_lora=False).eval()
    network = build_network(configured(), 3, 2).eval()
    network.backbone.net.vit.load_state_dict(model.backbone.state_dict())
    network.decode_head.load_state_dict(model.decode_head.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(network(image), model(image))


# normalisation


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.save(create_encoder("test_vit", pyramid=False).net.vit.state_dict(), tmp_path / "w.pth")
    return str(tmp_path / "w.pth")


def in_units_of_the_backbone(image: Tensor, network: SegFormerNetwork) -> Tensor:
    mean, std = (torch.tensor(x)[:, None, None] for x in (network.backbone.mean, network.backbone.std))
    return (image - mean) / std


def test_images_in_0_to_1_are_normalised_as_the_pretrained_backbone_expects(weights: str) -> None:
    torch.manual_seed(0)
    folded = build_network(configured(checkpoint_path=weights), 3, 2, [IN_0_1] * 3, fresh=True).eval()
    assert folded.normalises
    plain = build_network(configured(checkpoint_path=weights, fold_mean_std=False), 3, 2, [IN_0_1] * 3, fresh=True)
    plain.load_state_dict(folded.state_dict() | {key: getattr(plain, key) for key in ("mean", "std")})
    again = build_network(configured(), 3, 2)
    again.load_state_dict(folded.state_dict())
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = folded(image)
        torch.testing.assert_close(plain.eval()(in_units_of_the_backbone(image, folded)), expected)
        assert torch.equal(again.eval()(image), expected), "a prediction knows the mean from the checkpoint"


@pytest.mark.parametrize(
    ("channels", "schemes", "model"),
    [
        (3, ["ZScoreNormalization"] * 3, {}),
        (3, [IN_0_1, IN_0_1, "ZScoreNormalization"], {}),
        (1, [IN_0_1], {}),
        (3, [IN_0_1] * 3, {"fold_mean_std": False}),
        (3, [IN_0_1] * 3, {"checkpoint_path": ""}),
    ],
    ids=["z-scored", "mixed", "one channel", "switched off", "random weights"],
)
def test_other_images_keep_nnunets_normalisation(
    weights: str, channels: int, schemes: list[str], model: dict[str, Any]
) -> None:
    config = configured(**({"checkpoint_path": weights} | model))
    assert not build_network(config, channels, 2, schemes, fresh=True).normalises
