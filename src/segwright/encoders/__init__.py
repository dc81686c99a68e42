"""Encoders: every hierarchical model of timm, and the Mix Transformer, which importing this registers there."""

try:
    import timm  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "timm":
        raise
    from segwright.errors import MissingPackageError

    raise MissingPackageError("timm", "every encoder") from error

from segwright.encoders import mit_variants as mit_variants
from segwright.encoders.adapter import Encoder, create_encoder
from segwright.encoders.names import resolve_name

__all__ = ["Encoder", "create_encoder", "resolve_name"]
