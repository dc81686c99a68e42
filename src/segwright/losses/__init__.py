"""The catalogue of losses: one import line and one entry a loss."""

from segwright.losses import bce_dice
from segwright.registry import Catalogue

LOSSES = Catalogue("losses", {"bce_dice": bce_dice})

__all__ = ["LOSSES"]
