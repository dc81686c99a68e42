"""What `segwright bench` measures: our model of an encoder and a head, and the same model as other libraries build it.

Every contender is called alike, normalised image (B, 3, H, W) -> logits (B, K, H, W): where a library stops at a
coarser size its logits are resized bilinearly, as ours are.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.encoders import create_encoder, resolve_name
from segwright.encoders.mit_variants import VARIANTS
from segwright.errors import ConfigError, MissingPackageError, nearest
from segwright.heads import HEADS
from segwright.model import Segmenter
from segwright.pretrained import WIDTHS

OURS = "segwright"


@dataclass(frozen=True)
class Design:
    """What is built: names of an encoder and a head, the head's width, and the number of classes."""

    encoder: str
    head: str
    width: int | None = None
    """None: the published one for a SegFormer, else the head's own default."""
    classes: int = 19

    @property
    def is_segformer(self) -> bool:
        """Whether it is a whole SegFormer."""
        return self.head == "segformer" and resolve_name(self.encoder) in VARIANTS


class FullSize(nn.Module):
    """A model whose logits are brought to the image's size. `call` gives the model's own logits."""

    def __init__(self, net: nn.Module, call: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net
        self.call = call

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.call(self.net, image), size=image.shape[-2:], mode="bilinear", align_corners=False)


def build(name: str, design: Design) -> nn.Module | None:
    """The contender `name` with random weights; None: that library has no such model.

    Raises:
        ConfigError: no such contender, encoder or head.
        MissingPackageError: the library is not installed.
    """
    return BUILDERS[name](design)


def check_peers(names: Sequence[str]) -> None:
    """Raises `ConfigError` for an unknown library and `MissingPackageError` for one that is not installed."""
    for name in names:
        if name not in PACKAGES:
            raise ConfigError(f"bench knows no peer '{name}'.{nearest(name, PACKAGES)}")
        _library(name)


def _library(peer: str) -> ModuleType:
    module, package = PACKAGES[peer]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingPackageError(package, f"measuring against {peer}", "bench") from None


def _ours(design: Design) -> nn.Module:
    """As a run builds it: channels-last, as the engine prepares every model."""
    encoder = create_encoder(design.encoder)
    width = design.width or (WIDTHS[encoder.name] if design.is_segformer else None)
    part = HEADS.part(design.head)
    config = part.Config(width=width) if width else part.Config()
    head = part.build(config, encoder.channels, design.classes)
    return Segmenter(encoder, head).to(memory_format=torch.channels_last)


def _transformers(design: Design) -> nn.Module | None:
    """`SegformerForSemanticSegmentation`; it has none of our other combinations."""
    transformers = _library("transformers")
    if not design.is_segformer:
        return None
    name = resolve_name(design.encoder)
    config = transformers.SegformerConfig(
        hidden_sizes=list(VARIANTS[name]["widths"]),
        depths=list(VARIANTS[name]["depths"]),
        decoder_hidden_size=design.width or WIDTHS[name],
        num_labels=design.classes,
    )
    return FullSize(transformers.SegformerForSemanticSegmentation(config), lambda net, image: net(image).logits)


def _smp(design: Design) -> nn.Module | None:
    """Segformer; for `aspp` DeepLabV3Plus at its own widths, which is alike but not the same function."""
    smp = _library("smp")
    name = resolve_name(design.encoder)
    if design.is_segformer:
        width = design.width or WIDTHS[name]
        return smp.Segformer(name, encoder_weights=None, classes=design.classes, decoder_segmentation_channels=width)
    if design.head != "aspp" or name in VARIANTS:
        return None
    encoder = name if name in smp.encoders.encoders else f"tu-{name}"
    return smp.DeepLabV3Plus(encoder, encoder_weights=None, classes=design.classes)


PACKAGES = {
    "transformers": ("transformers", "transformers"),
    "smp": ("segmentation_models_pytorch", "segmentation-models-pytorch"),
}
"""Peer -> the module that is imported, and the package that pip installs."""
BUILDERS: dict[str, Callable[[Design], nn.Module | None]] = {OURS: _ours, "transformers": _transformers, "smp": _smp}
