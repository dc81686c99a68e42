"""Weights' licences: known by name before anything is fetched, written down, and refused where they forbid commerce."""

import hashlib
import json

import pytest
import timm
import torch

import segwright
from runs import small
from segwright import checkpoint
from segwright.cli import main
from segwright.encoders import encoder_terms
from segwright.errors import ConfigError
from segwright.pretrained.licences import INSTEAD, PERMISSIVE, refuse_non_commercial, terms_of, weights_record

NVIDIA = "NVIDIA Source Code License for SegFormer (non-commercial)"


@pytest.mark.parametrize(
    ("encoder", "pretrained", "origin", "licence"),
    [
        ("segformer_b0", True, "nvidia/mit-b0", NVIDIA),
        ("mit_b5", "imagenet", "nvidia/mit-b5", NVIDIA),
        ("mit_b5", "ade20k", "nvidia/segformer-b5-finetuned-ade-640-640", NVIDIA),
        ("resnet101", 1, "timm/resnet101.a1h_in1k", "apache-2.0"),
        ("swin_tiny_patch4_window7_224", "true", "timm/swin_tiny_patch4_window7_224.ms_in1k", "mit"),
        ("convnextv2_tiny.fcmae", True, "timm/convnextv2_tiny.fcmae", "cc-by-nc-4.0"),
        ("convnextv2_tiny", "fcmae", "timm/convnextv2_tiny.fcmae", "cc-by-nc-4.0"),
        ("vit_small_patch14_dinov2", True, "timm/vit_small_patch14_dinov2.lvd142m", "apache-2.0"),
        ("vit_small_patch16_dinov3", True, "timm/vit_small_patch16_dinov3.lvd1689m", "dinov3-license"),
        ("retfound", "file.pth", "file.pth", "CC BY-NC 4.0"),
        ("visionfm_oct", "file.pth", "file.pth", "CC BY-NC 4.0"),
        ("resnet18", "file.pth", "file.pth", None),
        ("res2net50d", True, "timm/res2net50d.in1k", None),
    ],
)
def test_origin_and_licence_are_known_by_name(encoder, pretrained, origin, licence):
    terms = terms_of(encoder, pretrained)
    assert terms is not None
    assert (terms.origin, terms.licence) == (origin, licence)


@pytest.mark.parametrize("pretrained", [False, 0, "0", "none", None, ""])
def test_random_weights_have_no_terms_and_nothing_is_refused(pretrained):
    assert encoder_terms("mit_b0", pretrained) is None
    refuse_non_commercial("mit_b0", pretrained, None)


@pytest.mark.parametrize(
    ("encoder", "pretrained", "statement", "why"),
    [
        ("segformer_b2", True, None, "NVIDIA .* forbids commercial use"),
        ("segformer_b2", True, "my own", "NVIDIA .* forbids commercial use"),
        ("segformer_b2", "ade20k", None, "NVIDIA .* forbids commercial use"),
        ("retfound", "file.pth", "mit", "'CC BY-NC 4.0', which forbids commercial use"),
        ("convnextv2_tiny", True, None, "'cc-by-nc-4.0', which forbids commercial use"),
        ("convnext_tiny.eupe_lvd1689m", True, None, "fair-noncommercial-research-license"),
        ("fastvit_mci0.apple_mclip", True, None, "apple-amlr"),
        ("vit_small_patch16_dinov3", True, None, "set encoder.licence='dinov3-license' to keep it"),
        ("vit_small_patch16_dinov3", True, "mit", "set encoder.licence='dinov3-license' to keep it"),
        ("res2net50d", True, None, "nobody states their licence"),
        ("resnet18", "file.pth", None, "a file does not say its licence"),
        ("resnet18", "file.pth", "CC BY-NC-SA 4.0", "'CC BY-NC-SA 4.0', which forbids commercial use"),
    ],
)
def test_what_is_not_free_for_commerce_is_refused_and_a_permissive_one_named(encoder, pretrained, statement, why):
    with pytest.raises(ConfigError, match=why) as caught:
        refuse_non_commercial(encoder, pretrained, statement)
    assert "pvt_v2_b0" in str(caught.value)
    assert "vit_small_patch14_dinov2" in str(caught.value)


@pytest.mark.parametrize(
    ("encoder", "pretrained", "statement"),
    [
        *((name, True, None) for name in INSTEAD),
        ("resnet101", True, None),
        ("vit_small_patch16_dinov3", True, "DINOv3-license"),
        ("resnet18", "file.pth", "MIT"),
        ("mit_b0", "file.pth", "trained by ourselves"),
        ("res2net50d", True, "apache-2.0"),
    ],
)
def test_permissive_weights_and_those_with_a_statement_pass(encoder, pretrained, statement):
    refuse_non_commercial(encoder, pretrained, statement)


def test_the_encoders_named_instead_are_permissive():
    assert all(terms_of(name, True).licence in PERMISSIVE for name in INSTEAD)


def test_the_command_refuses_before_it_reads_or_writes_anything(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["train", "--data", "none", "--commercial"])
    assert left.value.code == 1
    assert "nvidia/mit-b0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_files_checksum_and_the_users_statement_stand_in_the_runs_record(painted, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), file)
    brief = {
        "encoder": {"name": "test_resnet", "pretrained": str(file), "licence": "our own"},
        "train": {"epochs": 1, "freeze_epochs": 0},
        "run": {"output": str(tmp_path / "run"), "commercial": True},
    }
    run = segwright.train(small(painted, tmp_path / "run", **brief))
    expected = {
        "origin": str(file),
        "licence": "our own",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    assert json.loads((run.folder / "training_params.json").read_text())["weights"] == expected
    assert checkpoint.load(run.best)["weights"] == expected
    file.write_bytes(b"another")
    resumed = segwright.train(small(painted, tmp_path / "run", **brief), resume=True)
    assert json.loads((resumed.folder / "training_params.json").read_text())["weights"] == expected


@pytest.mark.slow
def test_random_weights_are_recorded_as_such_whatever_is_stated(finished):
    assert checkpoint.load(finished / "best.pth")["weights"] == {"origin": "random", "licence": None}
    model = segwright.load(finished / "best.pth")
    assert weights_record(model.encoder, "mine") == {"origin": "random", "licence": None}
