"""A segmentation model: an encoder, a head, and where asked a shallow path at full resolution and an embedding.

Shapes: B batch, K classes, H x W the input, E the embedding's width.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.encoders import Encoder, check_values, create_encoder, resolve_name
from segwright.errors import ConfigError
from segwright.heads import HEADS
from segwright.heads.detail import DetailPath
from segwright.heads.embedding import EmbeddingHead
from segwright.heads.lite import LiteHead
from segwright.pretrained import choose_weights, read_folder, write_folder

log = logging.getLogger("segwright")

RARE = 0.02
"""Share of positive pixels that a fresh binary model expects: cracks, scratches and vessels cover 1 to 10 %."""


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str | None = None
    """A whole model (segformer_lite, segformer_b0 ... b5), or none: then encoder.name and head.name make it."""
    detail: int = 0
    """Channels of a shallow path at full resolution that refines the head's map for thin structures; 0: none."""
    detail_depth: int = 2
    """Convolutions of that path at full resolution before its way down; with 1 a step is an eighth cheaper."""
    embedding: int | None = None
    """Channels of an embedding beside the logits, for a loss that compares places (loss.triplet_weight); it is computed
    in training alone. None: 256 where the loss asks for one, else 0, which is none."""

    def __post_init__(self) -> None:
        if (self.embedding or 0) < 0:
            raise ConfigError(f"model.embedding is {self.embedding}; give 0 for none, or its channels, e.g. 256.")
        if self.detail < 0:
            raise ConfigError(f"model.detail is {self.detail}; give 0 for no path, or its channels, e.g. 16.")
        if self.detail_depth < 1:
            raise ConfigError(f"model.detail_depth is {self.detail_depth}; the path needs 1 convolution or more.")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    name: str = "segformer_b0"
    """Any timm model with features, or an alias (segformer_b0, mobilenet_v3_small)."""
    pretrained: Any = True
    """1, true or imagenet: timm's default weights; 0, false or none: random; ade20k: encoder and head of a whole
    SegFormer; else one of timm's tags, a file, also best.pth of a run with this encoder, which gives that alone, or a
    folder in Hugging Face's layout, also of whole SegFormers."""
    pyramid: bool | None = None
    """Of a plain ViT: maps of strides 4 to 32 (default); false: at its patch's stride alone. Others have no choice."""
    drop_path: float | None = None
    """Highest rate of stochastic depth, from 0 to below 1; none: the encoder's own default."""
    in_chans: int = 3
    """Channels of the image; pretrained weights for RGB are spread over them. `train` reads RGB, so it needs 3."""
    grad_checkpointing: bool = False
    """Less memory in training: the backward pass computes the encoder's blocks or stages a second time."""
    image_size: Any = None
    """Of MaxViT, Swin and their kin: pixels (a side, or [height, width]) that windows and position tables are made for;
    none: as published. Any image is taken all the same: MaxViT pads it to whole windows, so choose your input.size."""
    licence: str | None = None
    """What a file's weights are under, as you state it in the run's record; run.commercial asks for that. For weights
    whose licence has terms of its own: its name, if you keep them."""

    def __post_init__(self) -> None:
        resolve_name(self.name)
        check_values(self.in_chans, self.drop_path)


VECTOR = 8
"""Values that a CPU's vector register holds, in fp32."""
FEW = 12
"""Up to so many classes a CPU resizes each class's map by itself faster: 2 of them in a quarter of the time."""


def enlarge(logits: Tensor, size: Sequence[int]) -> Tensor:
    """(B, K, h, w) -> (B, K, H, W), bilinear, corners not aligned.

    Where a CPU only infers, the logits are made fp32, which is three times as fast as bfloat16, and more than a few
    classes are filled up to whole vectors: 1.4 times as fast for 19 of them.
    """
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if torch.is_grad_enabled() or recorded or logits.device.type != "cpu":
        if logits.device.type == "cpu" and not recorded:
            logits = logits.contiguous()  # else the softmax of a loss copies them, 16 times as large
        return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
    if logits.shape[1] <= FEW:
        return F.interpolate(logits.float().contiguous(), size=tuple(size), mode="bilinear", align_corners=False)
    spare = -logits.shape[1] % VECTOR
    filled = F.pad(logits.float(), (0, 0, 0, 0, 0, spare)).contiguous(memory_format=torch.channels_last)
    return F.interpolate(filled, size=tuple(size), mode="bilinear", align_corners=False)[:, : logits.shape[1]]


class Segmenter(nn.Module):
    """image (B, 3, H, W), normalised -> logits (B, K, H, W); with `resize=False` (B, K, h, w), as the head gives.

    With `embedded=True` the logits and the embedding (B, E, h', w') of the coarsest map, for models that have one.
    """

    encoder: Encoder
    head: Any
    """Maps -> logits; has `features`, `width` and `classifier` (heads/lite.py is the pattern), and where it takes only
    some of the maps, `used`: their indices."""
    classes: tuple[str, ...] = ()
    """The classes' names, where they are known."""

    def __init__(
        self,
        encoder: Encoder,
        head: nn.Module,
        detail: DetailPath | None = None,
        embedding: EmbeddingHead | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.detail = detail
        self.embedding = embedding

    def forward(self, image: Tensor, resize: bool = True, embedded: bool = False) -> Any:
        maps = self.encoder(image)
        logits = self.head(maps) if self.detail is None else self.detail(image, self.head.features(maps))
        if resize:
            logits = enlarge(logits, image.shape[-2:])
        return (logits, self.embedding(maps)) if embedded and self.embedding is not None else logits

    @staticmethod
    def from_pretrained(source: str | Path) -> "Segmenter":
        """A whole SegFormer, in evaluation mode, from a folder in Hugging Face's layout or an id of its hub.

        Raises:
            WeightsError: neither; the hub cannot be reached; another kind of model; weights that do not fit.
        """
        encoder, head, classes = read_folder(source)
        model = Segmenter(encoder, head)
        model.classes = classes
        return model.eval()

    def save_pretrained(self, folder: str | Path, size: tuple[int, int] = (512, 512)) -> Path:
        """Writes a whole SegFormer in Hugging Face's layout; `size` is what images are resized to, (height, width).

        Raises:
            ConfigError: it is no Mix Transformer with SegFormer's head, or has a detail path.
        """
        if self.detail is not None:
            raise ConfigError(
                "the model has a detail path, for which Hugging Face's layout has no place. Train with "
                "model.detail=0, or export with --format onnx."
            )
        classes = self.classes or tuple(f"class_{index}" for index in range(self.head.classifier.out_channels))
        return write_folder(folder, self.encoder, self.head, classes, size)


class SegFormerLite(Segmenter):
    """An encoder with the small top-down head `heads.lite`.

    Args:
        encoder_name: any timm encoder or alias; "segformer_b0", "mobilenet_v3_small".
        pretrained: load timm's weights; where they cannot be reached, a warning and random ones. Also a tag or a path.
        in_ch: channels of the image.
        num_classes: K; 1 means binary with a sigmoid outside.
        base: width of the head.

    Raises:
        ConfigError: no such encoder, or a number of channels or classes below 1.
        WeightsError: a path that is missing or does not fit.
    """

    def __init__(
        self,
        encoder_name: str = "segformer_b0",
        pretrained: bool | int | str = True,
        in_ch: int = 3,
        num_classes: int = 1,
        base: int = 32,
    ) -> None:
        if num_classes < 1:
            raise ConfigError(f"num_classes is {num_classes}; give 1 for a binary model, or the number of classes.")
        encoder = create_encoder(encoder_name, pretrained, in_channels=in_ch)
        super().__init__(encoder, LiteHead(encoder.channels, num_classes, base))
        if num_classes == 1:
            expect_rare(self.head.classifier)
        print(f"SegFormerLite({encoder_name}): {count_parameters(self):,} parameters")


def build_model(
    model: Config, encoder: EncoderConfig, head: Any, num_classes: int, pretrained: bool = True
) -> Segmenter:
    """The model of three config sections; `pretrained=False` where a checkpoint follows, whatever the section says."""
    wanted = encoder.pretrained if pretrained else False
    whole, wanted = choose_weights(encoder.name, head.name, getattr(head.config, "width", None), wanted)
    body = create_encoder(
        encoder.name,
        wanted,
        encoder.in_chans,
        checkpointing=encoder.grad_checkpointing,
        drop_path_rate=encoder.drop_path,
        pyramid=encoder.pyramid,
        image_size=encoder.image_size,
    )
    top = HEADS.build(head.name, head.config, body.channels, num_classes)
    if (used := getattr(top, "used", None)) is not None:
        coarsest = {len(body.channels) - 1} if model.embedding else set()
        body.leave_out(set(range(len(body.channels))) - set(used) - coarsest)
    path = (top.width, num_classes, model.detail, encoder.in_chans, model.detail_depth)
    detail = DetailPath(*path) if model.detail else None
    if num_classes == 1:
        expect_rare((detail or top).classifier)
    if whole is not None:
        whole.fill(body, top)
    if detail is not None:
        del top.classifier  # the path has its own, at full resolution
    embedding = EmbeddingHead(body.channels[-1], model.embedding) if model.embedding else None
    return Segmenter(body, top, detail, embedding)


def expect_rare(classifier: nn.Conv2d) -> None:
    """Sets the bias so that a fresh binary model expects `RARE` positives, as Lin et al. 2017
    (https://arxiv.org/abs/1708.02002, section 4.1) do. From 0 it first has to learn that most pixels are background."""
    assert classifier.bias is not None
    nn.init.constant_(classifier.bias, math.log(RARE / (1 - RARE)))


def is_encoder(name: str) -> bool:
    """Whether a parameter of a `Segmenter`, wrapped (DDP, torch.compile) or not, belongs to its encoder.

    A plain ViT's pyramid does not: it is never pretrained, so it learns and thaws with the head.
    """
    own = [part for part in name.split(".") if part not in {"module", "_orig_mod"}]
    return own[0] == "encoder" and own[1:3] != ["net", "pyramid"]


def count_parameters(module: nn.Module, trainable_only: bool = False) -> int:
    """The number of single weights."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)


def probabilities(logits: Tensor) -> Tensor:
    """(B, K, H, W) logits -> probabilities in fp32: a sigmoid for one class, else a softmax."""
    logits = logits.float()
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)


def run_name(model: Config, encoder: EncoderConfig, head_name: str) -> str:
    """The run's folder name: the whole model's, else encoder_head."""
    return model.name or f"{encoder.name}_{head_name}"
