"""Weights that are rounded once give what autocast gives that rounds them in every call."""

from collections import Counter
from pathlib import Path

import pytest
import torch

import segwright
from runs import small
from segwright.encoders import create_encoder
from segwright.engine.rounding import round_weights
from segwright.heads import HEADS
from segwright.model import Segmenter
from segwright.verbs.loading import load_model
from segwright.verbs.peers import Design
from segwright.verbs.workload import Load, count_macs, prepare
from slim import VIT, slim

NETS = {
    "mit_b0": None,
    "vit_small_patch14_dinov2": VIT,
    "vit_small_patch16_dinov3_qkvb": VIT,
    "resnet18": None,
}


def made(name: str) -> Segmenter:
    torch.manual_seed(0)
    with slim(name, NETS[name] or {}):
        encoder = create_encoder(name)
    head = HEADS.part("segformer")
    model = Segmenter(encoder, head.build(head.Config(width=32), encoder.channels, 5))
    return model.to(memory_format=torch.channels_last).eval()


def logits(model: Segmenter, dtype: torch.dtype) -> torch.Tensor:
    image = torch.randn(1, 3, 70, 97, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        return model(image)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("word", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_the_logits_are_the_same_to_the_last_bit(name: str, word: str, dtype: torch.dtype) -> None:
    model = made(name)
    before = logits(model, dtype)
    round_weights(model, word)
    assert torch.equal(logits(model, dtype), before)
    kinds = Counter(p.dtype for p in model.encoder.parameters())
    assert (dtype in kinds) == (name != "resnet18"), "other nets of timm may use their weights for more"
    assert {p.dtype for p in model.head.parameters()} == {torch.float32}, "the head multiplies weights with each other"


def test_in_full_precision_nothing_is_rounded() -> None:
    model = made("mit_b0")
    round_weights(model, "no")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_bench_counts_and_runs_a_model_of_ours_as_predictions_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same arithmetic in half precision as in full, and weights of half the size."""
    monkeypatch.setattr("segwright.engine.precision.cpu_has_bf16", lambda: True)
    load = Load(Design("mit_b0", "segformer", 32, 3), size=64, device="cpu", own_defaults=True, amp=True)
    model = made("mit_b0")
    full = count_macs(model, Load(load.design, size=64, device="cpu"))
    prepare(model, load)()
    assert next(model.encoder.parameters()).dtype == torch.bfloat16
    assert count_macs(model, load) == full


def test_a_loaded_model_predicts_with_rounded_weights_what_it_predicts_without(
    painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segwright.engine.precision.cpu_has_bf16", lambda: True)
    sections = {"encoder": {"name": "mit_b0"}, "train": {"epochs": 1, "freeze_epochs": 0, "amp": True}}
    run = segwright.train(small(painted, tmp_path / "run", **sections))
    image = torch.randint(0, 255, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rounded = load_model(run.best)
    assert next(rounded.model.encoder.parameters()).dtype == torch.bfloat16
    monkeypatch.setattr("segwright.verbs.loading.round_weights", lambda *_: None)
    assert torch.equal(rounded.predictor.logits(image), load_model(run.best).predictor.logits(image))
