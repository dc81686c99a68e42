"""LoRA as a part of a run: what moves, what is saved, and that every verb takes the weights."""

import json

import pytest
import timm
import torch

import segwright
from runs import ending_at, same, small, weights_of
from segwright import checkpoint, lora
from segwright.encoders import create_encoder, get_vit_features
from segwright.errors import ConfigError
from segwright.model import SegFormerLite, build_model, is_encoder
from segwright.training.freeze import begin_epoch
from segwright.training.optim import Config as OptimConfig
from segwright.training.optim import build_optimizer
from segwright.verbs import export as verb
from segwright.verbs.merge import with_adapters
from segwright.verbs.settings import gather

pytestmark = pytest.mark.slow

pytest.importorskip("peft", reason="LoRA needs peft: pip install 'segwright[lora]'")


def adapted(painted, folder, vit, **sections):
    """The config of a run with adapters in a tiny ViT whose weights are in a file."""
    sections = {
        "encoder": {"name": "test_vit", "pretrained": str(vit)},
        "lora": {"enabled": True, "r": 4, "lora_alpha": 8},
        **sections,
    }
    return small(painted, folder, **sections)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A file of weights for `test_vit`."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("vit") / "vit.pth"
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def run(painted, vit, tmp_path_factory):
    return segwright.train(adapted(painted, tmp_path_factory.mktemp("lora") / "whole", vit))


def test_the_encoders_own_weights_stay_and_adapters_pyramid_and_head_move(run, vit):
    end, start = weights_of(run.folder), torch.load(vit)
    for name, tensor in start.items():
        name = f"encoder.net.vit.{name}"
        kept = end.get(name, end.get(name.replace("qkv.", "qkv.base_layer.")))
        assert torch.equal(kept, tensor), name
    ups = [tensor for name, tensor in end.items() if "lora_B" in name]
    assert len(ups) == 6
    assert all(tensor.any() for tensor in ups)
    assert [row["frozen"] for row in run.rows] == [1, 0, 0, 0]


def test_the_log_counts_what_trains_and_file_weights_are_no_cause_to_warn(run):
    log = (run.folder / "train.log").read_text()
    assert "trainable params: " in log
    assert f"  encoder:      {6 * 4 * (64 + 192) + pyramid():>12,} /" in log
    assert "RANDOM" not in log


def pyramid() -> int:
    return sum(p.numel() for p in create_encoder("test_vit").net.pyramid.parameters())


def test_a_stopped_run_with_adapters_ends_with_the_same_weights(run, painted, vit, tmp_path, caplog):
    with ending_at(8):
        segwright.train(adapted(painted, tmp_path / "cut", vit))
    resumed = segwright.train(adapted(painted, tmp_path / "cut", vit), resume=True)
    assert same(weights_of(run.folder), weights_of(resumed.folder))
    assert same(weights_of(run.folder, "best.pth"), weights_of(resumed.folder, "best.pth"))
    assert "RANDOM" not in caplog.text


@torch.no_grad()
def test_a_loaded_model_is_plain_needs_no_peft_and_gives_the_same_logits(run, monkeypatch):
    payload = checkpoint.load(run.best)
    beside, without = with_adapters(payload, gather(payload["config"]), run.best), without_adapters(payload)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    plain = segwright.load(run.best)
    assert not [name for name in plain.state_dict() if "lora" in name or "base_layer" in name]
    image = torch.randn(2, 3, 64, 96)
    assert (plain(image) - beside(image)).abs().max() < 1e-5
    assert (plain(image) - without(image)).abs().max() > 1e-4, "the adapters have no effect"
    assert plain.encoder.origin == beside.encoder.origin == payload["weights"]["origin"]


def without_adapters(payload):
    model = with_adapters(payload, gather(payload["config"]), "")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.zero_()
    return model


def test_evaluate_and_infer_take_a_checkpoint_with_adapters(run, painted, tmp_path):
    assert segwright.evaluate(run.best, output=tmp_path)["num_images"] == 3
    assert len(segwright.infer(run.best, painted / "test", tmp_path / "m").written) == 3


@torch.no_grad()
def test_adapters_alone_give_the_trained_vit_again(run, vit):
    path = run.folder / "adapters.safetensors"
    assert path.stat().st_size < 6 * 4 * (64 + 192) * 4 + 4000  # 6 blocks, rank 4, 4 bytes each, and the header
    fresh, trained = SegFormerLite("test_vit", pretrained=str(vit)).eval(), segwright.load(run.best)
    image, blocks = torch.randn(1, 3, 64, 96), (0, 2, 3, 5)

    def features(model):
        return torch.stack(get_vit_features(model.encoder.net.vit, image, blocks))

    assert (features(fresh) - features(trained)).abs().max() > 1e-3
    lora.load_adapters(fresh, path)
    torch.testing.assert_close(features(fresh), features(trained), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_merged_export_has_no_adapters_and_says_how_equal_it_is(run, tmp_path, monkeypatch):
    monkeypatch.setattr(verb, "SIZES", ((64, 96), (61, 47)))
    done = segwright.export(run.best, tmp_path / "out", "merged")
    assert [row["max_abs_difference"] < 1e-5 for row in done.certificate["sizes"]] == [True] * 3
    assert json.loads((tmp_path / "out" / "certificate.json").read_text())["format"] == "merged"
    payload = checkpoint.load(tmp_path / "out" / "merged.pth")
    assert not payload["config"]["lora"]["enabled"]
    assert "optimizer" not in payload
    merged, image = segwright.load(tmp_path / "out" / "merged.pth"), torch.randn(1, 3, 64, 96)
    assert torch.equal(merged(image), segwright.load(run.best)(image))
    with pytest.raises(ConfigError, match="nothing to merge"):
        segwright.export(tmp_path / "out" / "merged.pth", tmp_path / "again", "merged")


def test_a_segformer_with_adapters_goes_to_transformers_merged(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(verb, "SIZES", ((64, 96),))
    targets = {"enabled": True, "target_modules": ["attn.q", "attn.kv", "mlp.fc2"]}
    values = {"model": {"name": "segformer_b0"}, "encoder": {"pretrained": False}, "lora": targets}
    settings = gather({**values, "data": {"root": "x"}, "input": {"size": [64, 96]}})
    model = build_model(settings.model, settings.encoder, settings.head, 2)
    lora.apply(model, settings.lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    payload = {"model": model.state_dict(), "config": settings.dump(), "classes": ["wall", "crack"]}
    checkpoint.save(tmp_path / "best.pth", payload | {"mean": [0.5] * 3, "std": [0.2] * 3, "weights": {}})
    certificate = segwright.export(tmp_path / "best.pth", tmp_path / "hf").certificate
    assert certificate["compared"]
    assert all(row["max_abs_difference_with_equal_epsilons"] < 1e-4 for row in certificate["sizes"])


def test_freezing_moves_the_adapters_alone():
    model = SegFormerLite("test_resnet", pretrained=False)
    lora.enable_lora(model, r=2, targets=["conv2"])
    adapters = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert adapters

    def trains() -> set[str]:
        return {name for name, p in model.named_parameters() if p.requires_grad and is_encoder(name)}

    assert begin_epoch(model, 0, 1)
    assert trains() == set()
    assert not begin_epoch(model, 1, 1)
    assert trains() == adapters
    norms = [m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms), "statistics that no adapter holds would move"
    assert model.encoder.net.training
    assert all(m.training for m in model.head.modules())


def test_the_encoders_group_is_its_adapters():
    model = SegFormerLite("test_vit", pretrained=False)
    lora.enable_lora(model)
    head, encoder = build_optimizer(model, OptimConfig(lr=0.01, lr_encoder=0.002)).param_groups
    assert {id(p) for p in encoder["params"]} == {id(p) for n, p in model.named_parameters() if "lora_" in n}
    assert all(p.requires_grad for p in head["params"])
    assert sum(p.numel() for p in head["params"]) == sum(p.numel() for p in model.head.parameters()) + pyramid()


def test_lora_beside_a_frozen_encoder_and_values_that_cannot_be_are_refused(tmp_path):
    values = {"data": {"root": str(tmp_path)}, "lora": {"enabled": True}, "train": {"freeze_encoder": True}}
    with pytest.raises(ConfigError, match=r"lora.enabled and train.freeze_encoder are both true"):
        gather(values)
    with pytest.raises(ConfigError, match="r is 0"):
        gather({"data": {"root": str(tmp_path)}, "lora": {"r": 0}})
    defaults = gather({"data": {"root": str(tmp_path)}}).dump()["lora"]
    assert defaults == {
        "enabled": False,
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "target_modules": ["qkv"],
    }


def test_targets_that_fit_no_layer_stop_the_run_and_name_those_there_are(painted, tmp_path, vit):
    wrong = {"lora": {"enabled": True, "target_modules": ["query"]}}
    with pytest.raises(ConfigError, match=r"no layer's name ends with 'query'.*There are: .*attn\.qkv"):
        segwright.train(adapted(painted, tmp_path / "r", vit, **wrong))
    assert not (tmp_path / "r").exists()


def test_a_run_without_adapters_writes_none(finished):
    assert not (finished / "adapters.safetensors").exists()
    assert "trainable params" not in (finished / "train.log").read_text()
