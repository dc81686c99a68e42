"""SegFormer inside nnU-Net: a plain ViT, LoRA and SegFormer's head. The names load when they are touched."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segwright.nnunet.model import (
        SegFormerSegmentationModel,
        create_backbone,
        create_segformer_model,
        get_vit_features,
    )

_HOMES = {
    "SegFormerSegmentationModel": "segwright.nnunet.model",
    "create_backbone": "segwright.nnunet.model",
    "create_segformer_model": "segwright.nnunet.model",
    "get_vit_features": "segwright.nnunet.model",
}

__all__ = ["SegFormerSegmentationModel", "create_backbone", "create_segformer_model", "get_vit_features"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segwright.nnunet' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
