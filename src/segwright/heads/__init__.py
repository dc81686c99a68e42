"""The catalogue of heads: one import line and one entry a head."""

from segwright.heads import lite
from segwright.registry import Catalogue

HEADS = Catalogue("heads", {"lite": lite})

__all__ = ["HEADS"]
