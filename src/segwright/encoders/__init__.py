"""Encoders: every hierarchical model and plain ViT of timm; importing this registers the Mix Transformer there."""

try:
    import timm  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "timm":
        raise
    from segwright.errors import MissingPackageError

    raise MissingPackageError("timm", "every encoder") from error

from segwright.encoders import mit_variants as mit_variants
from segwright.encoders.adapter import Encoder, check_values, create_encoder
from segwright.encoders.names import resolve_name
from segwright.encoders.terms import Terms, encoder_terms
from segwright.encoders.vit import feature_blocks, get_vit_features

__all__ = [
    "Encoder",
    "Terms",
    "check_values",
    "create_encoder",
    "encoder_terms",
    "feature_blocks",
    "get_vit_features",
    "resolve_name",
]
