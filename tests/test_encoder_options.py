"""Options of `encoder.*`: channels, stochastic depth, gradient checkpointing; what is refused, and how it is said."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import segwright
from runs import small
from segwright import checkpoint
from segwright.config.resolve import Choice
from segwright.encoders import create_encoder
from segwright.errors import ConfigError, WeightsError, nearest
from segwright.heads import HEADS
from segwright.model import Config, EncoderConfig, SegFormerLite, Segmenter, build_model
from segwright.verbs.settings import gather
from slim import VIT, slim

CHECKPOINTED: dict[str, dict] = {
    "mit_b0": {},
    "test_resnet": {},
    "test_convnext": {},
    "mobilenetv3_small_050": {},
    "test_maxvit": {},
    "vit_small_patch14_dinov2": VIT,
    "vit_small_patch16_dinov3": VIT,
}
LARGER = {"test_maxvit", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"}


def built(**options: Any) -> Segmenter:
    detail = options.pop("detail", 0)
    encoder = EncoderConfig(**{"name": "test_resnet", "pretrained": False, **options})
    return build_model(Config(detail=detail), encoder, Choice("lite", HEADS["lite"].Config(width=8)), 2)


def test_the_name_that_is_meant_is_offered() -> None:
    """Letters for figures first; of those that are equally alike, all."""
    known = [f"segformer_b{size}" for size in range(6)]
    assert nearest("segformer_bo", known) == " Did you mean 'segformer_b0'?"
    assert nearest("segformer_bl", known) == " Did you mean 'segformer_b1'?"
    assert nearest("segformer-b2", known) == " Did you mean 'segformer_b2'?"
    assert nearest("segformer_b7", known[:3]) == " Did you mean 'segformer_b0', 'segformer_b1' or 'segformer_b2'?"
    assert nearest("x", ["alpha", "beta"]) == " There are: alpha, beta."
    assert nearest("x", []) == ""


@pytest.mark.parametrize("value", [5, 1.0, -0.1, math.nan, math.inf])
def test_a_drop_path_that_is_no_share_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.drop_path is .*( from 0 to below 1|not a finite number)"):
        gather({"data": {"root": "x"}, "encoder": {"drop_path": value}})
    with pytest.raises(ConfigError, match=r"encoder\.drop_path"):
        create_encoder("mit_b0", drop_path_rate=value)


@pytest.mark.parametrize("value", [0, -3])
def test_an_image_without_channels_is_refused(value: int) -> None:
    with pytest.raises(ConfigError, match=rf"encoder\.in_chans is {value}"):
        gather({"data": {"root": "x"}, "encoder": {"in_chans": value}})
    with pytest.raises(ConfigError, match=r"encoder\.in_chans"):
        SegFormerLite("test_resnet", False, in_ch=value)
    with pytest.raises(ConfigError, match=f"num_classes is {value}"):
        SegFormerLite("test_resnet", False, num_classes=value)


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_other_channels_reach_encoder_detail_path_and_normalisation(channels: int, tmp_path: Path) -> None:
    """And a checkpoint of such a model, with its config, gives the same logits."""
    model = built(in_chans=channels, detail=4).eval()
    image = torch.randn(1, channels, 40, 48)
    assert model(image).shape == (1, 2, 40, 48)
    assert len(model.encoder.mean) == len(model.encoder.std) == channels
    config = {
        "data": {"root": "x"},
        "model": {"detail": 4, "name": None},
        "encoder": {"name": "test_resnet", "in_chans": channels, "pretrained": False},
        "head": {"name": "lite", "width": 8},
    }
    header = {"config": gather(config).dump(), "classes": ["a", "b"], "weights": {"origin": "random", "licence": None}}
    normalisation = {"mean": [0.25] * channels, "std": [0.5] * channels}
    payload = {**header, **normalisation, "model": model.state_dict(), "epoch": 1, "best_iou": 0.5}
    checkpoint.save(tmp_path / "a.pth", payload)
    loaded = segwright.load(tmp_path / "a.pth")
    assert (loaded.encoder.in_channels, loaded.encoder.mean) == (channels, (0.25,) * channels)
    assert torch.equal(loaded(image), model(image))


def test_train_refuses_channels_that_images_do_not_have(painted: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.in_chans is 4, but images are read as RGB.*SegFormerLite"):
        segwright.train(small(painted, tmp_path / "run", encoder={"in_chans": 4}))
    assert not (tmp_path / "run").exists()


def test_an_unknown_encoder_is_a_problem_of_the_configuration() -> None:
    with pytest.raises(
        ConfigError, match=r"the configuration has problems:\n  - .*'convnex_tiny'. Did you mean 'convnext_tiny'"
    ):
        gather({"data": {"root": "x"}, "encoder": {"name": "convnex_tiny"}})


def test_options_reach_the_encoder_from_the_config() -> None:
    model = built(name="mit_b0", grad_checkpointing=True, drop_path=0.25)
    assert model.encoder.net.model.grad_checkpointing
    assert model.encoder.net.model.block4[1].drop_path.drop_prob == 0.25
    assert built(name="test_maxvit", image_size=224).encoder.whole_px == (224, 224)
    with pytest.raises(ConfigError, match=r"grad_checkpointing is true, but the encoder 'hrnet_w18_small' has no"):
        built(name="hrnet_w18_small", grad_checkpointing=True)


def stepped(encoder: nn.Module, image: torch.Tensor) -> tuple[dict, dict, int]:
    """Gradients, what is not learned (statistics), and bytes kept for the backward pass, of one step."""
    kept: dict[int, int] = {}
    torch.manual_seed(3)
    encoder.zero_grad()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = sum(x.square().mean() for x in encoder(image))
    loss.backward()
    gradients = {key: p.grad.clone() for key, p in encoder.named_parameters()}
    return gradients, {key: tensor.clone() for key, tensor in encoder.named_buffers()}, sum(kept.values())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGER else name for name in CHECKPOINTED]
)
def test_checkpointing_changes_neither_gradients_nor_statistics_and_keeps_less(name: str) -> None:
    """With stochastic depth: what is computed again must drop the same blocks; a batch norm must count a batch once."""
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        with slim(name, CHECKPOINTED[name]):
            encoder = create_encoder(name, checkpointing=checkpointing, drop_path_rate=0.3).train()
        stepped(encoder, torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(1)))
        found.append(stepped(encoder, torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(2))))
    (gradients, buffers, kept), (again, buffers_again, kept_again) = found
    for key, gradient in gradients.items():
        torch.testing.assert_close(again[key], gradient, rtol=1e-5, atol=1e-6, msg=key)
    for key, buffer in buffers.items():
        torch.testing.assert_close(buffers_again[key], buffer, rtol=1e-6, atol=1e-7, msg=key)
    assert kept_again < 0.8 * kept


def test_a_checkpoint_of_another_width_says_which_keys_and_shapes(tmp_path: Path) -> None:
    model, wider = (
        built(),
        build_model(
            Config(),
            EncoderConfig(name="test_resnet", pretrained=False),
            Choice("lite", HEADS["lite"].Config(width=9)),
            2,
        ),
    )
    with pytest.raises(WeightsError, match=r"classifier\.weight \(2, 8, 1, 1\) instead of \(2, 9, 1, 1\)"):
        checkpoint.load_weights(wider, {"model": model.state_dict()}, tmp_path / "best.pth")
