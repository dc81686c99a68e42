"""The one module of the folder in which nnU-Net looks for trainers (`nnUNet_extTrainer`)."""

from segwright.nnunet.trainer import nnUNetTrainer_segformer, nnUNetTrainerNoDeepSupervision_segformer

__all__ = ["nnUNetTrainerNoDeepSupervision_segformer", "nnUNetTrainer_segformer"]
