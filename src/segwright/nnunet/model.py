"""A plain ViT with SegFormer's head for nnU-Net; needs no nnU-Net itself.

Four blocks' maps, all at the patch's stride, are fused by the head and enlarged to the image. Arguments, defaults and
methods are those of the nnU-Net integration whose users they are for.

Shapes: B batch, K classes, H x W the input, P the patch's side, D channels of the ViT.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from segwright import lora
from segwright.encoders import Encoder, create_encoder, feature_blocks, get_vit_features
from segwright.errors import ConfigError, nearest
from segwright.heads.segformer import SegformerHead

__all__ = ["SegFormerSegmentationModel", "create_backbone", "create_segformer_model", "get_vit_features"]

BACKBONES = {
    "dinov2": "vit_{size}_patch14_dinov2",
    "dinov3": "vit_{size}_patch16_dinov3",
    "retfound": "retfound_{size}",
    "retfound_dinov2": "retfound_dinov2_{size}",
    "visionfm": "visionfm_{size}",
}
"""Name -> our encoder's."""
SIZES = ("small", "base", "large")


def create_backbone(
    model_name: str = "dinov3", model_size: str = "large", checkpoint_path: str | None = None
) -> tuple[Any, int, int]:
    """(timm's ViT, P, D). `model_name`: dinov3, dinov2, retfound, retfound_dinov2, visionfm; sizes small, base, large.

    Without a path, DINO weights are fetched; out of reach, they are random, with a warning.

    Raises:
        ConfigError: no such name or size.
        WeightsError: the file does not fit; or none is given for retfound or visionfm, which no program can fetch.
    """
    backbone = _encoder(model_name, model_size, checkpoint_path).net.vit
    return backbone, backbone.patch_embed.patch_size[0], backbone.embed_dim


def _encoder(model_name: str, model_size: str, checkpoint_path: str | None) -> Encoder:
    if model_name not in BACKBONES:
        raise ConfigError(f"no backbone is called '{model_name}'.{nearest(model_name, BACKBONES)}")
    if model_size not in SIZES:
        raise ConfigError(f"a backbone's size is not '{model_size}'. There are: {', '.join(SIZES)}.")
    return create_encoder(BACKBONES[model_name].format(size=model_size), checkpoint_path or True, pyramid=False)


class SegFormerSegmentationModel(nn.Module):
    """image (B, 3, H, W) -> logits (B, K, H, W).

    Args:
        backbone_name, backbone_size, checkpoint_path: as `create_backbone`.
        num_classes: K.
        decoder_hidden_size: the head's width.
        freeze_backbone: trains the head alone.
        use_lora: freezes the backbone and trains adapters of `lora_rank` beside `lora_target_modules` (default: qkv).

    Raises:
        ConfigError, WeightsError: as `create_backbone` and `segwright.lora.enable_lora`.
    """

    def __init__(
        self,
        backbone_name: str = "dinov3",
        backbone_size: str = "large",
        num_classes: int = 1,
        decoder_hidden_size: int = 256,
        checkpoint_path: str | None = None,
        freeze_backbone: bool = False,
        use_lora: bool = False,
        lora_rank: int = 8,
        lora_alpha: float = 16.0,
        lora_dropout: float = 0.05,
        lora_target_modules: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        encoder = _encoder(backbone_name, backbone_size, checkpoint_path)
        self.num_classes, self.decoder_hidden_size = num_classes, decoder_hidden_size
        self.origin, self.licence = encoder.origin, encoder.licence
        self.backbone = encoder.net.vit
        self.patch_size: int = encoder.strides[0]
        self.feature_indices = list(feature_blocks(len(self.backbone.blocks)))
        # Hugging Face's head, which this stands for, drops single values
        self.decode_head = SegformerHead(encoder.channels, num_classes, decoder_hidden_size, dropout_kind="element")
        if freeze_backbone:
            self.backbone.requires_grad_(False)
        if use_lora:
            self.enable_lora(lora_rank, lora_alpha, lora_dropout, lora_target_modules)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        logits = self.decode_head(get_vit_features(self.backbone, x, self.feature_indices))
        padded = [cells * self.patch_size for cells in logits.shape[-2:]]
        logits = F.interpolate(logits, size=padded, mode="bilinear", align_corners=False)
        return logits[..., :height, :width]

    def enable_lora(
        self,
        rank: int = 8,
        lora_alpha: float = 16.0,
        lora_dropout: float = 0.05,
        target_modules: Sequence[str] | None = None,
    ) -> None:
        """Freezes the backbone and puts adapters into it; the head stays trainable. See `segwright.lora`."""
        lora.enable_lora(self, rank, lora_alpha, lora_dropout, target_modules or ["qkv"])
        print(f"LoRA enabled with rank={rank}, alpha={lora_alpha}")
        self.print_trainable_parameters(detailed=True)

    def disable_lora(self) -> None:
        """Merges the adapters into the backbone's weights; without adapters it does nothing but say so."""
        lora.disable_lora(self)

    def print_trainable_parameters(self, detailed: bool = False) -> None:
        """Prints how many parameters train, of how many; `detailed`: of backbone and head too."""
        lora.print_trainable_parameters(self, detailed)


def create_segformer_model(
    backbone_name: str = "dinov3",
    backbone_size: str = "large",
    num_classes: int = 1,
    decoder_hidden_size: int = 256,
    checkpoint_path: str | None = None,
    freeze_backbone: bool = False,
    use_lora: bool = True,
    lora_rank: int = 8,
    lora_alpha: float = 16.0,
    lora_dropout: float = 0.05,
    lora_target_modules: Sequence[str] | None = None,
) -> SegFormerSegmentationModel:
    """A `SegFormerSegmentationModel`, but with LoRA unless `use_lora=False`."""
    return SegFormerSegmentationModel(
        backbone_name=backbone_name,
        backbone_size=backbone_size,
        num_classes=num_classes,
        decoder_hidden_size=decoder_hidden_size,
        checkpoint_path=checkpoint_path,
        freeze_backbone=freeze_backbone,
        use_lora=use_lora,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        lora_target_modules=lora_target_modules,
    )
