"""Backbones and heads from a mapping with the sections `backbone` and `head`, as SegHiero's configurations have them.

Names, options and defaults are those of its architecture guide: `resnet` (depth), `convnext` and `segformer` (variant);
any other `type` is the name of an encoder. A head's `proj_dim` is our `width`.

Shapes: B batch, C_i channels of map i, K classes, E the embedding's width, h x w a map.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segwright.config import resolve
from segwright.encoders import Encoder, create_encoder
from segwright.errors import ConfigError, nearest
from segwright.heads import HEADS
from segwright.heads.embedding import EmbeddingHead

DEPTHS = (18, 34, 50, 101, 152)
CONVNEXTS = ("tiny", "small", "base", "large", "xlarge")
MITS = tuple(f"mit-b{size}" for size in range(6))


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    type: str = "resnet"
    """resnet, convnext, segformer, or any encoder's name."""
    depth: int = 101
    """Of a resnet: 18, 34, 50, 101 or 152."""
    variant: str | None = None
    """Of a convnext: tiny (default) to xlarge; of a segformer: mit-b0 (default) to mit-b5."""
    pretrained: Any = True
    """true: published weights; false: random ones; or a file."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    embedding_width: int = 256
    """E: channels of the embedding beside the logits."""


class HeadWithEmbedding(nn.Module):
    """maps [(B, C_i, h_i, w_i)], finest first -> logits (B, K, h, w), and the coarsest map's embedding (B, E, ...).

    Raises:
        ConfigError: the maps have other `channels` (C_i) than the head was made for.
    """

    def __init__(self, head: nn.Module, embedding: EmbeddingHead, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = list(channels)
        self.head = head
        self.embedding = embedding

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        given = [x.shape[1] for x in maps]
        if given != self.channels:
            raise ConfigError(
                f"the head was given maps of {given} channels, and was made for {self.channels}. Make it with the "
                "channels that get_backbone_channels(config) gives for the backbone in use."
            )
        return self.head(maps), self.embedding(maps)


def create_backbone(config: Mapping[str, Any]) -> Encoder:
    """The encoder of `config["backbone"]`: image (B, 3, H, W) -> four maps, finest first. Default: a ResNet-101.

    Raises:
        ConfigError: a type, depth, variant or key that does not exist, or one that the type does not have.
        WeightsError: a file of weights that does not fit.
    """
    backbone = _backbone(config)
    return create_encoder(encoder_name(config), backbone.pretrained)


def get_backbone_channels(config: Mapping[str, Any]) -> list[int]:
    """Channels of the maps that `create_backbone(config)` gives, finest first; makes no weights.

    Raises:
        ConfigError: as `create_backbone`.
    """
    with torch.device("meta"):
        return list(create_encoder(encoder_name(config)).channels)


def create_head(config: Mapping[str, Any], channels: Sequence[int], num_classes: int) -> HeadWithEmbedding:
    """The head of `config["head"]` for maps of these channels, with an embedding beside. Default: aspp.

    Raises:
        ConfigError: no such head, a key it does not have, or channels, a number of classes or a value that cannot work.
    """
    if len(channels) < 2 or min(channels) < 1 or num_classes < 1:
        raise ConfigError(
            f"channels are {list(channels)} and num_classes is {num_classes}; a head takes two maps or more and gives "
            "one class or more. get_backbone_channels(config) gives the channels."
        )
    given = dict(_section(config, "head"))
    own = {key: given.pop(key) for key in list(given) if key == "embedding_width"}
    renamed = {{"type": "name", "proj_dim": "width"}.get(key, key): value for key, value in given.items()}
    schema: dict[str, Any] = {"head": HEADS, "embedding": EmbeddingConfig}
    checked = resolve({"head": renamed, "embedding": own}, schema, {"head": "aspp"})
    head = HEADS.build(checked["head"].name, checked["head"].config, channels, num_classes)
    embedding = EmbeddingHead(channels[-1], checked["embedding"].embedding_width)
    return HeadWithEmbedding(head, embedding, channels)


def encoder_name(config: Mapping[str, Any]) -> str:
    """The encoder that `config["backbone"]` means. `ConfigError`: as `create_backbone`."""
    backbone = _backbone(config)
    kind = backbone.type.lower()
    given = _section(config, "backbone")
    for key, kinds in {"depth": {"resnet"}, "variant": {"convnext", "segformer"}}.items():
        if given.get(key) is not None and kind not in kinds:
            raise ConfigError(
                f"backbone.{key} is {given[key]!r}, but a backbone of type '{kind}' has none; it is for "
                f"{' and '.join(sorted(kinds))}. Leave it out."
            )
    return KINDS[kind](backbone) if kind in KINDS else backbone.type


def _resnet(backbone: BackboneConfig) -> str:
    if backbone.depth not in DEPTHS:
        raise ConfigError(f"backbone.depth is {backbone.depth}; there are: {', '.join(map(str, DEPTHS))}.")
    return f"resnet{backbone.depth}"


def _convnext(backbone: BackboneConfig) -> str:
    return f"convnext_{_variant(backbone, CONVNEXTS)}"


def _segformer(backbone: BackboneConfig) -> str:
    return _variant(backbone, MITS).replace("-", "_")


def _variant(backbone: BackboneConfig, known: Sequence[str]) -> str:
    wanted = (backbone.variant or known[0]).lower().replace("_", "-")
    if wanted not in known:
        raise ConfigError(f"backbone.variant is '{backbone.variant}'.{nearest(wanted, known)}")
    return wanted


KINDS: dict[str, Callable[[BackboneConfig], str]] = {
    "convnext": _convnext,
    "resnet": _resnet,
    "segformer": _segformer,
}


def _backbone(config: Mapping[str, Any]) -> BackboneConfig:
    given = {key: value for key, value in _section(config, "backbone").items() if value is not None}
    return resolve({"backbone": given}, {"backbone": BackboneConfig}, {})["backbone"]


KEYS_OF_SECTIONS = {"type", "depth", "variant", "name", "proj_dim", "width"}
"""Some that no configuration has outside its sections."""


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if not isinstance(config, Mapping) or (name not in config and KEYS_OF_SECTIONS & config.keys()):
        raise ConfigError(
            f"the configuration is {config!r}; it must be a mapping with the sections backbone and head, e.g. "
            "{'backbone': {'type': 'resnet', 'depth': 50}, 'head': {'type': 'aspp'}}."
        )
    section = config.get(name) or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{name} is {section!r}; it must be a mapping with a 'type', e.g. {{'type': 'resnet'}}.")
    return section
