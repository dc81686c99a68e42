"""What every head of the catalogue must do, and what single heads promise beyond that."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from segwright.errors import ConfigError
from segwright.heads import HEADS
from segwright.heads.aspp import AsppHead
from segwright.heads.blocks import BatchNormOfAny
from segwright.heads.embedding import EmbeddingHead
from segwright.heads.segformer import SegformerHead
from segwright.heads.upernet import UperNetHead

PYRAMID = ((8, 12, 20, 24), [(16, 24), (8, 12), (4, 6), (2, 3)])
ODD = ((8, 12, 20, 24), [(25, 17), (13, 9), (7, 5), (4, 3)])
"""An image of 100 x 66, each map the half of the one before, rounded up."""
FLAT = ((12, 12, 12, 12), [(7, 5)] * 4)
"""A plain ViT's maps: one stride."""
TWO = ((8, 20), [(12, 9), (3, 2)])
SHAPES = {"pyramid": PYRAMID, "odd": ODD, "flat": FLAT, "two maps": TWO}


def made_maps(channels, sizes, batch=2, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, c, *size, generator=generator).requires_grad_(requires_grad)
        for c, size in zip(channels, sizes, strict=True)
    ]


def made_head(name, channels, num_classes=3, width=16):
    """With batch norms whose running statistics are not the trivial ones."""
    torch.manual_seed(0)
    head = HEADS.build(name, HEADS[name].Config(width=width), channels, num_classes)
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return head


@pytest.fixture(params=sorted(HEADS))
def name(request):
    return request.param


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_have_the_finest_maps_size(name, shape):
    channels, sizes = SHAPES[shape]
    head = made_head(name, channels)
    size = sizes[getattr(head, "level", 0)]
    for mode, batch in itertools.product((True, False), (1, 2)):
        logits = head.train(mode)(made_maps(channels, sizes, batch))
        assert logits.shape == (batch, 3, *size)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("shape", ["pyramid", "odd"])
@pytest.mark.parametrize("mode", [True, False])
def test_a_gradient_reaches_every_parameter_and_every_map_that_is_used(name, shape, mode):
    channels, sizes = SHAPES[shape]
    head = made_head(name, channels).train(mode)
    maps = made_maps(channels, sizes, requires_grad=True)
    head(maps).square().sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert mode or parameter.grad.abs().sum() > 0, key  # training: a bias before a batch norm has a gradient of 0
    used = [maps[0], maps[-1]] if name == "aspp" else maps[getattr(head, "level", 0) :]
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in used)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_written_into_a_view_whose_gradient_would_be_copied_whole(name, shape):
    """PyTorch calls it CopySlices: two copies of a map in the backward pass for each write. Maps are channels-last, as
    encoders give them."""
    channels, sizes = SHAPES[shape]
    maps = made_maps(channels, sizes, requires_grad=True)
    logits = made_head(name, channels).train()([one.contiguous(memory_format=torch.channels_last) for one in maps])
    met, steps = set(), [logits.grad_fn]
    while steps:
        step = steps.pop()
        if step is not None and step not in met:
            met.add(step)
            steps += [before for before, _ in step.next_functions]
    assert not [step.name() for step in met if step.name().endswith("CopySlices")]


@pytest.mark.parametrize("shape", SHAPES)
def test_features_classified_are_the_logits(name, shape):
    channels, sizes = SHAPES[shape]
    head, maps = made_head(name, channels).eval(), made_maps(channels, sizes)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            features = head.features(maps)
            assert features.shape[1] == head.width == 16
            torch.testing.assert_close(head.classifier(features), head(maps), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_the_same_with_and_without_gradients_and_on_any_memory_format(name, shape):
    channels, sizes = SHAPES[shape]
    head, maps = made_head(name, channels).eval(), made_maps(channels, sizes)
    with torch.enable_grad():
        expected = head(maps)
    last = [x.contiguous(memory_format=torch.channels_last) for x in maps]
    for context, given in itertools.product((torch.no_grad, torch.inference_mode), (maps, last)):
        with context():
            torch.testing.assert_close(head(given), expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_autocast_is_near_full_precision(name, mode):
    channels, sizes = ODD
    head, maps = made_head(name, channels).train(mode), made_maps(channels, sizes)
    for module in head.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    with torch.set_grad_enabled(mode):
        expected = head(maps)
        with torch.autocast("cpu", torch.bfloat16):
            logits = head(maps)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("shape", ["pyramid", "odd"])
def test_the_features_can_be_taken_without_a_classifier(name, shape):
    channels, sizes = SHAPES[shape]
    head = made_head(name, channels)
    del head.classifier
    for mode in (True, False):
        with torch.no_grad():
            assert head.train(mode).features(made_maps(channels, sizes)).shape[:2] == (2, 16)


def test_a_width_below_one_is_refused(name):
    with pytest.raises(ConfigError, match=r"head\.width is 0"):
        HEADS[name].Config(width=0)


def test_every_head_builds_from_its_default_config(name):
    config = HEADS[name].Config()
    head = HEADS.build(name, config, (8, 12, 20, 24), 3)
    assert head.width == config.width
    assert dataclasses.is_dataclass(config)


def count(head):
    return sum(p.numel() for p in head.parameters())


def test_parameter_counts_are_the_published_ones():
    """NVlabs' head at 150 classes; mmsegmentation's DepthwiseSeparableASPPHead at 19 and UPerHead at 150 classes."""
    assert count(SegformerHead((32, 64, 160, 256), 150, 256)) == 433_302
    assert count(SegformerHead((64, 128, 320, 512), 150, 256)) == 564_374
    assert count(SegformerHead((64, 128, 320, 512), 150, 768)) == 3_265_686
    assert count(AsppHead((256, 512, 1024, 2048), 19)) == 17_697_923
    assert count(AsppHead((256, 512, 1024, 2048), 19, 256)) == 5_809_027
    assert count(UperNetHead((96, 192, 384, 768), 150)) == 31_497_366


@pytest.mark.parametrize(("side", "rates"), [(32, (6, 12, 18)), (16, (12, 24, 36)), (8, (6, 12, 18)), (4, (6, 12, 18))])
def test_aspp_dilates_by_the_output_stride(side, rates):
    """A finest map of 32 x 32 at stride 4; the coarsest at strides 4 (one size), 8, 16, 32. Given rates stand."""
    derived, given = AsppHead((4, 6), 2, 8).eval(), AsppHead((4, 6), 2, 8, rates).eval()
    given.load_state_dict(derived.state_dict())
    other = AsppHead((4, 6), 2, 8, (1, 2, 3)).eval()
    other.load_state_dict(derived.state_dict())
    maps = made_maps((4, 6), [(32, 32), (side, side)])
    assert torch.equal(derived(maps), given(maps))
    assert not torch.equal(derived(maps), other(maps))


@pytest.mark.parametrize("rates", [(6, 12), (6, 12, 0), (1, 2, 3, 4)])
def test_aspp_refuses_rates_that_are_not_three_dilations(rates):
    with pytest.raises(ConfigError, match=r"head\.rates"):
        HEADS["aspp"].Config(rates=rates)


def test_one_value_per_channel_is_normed_by_the_running_statistics():
    """x 3, mean 1, variance 4, weight 2, bias 5: 2 * (3 - 1) / 2 + 5 = 7; the statistics stay."""
    norm = BatchNormOfAny(1, eps=1e-9).train()
    for tensor, value in ((norm.running_mean, 1), (norm.running_var, 4), (norm.weight, 2), (norm.bias, 5)):
        nn.init.constant_(tensor, value)
    assert norm(torch.full((1, 1, 1, 1), 3.0)).item() == pytest.approx(7, abs=1e-6)
    assert (norm.running_mean.item(), norm.running_var.item()) == (1, 4)
    norm(torch.randn(2, 1, 1, 1))
    assert norm.running_mean.item() != 1


@pytest.mark.parametrize("autocast", [False, True])
def test_an_embedding_has_length_one_in_fp32(autocast):
    head = EmbeddingHead(12, 8).train()
    maps = made_maps((4, 12), [(6, 6), (3, 2)], requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        embedding = head(maps)
    assert embedding.shape == (2, 8, 3, 2)
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2, 3, 2), rtol=0, atol=1e-6)
    embedding[:, 0].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
    assert maps[0].grad is None


def test_an_embedding_takes_one_image_whose_map_is_one_place_and_refuses_no_width():
    assert EmbeddingHead(12).train()(made_maps((12,), [(1, 1)], batch=1)).shape == (1, 256, 1, 1)
    with pytest.raises(ConfigError, match="width is 0"):
        EmbeddingHead(12, 0)
