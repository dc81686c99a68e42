"""Any hierarchical model or plain ViT of timm as an encoder: an image in, maps of falling size out.

What an encoder is like (channels, strides, mean, licence) is asked of timm; there is no table of ours.

Shapes: B batch, C_i channels of level i, h_i x w_i its size, finest level first.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from segwright.encoders.families import Family, find_family, refuse_published
from segwright.encoders.names import resolve_name, split_tag
from segwright.encoders.sources import Source, asks_published, find_source, out_of_reach
from segwright.encoders.vit import is_plain, plain_vit
from segwright.errors import ConfigError, SegwrightError, WeightsError

NETWORK = frozenset({"huggingface_hub", "httpx", "httpcore", "requests", "urllib3"})
"""Packages whose errors say that a download failed."""


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
        self.licence, self.origin = source.licence, source.origin
        self._last = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) -> [(B, C_i, h_i, w_i)]. `ConfigError`: the model cannot take such an image."""
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            raise ConfigError(
                f"the encoder '{self.name}' was given an image of shape {tuple(image.shape)}; it was built for "
                f"(batch, {self.in_channels}, height, width). Set in_channels to the number of the image's channels."
            )
        maps = self.net(image) if torch.compiler.is_compiling() else self._explained(image)
        maps = [maps[level] for level in self._levels]
        return [x.permute(0, 3, 1, 2) for x in maps] if self._last else maps

    def _explained(self, image: Tensor) -> list[Tensor]:
        """The net's maps; what it raises is said in terms of the image's size."""
        try:
            return self.net(image)
        except (torch.OutOfMemoryError, torch.AcceleratorError, SegwrightError):
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            size = self.net.pretrained_cfg.get("input_size", (3, 224, 224))[1:]
            raise ConfigError(
                f"the encoder '{self.name}' could not take an image of shape {tuple(image.shape)}, {image.dtype} on "
                f"{image.device}: {_reason(error)}. If it is for the size: the model is made "
                f"for {size[0]} x {size[1]} pixels; some take others that are a multiple of {max(self.strides)}."
            ) from error


def create_encoder(
    name: str,
    pretrained: bool | int | str | Path | None = False,
    in_channels: int = 3,
    min_stride: int = 4,
    checkpointing: bool = False,
    drop_path_rate: float | None = None,
    pyramid: bool | None = None,
) -> Encoder:
    """An encoder by its timm name, an alias of it (`segformer_b0` is `mit_b0`), or that of a family of files.

    `pretrained`: False or 0: random weights; True or 1: timm's default ones (or those of the tag in the name); a tag;
    or the path of a file. Published weights that cannot be reached are a warning, and the encoder starts from random
    ones. `min_stride` leaves finer levels out. `checkpointing` saves memory by computing twice. `drop_path_rate`: None:
    the model's own. `pyramid` is for plain ViTs: True or None: maps of strides 4 to 32; False: four maps at the patch's
    stride.

    Raises:
        ConfigError: no such encoder, one that timm cannot turn into an encoder, or one whose maps are all of one size.
        WeightsError: a file that is missing, cannot be read, or does not fit; weights that cannot be fetched at all.
    """
    resolved = resolve_name(name)
    found = find_family(resolved)
    model, tag = (found[1], None) if found else split_tag(resolved)
    if found and asks_published(model, pretrained):
        refuse_published(resolved, found[0], pretrained)
    source = find_source(model, tag, pretrained)
    options = {"in_chans": in_channels, "drop_path_rate": drop_path_rate}
    make: Make = partial(_hierarchical, pyramid=pyramid)
    if is_plain(model):
        make, source = _as_plain(source, pyramid, min_stride, found[0] if found else None)
    try:
        net = _build(model, source, options, make)
    except Exception as error:
        if not _is_network(error) or source.is_file:
            raise
        source = out_of_reach(model, source.origin, _reason(error), tag)
        net = _build(model, source, options, make)
    encoder = Encoder(net, resolved if found else model, in_channels, min_stride, source)
    if checkpointing:
        _checkpoint(net, model)
    return encoder


Make = Callable[..., Any]
"""timm's name and options -> a net."""


def _hierarchical(model: str, *, pyramid: bool | None, **options: Any) -> Any:
    """timm's own net. `ConfigError`: it is flat, but not of the kind that `vit` takes, or needs no pyramid."""
    if pyramid is not None:
        raise ConfigError(
            f"encoder.pyramid is {pyramid}, but '{model}' gives maps of several sizes by itself; a pyramid is for "
            "plain ViTs. Leave it out."
        )
    net: Any = timm.create_model(model, features_only=True, **options)
    strides = net.feature_info.reduction()
    if len(strides) > 1 and len(set(strides)) == 1:
        raise ConfigError(
            f"the encoder '{model}' gives {len(strides)} maps that all have stride {strides[0]}; a head needs maps of "
            "several sizes. Choose a hierarchical encoder, e.g. mit_b0, convnext_tiny or mobilenetv3_large_100, or a "
            "plain ViT that is made into one, e.g. vit_small_patch14_dinov2."
        )
    return net


def _as_plain(source: Source, pyramid: bool | None, min_stride: int, family: Family | None) -> tuple[Make, Source]:
    """How a plain ViT is made, and its source: it reads a file itself, since timm would not be strict about it."""
    options: dict[str, Any] = {"cfg": {}}
    if family is not None:
        options = {"cfg": {"mean": family.mean, "std": family.std}, "img_size": family.image_px}
    if source.is_file:
        options["file"] = source.origin
        arguments = {"pretrained_cfg": source.arguments["pretrained_cfg"]}
        source = replace(source, arguments=arguments, licence=family.licence if family else None)
    return partial(plain_vit, pyramid=pyramid is not False, min_stride=min_stride, **options), source


def _build(model: str, source: Source, options: dict[str, Any], make: Make) -> Any:
    """The net with its weights. `ConfigError`: timm cannot make it; `WeightsError`: the weights do not fit."""
    loaded = _Loaded()
    try:
        with loaded:
            net = make(model, **options, **source.arguments)
    except (SegwrightError, OSError):
        raise
    except (RuntimeError, TypeError, AttributeError, AssertionError, KeyError) as error:
        if _is_network(error):
            raise
        reason = _reason(error)
        if source.arguments.get("pretrained"):
            _build(model, Source(), options, make)  # raises if the model is at fault, not the weights
            raise WeightsError(
                f"The weights '{source.origin}' do not fit the encoder '{model}': {reason}. "
                "Choose the encoder that they were made with."
            ) from error
        raise ConfigError(
            f"timm cannot turn '{model}' into an encoder with {options}: {reason}. "
            "Choose another model, or leave these options at their defaults."
        ) from error
    if "pretrained_cfg_overlay" in source.arguments and source.is_file and (missing := loaded.missing(net)):
        raise WeightsError(
            f"The weights '{source.origin}' do not fit the encoder '{model}': {len(missing)} of its tensors are not in "
            f"the file: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. "
            "Choose the encoder that they were made with."
        )
    return net


class _Loaded(TorchFunctionMode):
    """Notes which tensors are copied into while a model is made: those that its weight file has set.

    timm loads a file without complaint about what is missing in it whenever the number of classes differs, and without
    the classifier it always does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.targets: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.copy_:
            self.targets[id(args[0])] = args[0]
        return func(*args, **(kwargs or {}))

    def missing(self, net: nn.Module) -> list[str]:
        return [key for key, tensor in net.state_dict(keep_vars=True).items() if id(tensor) not in self.targets]


def _reason(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _is_network(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in NETWORK


def _checkpoint(net: Any, name: str) -> None:
    """Gradient checkpointing. `ConfigError`: the model has none."""
    target = net if hasattr(net, "set_grad_checkpointing") else getattr(net, "model", net)
    try:
        target.set_grad_checkpointing(enable=True)
    except (AssertionError, AttributeError, TypeError) as error:
        raise ConfigError(f"the encoder '{name}' has no gradient checkpointing. Leave checkpointing off.") from error


def _per_channel(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    """RGB's mean or std for `count` channels, as timm spreads the first convolution: 1: the average; more: in turn."""
    if count == 1:
        return (math.fsum(values) / len(values),)
    return tuple(values[index % len(values)] for index in range(count))
