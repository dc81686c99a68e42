"""Every encoder with every head: the logits have the image's size, and a gradient reaches every parameter."""

import pytest
import torch

from segwright.config.resolve import Choice
from segwright.heads import HEADS
from segwright.model import Config, EncoderConfig, Segmenter, build_model
from slim import SWIN, VIT, slim

NARROW: dict[str, dict] = {
    "test_resnet": {},
    "test_convnext": {},
    "mit_b0": {},
    "mobilenetv3_small_100": {},
    "pvt_v2_b0": {},
    "test_maxvit": {},
    "swin_tiny_patch4_window7_224": SWIN,
    "vit_small_patch14_dinov2": VIT,
    "vit_small_patch14_reg4_dinov2": VIT,
    "vit_small_patch16_dinov3": VIT,
}
"""One of each kind, tiny or made so."""
WHOLE = (
    "resnet50",
    "convnext_tiny",
    "mit_b0",
    "mobilenetv3_small_100",
    "maxvit_tiny_tf_384",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
)
NUM_CLASSES = 3


def built(encoder: str, head: str, **options: int) -> Segmenter:
    torch.manual_seed(0)
    part = Choice(head, HEADS[head].Config(**options))
    return build_model(Config(), EncoderConfig(name=encoder, pretrained=False), part, NUM_CLASSES)


def step(model: Segmenter, size: tuple[int, int]) -> None:
    """Forward and backward on two images: what must hold of every combination."""
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    model.zero_grad(set_to_none=True)
    logits = model.train()(image)
    assert logits.shape == (2, NUM_CLASSES, *size)
    (logits * torch.randn_like(logits)).sum().backward()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
    assert [key for key, gradient in gradients.items() if gradient is None] == []
    assert [key for key, gradient in gradients.items() if not gradient.isfinite().all()] == []
    first = next(iter(gradients))
    assert first.startswith("encoder.")
    assert gradients[first].abs().sum() > 0
    with torch.no_grad():
        assert model.eval()(image[:1]).shape == (1, NUM_CLASSES, *size)


@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("encoder", NARROW)
def test_every_encoder_trains_with_every_head(encoder: str, head: str) -> None:
    with slim(encoder, NARROW[encoder]):
        model = built(encoder, head, width=16)
    for size in ((64, 96), (75, 53)):
        step(model, size)


@pytest.mark.slow
@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("encoder", WHOLE)
def test_every_whole_encoder_trains_with_every_head_of_its_usual_width(encoder: str, head: str) -> None:
    model = built(encoder, head)
    for size in ((128, 160), (101, 75)):
        step(model, size)
