"""Any hierarchical model or plain ViT of timm as an encoder: an image in, maps of falling size out.

What an encoder is like (channels, strides, mean, licence) is asked of timm; there is no table of ours.

Shapes: B batch, C_i channels of level i, h_i x w_i its size, finest level first.
"""

import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segwright.encoders.checkpointing import recompute
from segwright.encoders.families import find_family, refuse_published
from segwright.encoders.making import Make, as_plain, build, hierarchical, is_network, reason
from segwright.encoders.names import resolve_name, split_tag
from segwright.encoders.own import OwnWeights
from segwright.encoders.sizes import made_for, pad_to_whole, say_padding, say_tables, whole_px
from segwright.encoders.sources import Source, asks_published, find_source, out_of_reach
from segwright.encoders.vit import PlainVit, cover, is_plain
from segwright.errors import ConfigError, SegwrightError


class Encoder(nn.Module):
    """image (B, in_channels, H, W) -> [(B, C_i, h_i, w_i)], finest first.

    `net` is what `timm.create_model(..., features_only=True)` gives, or a `vit.PlainVit`; levels finer than
    `min_stride` are left out.

    Raises:
        ConfigError: no map of the net is as coarse as `min_stride`.
    """

    net: Any
    name: str
    """timm's name, or that of a family of files (`retfound`, `visionfm`)."""
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    """Pixels of the image per pixel of the map. Sizes are rounded as the model does it, up or down: resize by size."""
    mean: tuple[float, ...]
    """What to take from an image in [0, 1], per channel, ..."""
    std: tuple[float, ...]
    """... and what to divide it by then."""
    licence: str | None
    """Of the weights, as timm states it. None: random weights, or not known."""
    origin: str
    """Of the weights: `random`, the hub's id, an address or a path."""
    trained_from: dict[str, Any] | None
    """Where the weights are a run's checkpoint: what that records of its own first weights."""
    whole_px: tuple[int, int]
    """What an image's height and width are padded to multiples of, for windows; (1, 1): it is taken as it is."""

    def __init__(
        self, net: Any, name: str, in_channels: int = 3, min_stride: int = 4, source: Source | None = None
    ) -> None:
        super().__init__()
        source = source or Source()
        channels, strides = net.feature_info.channels(), net.feature_info.reduction()
        self._levels = [level for level, stride in enumerate(strides) if stride >= min_stride]
        if not self._levels:
            raise ConfigError(
                f"the encoder '{name}' has strides {strides}, none of them {min_stride} or more. Lower min_stride."
            )
        self.net = net
        self.name = name
        self.in_channels = in_channels
        self.channels = tuple(channels[level] for level in self._levels)
        self.strides = tuple(strides[level] for level in self._levels)
        self.mean = _per_channel(net.pretrained_cfg["mean"], in_channels)
        self.std = _per_channel(net.pretrained_cfg["std"], in_channels)
        self.licence, self.origin, self.trained_from = source.licence, source.origin, None
        self.whole_px = whole_px(net)
        self._said = False
        self._last = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) -> [(B, C_i, h_i, w_i)]. `ConfigError`: the model cannot take such an image."""
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            raise ConfigError(
                f"the encoder '{self.name}' was given an image of shape {tuple(image.shape)}; it was built for "
                f"(batch, {self.in_channels}, height, width). Set in_channels to the number of the image's channels."
            )
        if not image.is_floating_point():
            raise ConfigError(
                f"the encoder '{self.name}' was given an image of {image.dtype}; it takes float, normalised. Give "
                "(image / 255 - mean) / std, with the mean and std of each channel that the encoder has."
            )
        padded = image if self.whole_px == (1, 1) else pad_to_whole(image, self.whole_px)
        maps = self.net(padded) if torch.compiler.is_compiling() else self._explained(image, padded)
        maps = [maps[level] for level in self._levels]
        if self._last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        if self.whole_px == (1, 1):
            return maps
        return [cover(x, s, image.shape[-2:], s) for x, s in zip(maps, self.strides, strict=True)]

    def take(self, own: OwnWeights) -> None:
        """Weights and normalisation of a run's checkpoint. Raises `WeightsError`: the weights do not fit in full."""
        own.fill(self)
        self.mean, self.std, self.trained_from = own.mean, own.std, own.record

    def leave_out(self, unused: Iterable[int]) -> None:
        """From now on None stands for these maps, where the encoder has parameters that serve them alone: a plain ViT's
        pyramid. For heads that take some of the maps, since a parameter without a gradient stops a training on several
        devices."""
        if isinstance(self.net, PlainVit):
            self.net.leave_out(unused)

    def _explained(self, image: Tensor, padded: Tensor) -> list[Tensor]:
        """The net's maps; what it raises is said in terms of the image's size."""
        if not self._said:
            say_padding(self.name, self.net, image, padded)
            self._said = padded.shape != image.shape
        try:
            return self.net(padded)
        except (torch.OutOfMemoryError, torch.AcceleratorError, SegwrightError):
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            cfg = self.net.pretrained_cfg
            size = cfg.get("input_size", (3, 224, 224))[1:]
            other = " encoder.image_size makes it for another size." if cfg.get("fixed_input_size") else ""
            raise ConfigError(
                f"the encoder '{self.name}' could not take an image of shape {tuple(image.shape)}, {image.dtype} on "
                f"{image.device}: {reason(error)}. If it is for the size: the model is made "
                f"for {size[0]} x {size[1]} pixels; some take others that are a multiple of {max(self.strides)}.{other}"
            ) from error


def create_encoder(
    name: str,
    pretrained: bool | int | str | Path | None = False,
    in_channels: int = 3,
    min_stride: int = 4,
    checkpointing: bool = False,
    drop_path_rate: float | None = None,
    pyramid: bool | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Encoder:
    """An encoder by its timm name, an alias of it (`segformer_b0` is `mit_b0`), or that of a family of files.

    `pretrained`: False or 0: random weights; True or 1: timm's default ones (or those of the tag in the name); a tag;
    or the path of a file, also a run's best.pth. Published weights that cannot be reached are a warning, and the
    encoder starts from random ones. `min_stride` leaves finer levels out. `checkpointing` saves memory by computing
    twice. `drop_path_rate`: None: the model's own. `pyramid` is for plain ViTs: True or None: maps of strides 4 to 32;
    False: four maps at the patch's stride. `image_size` is for models with windows, in pixels: what the windows are
    made for (`sizes`).

    Raises:
        ConfigError: no such encoder, one that timm cannot turn into an encoder, or one whose maps are all of one size.
        WeightsError: a file that is missing, cannot be read, or does not fit; weights that cannot be fetched at all.
    """
    check_values(in_channels, drop_path_rate)
    resolved = resolve_name(name)
    found = find_family(resolved)
    model, tag = (found[1], None) if found else split_tag(resolved)
    if found and asks_published(model, pretrained):
        refuse_published(resolved, found[0], pretrained)
    source = find_source(model, tag, pretrained)
    options: dict[str, Any] = {"in_chans": in_channels, "drop_path_rate": drop_path_rate}
    make: Make = partial(hierarchical, pyramid=pyramid)
    if is_plain(model):
        make, source = as_plain(source, pyramid, min_stride, found[0] if found else None)
        _no_size(resolved, image_size)
    else:
        options |= made_for(model, image_size)
    try:
        net = build(model, source, options, make)
    except Exception as error:
        if not is_network(error) or source.is_file:
            raise
        source = out_of_reach(model, source.origin, reason(error), tag)
        net = build(model, source, options, make)
    if "img_size" in options:
        say_tables(model, net, options)
    encoder = Encoder(net, resolved if found else model, in_channels, min_stride, source)
    if source.own is not None:
        encoder.take(source.own)
    if checkpointing:
        recompute(net, model)
    return encoder


def check_values(in_channels: int, drop_path_rate: float | None) -> None:
    """Raises `ConfigError` for values that no encoder can have."""
    if in_channels < 1:
        raise ConfigError(f"encoder.in_chans is {in_channels}; an image has 1 channel or more. RGB has 3.")
    if drop_path_rate is not None and not 0 <= drop_path_rate < 1:  # NaN is not either
        raise ConfigError(
            f"encoder.drop_path is {drop_path_rate}; it is the share of images for which the last block is left out, "
            "from 0 to below 1. 0.1 is usual."
        )


def _no_size(name: str, image_size: Any) -> None:
    if image_size is not None:
        raise ConfigError(
            f"encoder.image_size is {image_size!r}, but '{name}' is a plain ViT, whose positions are resized to every "
            "image. Leave it out."
        )


def _per_channel(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    """RGB's mean or std for `count` channels, as timm spreads the first convolution: 1: the average; more: in turn."""
    if count == 1:
        return (math.fsum(values) / len(values),)
    return tuple(values[index % len(values)] for index in range(count))
