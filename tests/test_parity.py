"""Whole SegFormers beside transformers and segmentation_models.pytorch: logits, gradients, statistics, weights.

The peers' epsilons are set to the published ones. Without dropout and stochastic depth, which are drawn differently.
"""

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from segwright.encoders import create_encoder, layouts
from segwright.encoders.mit_variants import VARIANTS
from segwright.heads import segformer_weights
from segwright.heads.segformer import SegformerHead
from segwright.model import Segmenter
from segwright.pretrained import WIDTHS, Whole
from stirring import stirred

BLOCK_NORMS = ("layernorm_before", "layernorm_after", "layer_norm")
WITHOUT_EFFECT = ("norm4.bias", "linear_c.0.proj.bias", *(f"linear_c.{level}.proj.bias" for level in (1, 2, 3)))
"""In training a batch norm takes away what these add, so that their gradient is 0 but for rounding."""

LARGEST_FP64_PX = 128
SMALL = [("mit_b0", 5, (125, 84)), ("mit_b0", 5, (64, 64))]
LARGE = [
    pytest.param(name, classes, size, marks=pytest.mark.slow)
    for name in ("mit_b0", "mit_b2")
    for classes in (19, 150)
    for size in ((512, 512), (500, 333))
] + [pytest.param("mit_b2", 19, (125, 84), marks=pytest.mark.slow)]


def of_transformers(name: str, classes: int) -> nn.Module:
    torch.manual_seed(0)
    variant = VARIANTS[name]
    config = SegformerConfig(
        hidden_sizes=list(variant["widths"]),
        depths=list(variant["depths"]),
        decoder_hidden_size=WIDTHS[name],
        num_labels=classes,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
    )
    model = stirred(SegformerForSemanticSegmentation(config))
    for key, module in model.named_modules():
        in_block = key.endswith(BLOCK_NORMS) and "patch_embeddings" not in key and "sequence_reduction" not in key
        if isinstance(module, nn.LayerNorm) and in_block:
            module.eps = 1e-6
    return model


def of_smp(name: str, classes: int) -> nn.Module:
    """Its last resize aligns corners, as nobody else's does: left out."""
    torch.manual_seed(0)
    model = smp.Segformer(name, encoder_weights=None, classes=classes, decoder_segmentation_channels=256)
    model.segmentation_head = nn.Sequential(model.segmentation_head[0])
    for module in model.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    return stirred(model)


def ours(name: str, tensors: dict[str, Tensor], classes: int, width: int) -> Segmenter:
    encoder = create_encoder(name, drop_path_rate=0.0)
    head = SegformerHead(encoder.channels, classes, width, dropout=0.0)
    Whole(dict(tensors), "a peer").fill(encoder, head)
    return Segmenter(encoder, head)


def gradients(model: nn.Module, name: str, classes: int, width: int) -> dict[str, Tensor]:
    """A peer's gradients by our names: loaded as weights are."""
    tensors = {key: p.grad for key, p in model.named_parameters()}
    tensors |= {key: torch.zeros_like(b) for key, b in model.state_dict().items() if "running" in key}
    tensors |= {key: torch.tensor(0) for key in model.state_dict() if key.endswith("num_batches_tracked")}
    return dict(ours(name, tensors, classes, width).named_parameters())


def of_head(model: nn.Module) -> nn.BatchNorm2d:
    (norm,) = (module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    return norm


def keep_from_zero(norm: nn.BatchNorm2d) -> None:
    """Half the channels far above 0 and half far below."""
    sign = torch.tensor([1.0, -1.0]).repeat(len(norm.bias) // 2)
    with torch.no_grad():
        norm.bias.copy_(8 * sign * norm.weight)


def compare_training(theirs: nn.Module, name: str, classes: int, size: tuple[int, int], width: int) -> None:
    """fp64 first, at small sizes. In fp32 rounding would decide ReLUs near 0: the batch norm keeps away from there."""
    precisions = ((torch.float64, 1e-11, 1e-6), (torch.float32, 1e-5, 1e-4))
    for dtype, near_logits, near in precisions[max(size) > LARGEST_FP64_PX :]:
        theirs = theirs.to(dtype).train()
        if dtype == torch.float32:
            keep_from_zero(of_head(theirs))
        model = ours(name, theirs.state_dict(), classes, width).to(dtype).train()
        image = torch.randn(2, 3, *size, dtype=dtype)
        expected, logits = theirs(image), model(image, resize=False)
        expected = getattr(expected, "logits", expected)
        scale = max(1.0, float(expected.detach().abs().max()))
        assert (logits - expected).abs().max() <= near_logits * scale
        towards = torch.randn_like(expected, memory_format=torch.contiguous_format)
        theirs.zero_grad()
        expected.backward(towards)
        logits.backward(towards)
        wanted = gradients(theirs, name, classes, width)
        for key, parameter in model.named_parameters():
            gradient = wanted[key].detach().to(dtype)
            weight = wanted[key.replace("bias", "weight")].detach()
            if key.endswith(WITHOUT_EFFECT):
                assert max(gradient.abs().max(), parameter.grad.abs().max()) <= near * weight.abs().max(), key
            else:
                assert (parameter.grad - gradient).abs().max() <= near * gradient.abs().max(), key
        found, known = of_head(model), of_head(theirs)
        torch.testing.assert_close(found.running_mean, known.running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.running_var, known.running_var, rtol=1e-5, atol=1e-6)
        assert found.num_batches_tracked == known.num_batches_tracked


@pytest.mark.parametrize(("name", "classes", "size"), SMALL + LARGE)
@torch.no_grad()
def test_evaluation_equals_transformers(name: str, classes: int, size: tuple[int, int]) -> None:
    theirs = of_transformers(name, classes).eval()
    model = ours(name, theirs.state_dict(), classes, WIDTHS[name]).eval()
    image = torch.randn(1, 3, *size)
    expected = theirs(image).logits
    assert expected.shape[2:] == tuple(-(-side // 4) for side in size)
    assert (model(image, resize=False) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(("name", "classes", "size"), SMALL[1:] + LARGE)
def test_training_equals_transformers(name: str, classes: int, size: tuple[int, int]) -> None:
    compare_training(of_transformers(name, classes), name, classes, size, WIDTHS[name])


@pytest.mark.parametrize(
    ("name", "size"), [("mit_b0", (64, 96)), pytest.param("mit_b2", (256, 256), marks=pytest.mark.slow)]
)
def test_evaluation_and_training_equal_segmentation_models_pytorch(name: str, size: tuple[int, int]) -> None:
    """It takes multiples of 32 pixels alone, and its head is 256 wide for every encoder."""
    theirs = of_smp(name, 7).eval()
    model = ours(name, theirs.state_dict(), 7, 256).eval()
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected = theirs(image)
        assert (model(image, resize=False) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    compare_training(theirs, name, 7, size, 256)


def in_names(
    model: Segmenter, encoder: layouts.Layout, prefix: str, head: segformer_weights.Layout, below: str
) -> dict:
    """Our weights by foreign names."""
    tensors = layouts.from_mit(model.encoder.net.model.state_dict(), encoder, prefix)
    return tensors | segformer_weights.from_head(model.head.state_dict(), head, below)


@torch.no_grad()
def test_our_weights_load_strictly_into_transformers_and_smp_and_compute_the_same(tmp_path: Path) -> None:
    """In transformers' names in memory, in those of its files, and in SMP's."""
    model = ours("mit_b0", of_transformers("mit_b0", 4).state_dict(), 4, 256).eval()
    image = torch.randn(1, 3, 96, 64)
    expected = model(image, resize=False)
    in_memory = SegformerForSemanticSegmentation(SegformerConfig(num_labels=4)).eval()
    named = in_names(model, layouts.TRANSFORMERS, "segformer.", segformer_weights.TRANSFORMERS, "decode_head.")
    in_memory.load_state_dict(named, strict=True)
    model.save_pretrained(tmp_path)
    from_file, report = SegformerForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    for theirs in (in_memory, from_file.eval()):
        assert (theirs(image).logits - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))
    of_others = of_smp("mit_b0", 4).eval()
    of_others.load_state_dict(in_names(model, layouts.NVLABS, "encoder.", segformer_weights.SMP, ""), strict=True)
    assert (of_others(image) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
