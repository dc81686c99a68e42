"""Segwright's models inside nnU-Net: trainers, their configuration, a command. The names load when they are touched."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segwright.nnunet.command import run_training_entry, trainer_folder
    from segwright.nnunet.config import (
        SegFormerLoRAConfig,
        SegFormerModelConfig,
        SegFormernnUNetConfig,
        SegFormerTrainConfig,
        load_config,
    )
    from segwright.nnunet.model import (
        SegFormerSegmentationModel,
        create_backbone,
        create_segformer_model,
        get_vit_features,
    )
    from segwright.nnunet.trainer import nnUNetTrainer_segformer, nnUNetTrainerNoDeepSupervision_segformer

_HOMES = {
    "SegFormerLoRAConfig": "config",
    "SegFormerModelConfig": "config",
    "SegFormerSegmentationModel": "model",
    "SegFormerTrainConfig": "config",
    "SegFormernnUNetConfig": "config",
    "create_backbone": "model",
    "create_segformer_model": "model",
    "get_vit_features": "model",
    "load_config": "config",
    "nnUNetTrainerNoDeepSupervision_segformer": "trainer",
    "nnUNetTrainer_segformer": "trainer",
    "run_training_entry": "command",
    "trainer_folder": "command",
}
"""Name -> its module here; the trainers need nnunetv2, the others do not."""

__all__ = [
    "SegFormerLoRAConfig",
    "SegFormerModelConfig",
    "SegFormerSegmentationModel",
    "SegFormerTrainConfig",
    "SegFormernnUNetConfig",
    "create_backbone",
    "create_segformer_model",
    "get_vit_features",
    "load_config",
    "nnUNetTrainerNoDeepSupervision_segformer",
    "nnUNetTrainer_segformer",
    "run_training_entry",
    "trainer_folder",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segwright.nnunet' has no attribute '{name}'")
    value = getattr(import_module(f"segwright.nnunet.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
