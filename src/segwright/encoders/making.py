"""timm's models made into nets of encoders, with their weights, and strictly: a file fits in full or is refused."""

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import timm
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from segwright.encoders.families import Family
from segwright.encoders.sources import Source
from segwright.encoders.vit import plain_vit
from segwright.encoders.weights import some_of
from segwright.errors import ConfigError, SegwrightError, WeightsError

NETWORK = frozenset({"huggingface_hub", "httpx", "httpcore", "requests", "urllib3"})
"""Packages whose errors say that a download failed."""

Make = Callable[..., Any]
"""timm's name and options -> a net."""


def hierarchical(model: str, *, pyramid: bool | None, **options: Any) -> Any:
    """timm's own net. `ConfigError`: it is flat, but not of the kind that `vit` takes, or needs no pyramid."""
    if pyramid is not None:
        raise ConfigError(
            f"encoder.pyramid is {pyramid}, but '{model}' gives maps of several sizes by itself; a pyramid is for "
            "plain ViTs. Leave it out."
        )
    with warnings.catch_warnings():  # about how timm resizes tables of positions
        warnings.filterwarnings("ignore", "torch.searchsorted|Using a non-tuple sequence", UserWarning)
        net: Any = timm.create_model(model, features_only=True, **options)
    strides = net.feature_info.reduction()
    if len(strides) > 1 and len(set(strides)) == 1:
        raise ConfigError(
            f"the encoder '{model}' gives {len(strides)} maps that all have stride {strides[0]}; a head needs maps of "
            "several sizes. Choose a hierarchical encoder, e.g. mit_b0, convnext_tiny or mobilenetv3_large_100, or a "
            "plain ViT that is made into one, e.g. vit_small_patch14_dinov2."
        )
    return net


def as_plain(source: Source, pyramid: bool | None, min_stride: int, family: Family | None) -> tuple[Make, Source]:
    """How a plain ViT is made, and its source: it reads a file itself, since timm would not be strict about it."""
    options: dict[str, Any] = {"cfg": {}}
    if family is not None:
        options = {"cfg": {"mean": family.mean, "std": family.std}, "img_size": family.image_px}
    if source.is_file:
        options["file"] = source.origin
        arguments = {"pretrained_cfg": source.arguments["pretrained_cfg"]}
        source = replace(source, arguments=arguments, licence=family.licence if family else None)
    return partial(plain_vit, pyramid=pyramid is not False, min_stride=min_stride, **options), source


def build(model: str, source: Source, options: dict[str, Any], make: Make) -> Any:
    """The net with its weights. `ConfigError`: timm cannot make it; `WeightsError`: the weights do not fit."""
    loaded = _Loaded()
    try:
        with loaded, quiet():
            net = make(model, **options, **source.arguments)
    except (SegwrightError, OSError):
        raise
    except (RuntimeError, TypeError, AttributeError, AssertionError, KeyError) as error:
        if is_network(error):
            raise
        if source.arguments.get("pretrained"):
            build(model, Source(), options, make)  # raises if the model is at fault, not the weights
            raise WeightsError(
                f"The weights '{source.origin}' do not fit the encoder '{model}': {_mismatch(error)}. "
                "Choose the encoder that they were made with."
            ) from error
        given = {key: value for key, value in options.items() if value is not None}
        raise ConfigError(
            f"timm cannot turn '{model}' into an encoder with {given}: {reason(error)}. "
            "Choose another model, or leave these options at their defaults."
        ) from error
    if "pretrained_cfg_overlay" in source.arguments and source.is_file and (missing := loaded.missing(net)):
        raise WeightsError(
            f"The weights '{source.origin}' do not fit the encoder '{model}': {len(missing)} of its tensors are not in "
            f"the file: {some_of(missing)}. "
            "Choose the encoder that they were made with."
        )
    return net


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps back timm's list of all tensors that a file holds beside the encoder; what lacks is said by us."""
    logger = logging.getLogger("timm.models._builder")
    logger.addFilter(_no_list)
    try:
        yield
    finally:
        logger.removeFilter(_no_list)


def _no_list(record: logging.LogRecord) -> bool:
    return "found while loading pretrained weights" not in record.getMessage()


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


MISMATCH = re.compile(r"size mismatch for (\S+): .*?torch\.Size\(\[(.*?)\]\).*?torch\.Size\(\[(.*?)\]\)")
"""PyTorch's line for a tensor of another shape: its name, the shape in the file, the model's."""


def _mismatch(error: Exception) -> str:
    """What PyTorch or timm says of a file that does not fit, in a line."""
    shapes = [f"{key} ({found}) instead of ({wanted})" for key, found, wanted in MISMATCH.findall(str(error))]
    if shapes:
        return f"{len(shapes)} of its tensors are of another shape: {some_of(shapes)}"
    if isinstance(error, KeyError):
        return f"its tensors have the names of another model (timm stumbled over {error})"
    return reason(error).rstrip(".")


def reason(error: Exception) -> str:
    """What an error says, or its kind."""
    return str(error).strip() or type(error).__name__


def is_network(error: Exception) -> bool:
    """Whether it says that something could not be fetched."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in NETWORK
