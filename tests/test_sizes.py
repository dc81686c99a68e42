"""Encoders with windows at any size of image: padded to what these need, and said; tables of positions resized."""

import logging
from pathlib import Path

import pytest
import timm
import torch

from segwright.encoders import Encoder, create_encoder
from segwright.encoders.sizes import whole_px, window_of
from segwright.errors import ConfigError
from slim import SWIN, slim

SWIN_NAME = "swin_tiny_patch4_window7_224"


def maxvit(**options) -> Encoder:
    """timm's smallest: made for 160 x 160 pixels, so in windows of 5 x 5."""
    torch.manual_seed(0)
    return create_encoder("test_maxvit", **options).eval()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "segwright"]


def ceil(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


@pytest.mark.parametrize("size", [(160, 160), (320, 160), (64, 64), (40, 131), (1, 1)])
@torch.no_grad()
def test_maxvit_takes_any_size_and_its_maps_cover_the_image(size: tuple[int, int]) -> None:
    encoder = maxvit()
    assert encoder.whole_px == (160, 160)
    maps = encoder(torch.randn(2, 3, *size))
    assert [tuple(x.shape[2:]) for x in maps] == [ceil(size, stride) for stride in encoder.strides]


@torch.no_grad()
def test_an_image_of_whole_windows_is_taken_as_it_is_and_others_as_if_zeros_were_around_them() -> None:
    encoder = maxvit()
    whole, part = torch.randn(1, 3, 160, 160), torch.randn(1, 3, 64, 32)
    for found, expected in zip(encoder(whole), encoder.net(whole)[1:], strict=True):
        assert torch.equal(found, expected)
    around = torch.zeros(1, 3, 160, 160)
    around[..., :64, :32] = part
    for found, expected, stride in zip(encoder(part), encoder.net(around)[1:], encoder.strides, strict=True):
        assert torch.equal(found, expected[..., : 64 // stride, : 32 // stride])


@torch.no_grad()
def test_what_the_padding_costs_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    encoder = maxvit()
    with caplog.at_level(logging.INFO, "segwright"):
        encoder(torch.randn(1, 3, 160, 160))
        assert lines(caplog) == []
        for _ in range(2):
            encoder(torch.randn(1, 3, 170, 160))
    (line,) = lines(caplog)
    for part in (
        "170 x 160 pixels is padded to 320 x 160, 1.9 times",
        "windows of 5 x 5",
        "encoder.image_size=[170,160]",
    ):
        assert part in line


@torch.no_grad()
def test_windows_made_for_another_size_have_their_tables_resized_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """224 x 100 is made as 224 x 128: windows of 7 x 4, tables of 13 x 7 relative places instead of 9 x 9.

    timm stretches the rows, so that the outermost stay it, and cuts the columns."""
    published = timm.create_model("test_maxvit").state_dict()
    table = next(key for key in published if key.endswith("relative_position_bias_table"))
    steps = torch.arange(-4.0, 5)
    published[table] = (steps[:, None] + 100 * steps[None, :]).view(81, 1)
    torch.save(published, tmp_path / "file.pth")
    with caplog.at_level(logging.INFO, "segwright"):
        encoder = maxvit(pretrained=tmp_path / "file.pth", image_size=(224, 100))
    assert window_of(encoder.net) == (7, 4)
    (line,) = lines(caplog)
    assert "test_maxvit is made for 224 x 128 pixels" in line
    assert "from (81, 1) to (91, 1)" in line
    resized = encoder.net.state_dict()[table.replace("stages.0", "stages_0")].view(13, 7)
    torch.testing.assert_close(resized, -resized.flip(0, 1), rtol=0, atol=1e-3)
    assert (resized.diff(dim=0) > 0).all()
    assert (resized.diff(dim=1) > 0).all()
    assert resized[-1, 3] == pytest.approx(4, rel=0.02)
    assert resized[6, -1] == pytest.approx(300, rel=0.02)
    assert encoder.whole_px == (224, 128)
    assert [tuple(x.shape[2:]) for x in encoder(torch.randn(1, 3, 224, 100))] == [(56, 25), (28, 13), (14, 7), (7, 4)]


@pytest.mark.parametrize("size", [(64, 64), (224, 224), (100, 77), (9, 300)])
@torch.no_grad()
def test_swin_takes_any_size(size: tuple[int, int]) -> None:
    with slim(SWIN_NAME, SWIN):
        encoder = create_encoder(SWIN_NAME).eval()
    assert (encoder.whole_px, whole_px(encoder.net)) == ((4, 4), (4, 4))
    maps = encoder(torch.randn(1, 3, *size))
    assert [tuple(x.shape[2:]) for x in maps] == [ceil(size, stride) for stride in encoder.strides]


@torch.no_grad()
def test_swin_at_its_own_size_is_timms_function_and_made_for_a_larger_one_shifts_its_last_windows() -> None:
    torch.manual_seed(0)
    with slim(SWIN_NAME, SWIN):
        published = timm.create_model(SWIN_NAME, features_only=True).eval()
        encoder, larger = create_encoder(SWIN_NAME).eval(), create_encoder(SWIN_NAME, image_size=320).eval()
    encoder.net.load_state_dict(published.state_dict())
    image = torch.randn(1, 3, 224, 224)
    for found, expected in zip(encoder(image), published(image), strict=True):
        torch.testing.assert_close(found, expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
    shifts = [net.layers_3.blocks[1].shift_size for net in (encoder.net, larger.net)]
    assert shifts == [(0, 0), (3, 3)]


@pytest.mark.parametrize(
    ("name", "image_size", "message"),
    [
        ("test_maxvit", 0, "image_size is 0; give a number of pixels"),
        ("test_maxvit", (64, 64, 3), "give a number of pixels"),
        ("test_maxvit", "large", "give a number of pixels"),
        ("test_resnet", 96, "takes images as they are"),
        ("test_vit", 96, "a plain ViT"),
    ],
)
def test_a_size_that_means_nothing_is_refused(name: str, image_size: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_encoder(name, image_size=image_size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "image_size", "padded"),
    [
        ((384, 384), None, (384, 384)),
        ((96, 96), None, (384, 384)),
        ((500, 333), None, (768, 384)),
        ((96, 96), 96, (96, 96)),
        ((500, 333), (500, 333), (512, 352)),
    ],
)
@torch.no_grad()
def test_maxvit_tiny_takes_any_size(
    size: tuple[int, int], image_size: int | tuple[int, int] | None, padded: tuple[int, int]
) -> None:
    encoder = create_encoder("maxvit_tiny", image_size=image_size).eval()
    seen: list[tuple[int, ...]] = []
    encoder.net.stem.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    maps = encoder(torch.randn(1, 3, *size))
    assert seen == [padded]
    assert [tuple(x.shape[2:]) for x in maps] == [ceil(size, stride) for stride in (4, 8, 16, 32)]
