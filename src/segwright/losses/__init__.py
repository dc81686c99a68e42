"""The catalogue of losses: one import line and one entry a loss."""

from segwright.losses import (
    bce_dice,
    ce,
    ce_dice,
    cldice,
    dc_and_ce,
    dice_focal,
    focal,
    focal_tversky,
    lovasz,
    tree,
    tversky,
)
from segwright.registry import Catalogue

LOSSES = Catalogue(
    "losses",
    {
        "bce_dice": bce_dice,
        "ce": ce,
        "ce_dice": ce_dice,
        "cldice": cldice,
        "dc_and_ce": dc_and_ce,
        "dice_focal": dice_focal,
        "focal": focal,
        "focal_tversky": focal_tversky,
        "lovasz": lovasz,
        "tree": tree,
        "tversky": tversky,
    },
)

__all__ = ["LOSSES"]
