"""The catalogue of heads: one import line and one entry a head."""

from segwright.heads import (
    aspp,
    extremely_fast_segformer,
    lite,
    segformer,
    segformer_mmseg,
    ultrafast_segformer,
    upernet,
)
from segwright.registry import Catalogue

HEADS = Catalogue(
    "heads",
    {
        "aspp": aspp,
        "extremely_fast_segformer": extremely_fast_segformer,
        "fpn": lite,
        "lite": lite,
        "segformer": segformer,
        "segformer_mmseg": segformer_mmseg,
        "ultrafast_segformer": ultrafast_segformer,
        "upernet": upernet,
    },
)

__all__ = ["HEADS"]
