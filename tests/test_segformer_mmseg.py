"""mmsegmentation's SegFormer head is its function in every mode; its whole checkpoints go in and out without loss."""

import copy
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import segwright
from runs import small
from segwright import Segmenter
from segwright.cli import main
from segwright.encoders import layouts
from segwright.errors import ConfigError, WeightsError
from segwright.heads import summing
from segwright.heads.segformer_mmseg import Config, SegformerMmsegHead
from segwright.heads.segformer_weights import MMSEG, from_head, to_head
from segwright.model import build_model
from segwright.pretrained.licences import weights_record
from segwright.verbs.settings import Settings, gather
from stirring import stirred

CHANNELS = (32, 64, 160, 256)
SQUARE = [(32, 32), (16, 16), (8, 8), (4, 4)]
ODD = [(63, 42), (32, 21), (16, 11), (8, 6)]
"""A Mix Transformer's maps of a 250 x 167 image."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Block(nn.Module):
    """1x1 convolution without bias, batch norm, ReLU, under mmcv's names."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Plain(nn.Module):
    """The head as it is described: each map through its block, enlarged, concatenated, fused, classified."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Block(c, width) for c in CHANNELS)
        self.fusion_conv = Block(4 * width, width)
        self.conv_seg = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        blocks = (block(x) for block, x in zip(self.convs, maps, strict=True))
        size = maps[0].shape[2:]
        enlarged = [F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in blocks]
        return self.conv_seg(self.fusion_conv(torch.cat(enlarged, dim=1)))


def made_maps(sizes: list, dtype: torch.dtype = torch.float32, requires_grad: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, c, *size, generator=generator).to(dtype).requires_grad_(requires_grad)
        for c, size in zip(CHANNELS, sizes, strict=True)
    ]


def pair(num_classes: int = 5, width: int = 32, dtype: torch.dtype = torch.float32) -> tuple[Plain, SegformerMmsegHead]:
    """The plain head, stirred, and ours with its weights, without dropout."""
    torch.manual_seed(0)
    plain = stirred(Plain(num_classes, width))
    ours = SegformerMmsegHead(CHANNELS, num_classes, width, dropout=0.0)
    ours.load_state_dict(to_head(plain.state_dict(), ours.state_dict()))
    return plain.to(dtype), ours.to(dtype)


def keep_from_zero(head: nn.Module) -> None:
    """Half the channels before each ReLU far above 0 and half far below: in fp32, rounding would decide gradients."""
    for norm in (m for m in head.modules() if isinstance(m, nn.BatchNorm2d)):
        sign = torch.tensor([1.0, -1.0]).repeat(len(norm.bias) // 2)
        with torch.no_grad():
            norm.bias.copy_(8 * sign * norm.weight.abs().clamp(min=0.5))


@pytest.mark.parametrize("sizes", [SQUARE, ODD], ids=["128x128", "250x167"])
@pytest.mark.parametrize(("num_classes", "width"), [(1, 32), (19, 256)])
def test_evaluation_equals_the_plain_form(sizes: list, num_classes: int, width: int) -> None:
    plain, ours = (head.eval() for head in pair(num_classes, width))
    maps = made_maps(sizes)
    with torch.no_grad():
        expected = plain(maps)
        scale = max(1.0, float(expected.abs().max()))
        folded = ours(maps)
    assert (folded - expected).abs().max() <= 1e-5 * scale
    assert (ours(maps) - expected).abs().max() <= 1e-5 * scale  # with gradients: nothing folded


def test_strips_of_any_height_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, ours = (head.eval() for head in pair())
    maps = made_maps(ODD)
    with torch.no_grad():
        expected = plain(maps)
        for size in (1, 3 * 42 * 32 * 4, summing.STRIP_BYTES):  # 1 row, 3 rows, 8 rows of 63
            monkeypatch.setattr(summing, "STRIP_BYTES", size)
            assert (ours(maps) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("sizes", [SQUARE, ODD], ids=["128x128", "250x167"])
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 3e-4), (torch.float64, 1e-11)], ids=["fp32", "fp64"])
def test_logits_gradients_and_statistics_equal_the_plain_form(
    sizes: list, mode: bool, dtype: torch.dtype, near: float
) -> None:
    plain, ours = (head.train(mode) for head in pair(dtype=dtype))
    if dtype == torch.float32:
        keep_from_zero(plain)
        keep_from_zero(ours)
    maps, same = made_maps(sizes, dtype, True), made_maps(sizes, dtype, True)
    expected, logits = plain(maps), ours(same)
    torch.testing.assert_close(logits, expected, rtol=near / 10, atol=near / 10)
    gradient = torch.randn_like(expected, memory_format=torch.contiguous_format)
    expected.backward(gradient)
    logits.backward(gradient)
    found = {MMSEG.name(key, "", 4): p.grad for key, p in ours.named_parameters()}
    wanted = {key: p.grad for key, p in plain.named_parameters()}
    assert found.keys() == wanted.keys()
    found |= {f"map {i}": x.grad for i, x in enumerate(same)}
    wanted |= {f"map {i}": x.grad for i, x in enumerate(maps)}
    for key, gradient in wanted.items():
        scale = wanted[key.replace("bn.bias", "bn.weight")].abs().max()  # a bias before a batch norm: 0 in training
        assert (found[key] - gradient).abs().max() <= near * scale, key
    there, here = plain.state_dict(), ours.state_dict()
    for key in (key for key in there if key.endswith(STATISTICS)):
        torch.testing.assert_close(here[key], there[key], rtol=1e-5, atol=near / 10)


def test_after_training_steps_evaluation_still_equals_the_plain_form() -> None:
    heads = pair(dtype=torch.float64)
    optimizers = [torch.optim.SGD(head.parameters(), lr=0.01) for head in heads]
    maps = made_maps(SQUARE, torch.float64)
    for _ in range(3):
        for head, optimizer in zip(heads, optimizers, strict=True):
            optimizer.zero_grad()
            head.train()(maps).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            expected, logits = (head.eval()(maps) for head in heads)
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


def test_dropout_is_that_of_the_maps_channels() -> None:
    head = pair()[1].train()
    head.dropout.p = 0.5
    maps = made_maps(SQUARE)
    torch.manual_seed(3)
    logits = head(maps)
    torch.manual_seed(3)
    features = head.features(maps)
    torch.testing.assert_close(logits, head.classifier(features), rtol=1e-5, atol=1e-5)
    assert 0.2 < (features == 0).all(dim=(2, 3)).float().mean() < 0.8


def test_one_image_whose_coarsest_map_is_one_place_trains() -> None:
    """The map's norm has no variance to take, and takes its running one."""
    head = SegformerMmsegHead(CHANNELS, 3, 16).train()
    maps = [torch.randn(1, c, side, side) for c, side in zip(CHANNELS, (8, 4, 2, 1), strict=True)]
    assert torch.isfinite(head(maps)).all()


@pytest.mark.parametrize("wrong", [{"dropout": 1.0}, {"dropout": -0.1}, {"width": 0}])
def test_a_wrong_dropout_or_width_is_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=rf"head\.{next(iter(wrong))} is"):
        Config(**wrong)


def test_the_names_are_mmsegmentations_but_for_the_classifier() -> None:
    plain, ours = pair()
    named = from_head(ours.state_dict(), MMSEG)
    assert list(named) == list(plain.state_dict())
    assert {key for key in ours.state_dict() if key not in named} == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(named[key], tensor) for key, tensor in plain.state_dict().items())


def settings(**sections) -> Settings:
    brief = {"encoder": {"name": "mit_b0"}, "head": {"name": "segformer_mmseg"}, "data": {"root": "somewhere"}}
    return gather(brief | sections)


def built(path: Path | bool, num_classes: int = 3, head: str = "segformer_mmseg", **options) -> Segmenter:
    s = settings(encoder={"name": "mit_b0", "pretrained": path and str(path)}, head={"name": head, **options})
    return build_model(s.model, s.encoder, s.head, num_classes)


@pytest.fixture(scope="module")
def whole() -> Segmenter:
    torch.manual_seed(3)
    return stirred(built(False)).eval()


def in_mmsegs_layout(model: Segmenter) -> dict[str, Tensor]:
    encoder = layouts.from_mit(model.encoder.net.model.state_dict(), layouts.MMSEG, "backbone.")
    return encoder | from_head(model.head.state_dict(), MMSEG, "decode_head.")


@pytest.fixture(scope="module")
def file(whole: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As mmsegmentation saves it, with a head for its auxiliary loss, whose names are like ours."""
    path = tmp_path_factory.mktemp("mmseg") / "segformer_mit-b0.pth"
    beside = {"auxiliary_head.convs.0.conv.weight": torch.zeros(4, 160, 3, 3)}
    torch.save({"meta": {"epoch": 3}, "state_dict": beside | in_mmsegs_layout(whole)}, path)
    return path


def test_a_whole_checkpoint_goes_there_and_back_without_loss(file: Path, whole: Segmenter) -> None:
    model = built(file)
    assert model.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in whole.state_dict().items())
    saved = torch.load(file)["state_dict"]
    named = in_mmsegs_layout(model)
    assert named.keys() == {key for key in saved if not key.startswith("auxiliary_head.")}
    assert all(torch.equal(tensor, saved[key]) for key, tensor in named.items())


def test_origin_checksum_and_the_stated_licence_are_recorded(file: Path) -> None:
    record = weights_record(built(file).encoder, "our own")
    assert (record["origin"], record["licence"], len(record["sha256"])) == (str(file), "our own", 64)


def test_a_classifier_for_other_classes_starts_anew(
    file: Path, whole: Segmenter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = built(file, num_classes=7)
    assert model.head.classifier.weight.shape[0] == 7
    assert torch.equal(model.head.fusion_conv.bn.running_var, whole.head.fusion_conv.bn.running_var)
    assert "classifies 3 classes and this model 7, so the classifier starts anew" in caplog.text


def test_what_does_not_fit_is_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"decode_head.convs.0.conv.weight \(256, 32, 1, 1\) instead of \(64, 32, 1"):
        built(file, width=64)
    tensors = torch.load(file)["state_dict"]
    tensors["decode_head.convs.4.conv.weight"] = tensors.pop("decode_head.convs.3.conv.weight")
    torch.save(tensors, tmp_path / "renamed.pth")
    with pytest.raises(WeightsError) as caught:
        built(tmp_path / "renamed.pth")
    assert "1 missing: decode_head.convs.3.conv.weight" in str(caught.value)
    assert "1 not known: decode_head.convs.4.conv.weight" in str(caught.value)


def test_the_published_head_leaves_its_weights_and_names_the_right_head(
    file: Path, whole: Segmenter, caplog: pytest.LogCaptureFixture
) -> None:
    model = built(file, head="segformer")
    assert "only the encoder is taken from it" in caplog.text
    assert "Set head.name: segformer_mmseg" in caplog.text
    assert torch.equal(model.encoder.net.model.norm4.weight, whole.encoder.net.model.norm4.weight)
    assert model.encoder.origin == str(file)


def test_ade20k_which_is_of_the_published_head_is_refused() -> None:
    with pytest.raises(ConfigError, match="this is mit_b0 with the head 'segformer_mmseg'"):
        built("ade20k")


def test_a_copy_computes_the_same(whole: Segmenter) -> None:
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(whole)(image), whole(image))


@pytest.mark.slow
def test_a_run_starts_from_the_file_and_its_export_to_hugging_face_is_refused(
    file: Path, painted: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    brief = {
        "encoder": {"name": "mit_b0", "pretrained": str(file)},
        "head": {"name": "segformer_mmseg", "width": 256},
        "train": {"epochs": 1, "freeze_epochs": 0},
        "run": {"output": str(tmp_path / "run")},
    }
    run = segwright.train(small(painted, tmp_path / "run", **brief))
    assert segwright.load(run.best).head.width == 256
    with pytest.raises(SystemExit) as left:
        main(["export", "--weights", str(run.best), "--format", "hf", "--output", str(tmp_path / "out")])
    assert left.value.code == 1
    assert "the head is segformer_mmseg" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
