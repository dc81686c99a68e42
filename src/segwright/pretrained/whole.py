"""First weights of a whole SegFormer: what `encoder.pretrained` may name beyond an encoder's own weights.

Its head is the published one, or mmsegmentation's own; a file of weights holds one of the two.

The checkpoints trained on ADE20K are NVIDIA's (https://huggingface.co/nvidia), 150 classes, at 512 x 512 pixels and b5
at 640 x 640. Xie et al. 2021, "SegFormer", section 4.1, https://arxiv.org/abs/2105.15203
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segwright.encoders import Encoder, resolve_name
from segwright.encoders.mit_variants import VARIANTS, default_cfgs
from segwright.encoders.names import split_tag
from segwright.encoders.sources import HUB_FILES, WORDS, out_of_reach
from segwright.encoders.weights import load_mit, read_weights
from segwright.errors import ConfigError, WeightsError
from segwright.heads.segformer_weights import HEADS, find_layout, refuse_another_function, to_head
from segwright.pretrained.hub import OutOfReachError, hub_file

log = logging.getLogger("segwright")

HEAD = "segformer"
"""The head of the published whole SegFormers."""
WIDTHS = {name: 256 if name in {"mit_b0", "mit_b1"} else 768 for name in VARIANTS}
"""The head's published width for each encoder."""
ADE20K = {
    name: f"nvidia/segformer-{name[-2:]}-finetuned-ade-{size}-{size}"
    for name, size in ((name, 640 if name == "mit_b5" else 512) for name in VARIANTS)
}
"""Encoder -> the hub's id of the whole model trained on ADE20K."""
LICENCE: str = default_cfgs["mit_b0"].default.license or ""
"""Of all weights that NVIDIA published for SegFormer."""


@dataclass(frozen=True)
class Whole:
    """The tensors of an encoder and its head, in any of the layouts that `to_mit` and `to_head` know."""

    tensors: dict[str, Tensor]
    origin: str
    licence: str | None = None

    def fill(self, encoder: Encoder, head: nn.Module) -> None:
        """Puts them into a Mix Transformer and a SegFormer head. A classifier for other classes is left as it is.

        Raises:
            WeightsError: a key that is missing, not known or of another shape.
        """
        net, own = encoder.net.model, head.state_dict()
        try:
            fitted = to_head(self.tensors, own, new_classifier=True)
            load_mit(net, self.tensors)
        except WeightsError as error:
            raise WeightsError(f"{self.origin}: {error}") from None
        head.load_state_dict(fitted)
        encoder.origin, encoder.licence = self.origin, self.licence
        if fitted["classifier.weight"] is own["classifier.weight"]:
            log.info(
                "%s classifies %d classes and this model %d, so the classifier starts anew",
                self.origin,
                self.num_classes,
                len(own["classifier.weight"]),
            )

    @property
    def num_classes(self) -> int:
        """Of the file's classifier. `WeightsError`: there is no such head."""
        found = find_layout(self.tensors)
        name = found and found[0].name("classifier.weight", found[1], num_maps=4)
        if name not in self.tensors:
            raise WeightsError(
                f"{self.origin} holds no SegFormer head, or one without a classifier. Give a whole model; for an "
                "encoder alone, name it with encoder.pretrained."
            )
        return len(self.tensors[name])


def choose_weights(encoder: str, head: str, width: int | None, wanted: Any) -> tuple[Whole | None, Any]:
    """What `encoder.pretrained` names: weights for encoder and head together, or what `create_encoder` is to load.

    `encoder` and `head` are their names, `width` the head's. `wanted`: `ade20k`; `imagenet`; a file; a folder that
    holds one; or anything that `create_encoder` takes.

    Raises:
        ConfigError: `ade20k` for a model that has no such weights.
        WeightsError: a file that cannot be read, or a folder without one.
    """
    model, _ = split_tag(resolve_name(encoder))
    if wanted == "ade20k":
        return _ade20k(model, head, width), False
    if wanted == "imagenet":
        return None, True
    path = _path(wanted)
    if path is None:
        return None, wanted
    tensors = read_weights(path) if model in VARIANTS and head in HEADS else {}
    if not _has_head(tensors, head, path):
        return None, path
    return Whole(tensors, str(path)), False


def _ade20k(model: str, head: str, width: int | None) -> Whole | None:
    """The published whole model; None, and a warning, where it cannot be reached."""
    if model not in VARIANTS or head != HEAD:
        raise ConfigError(
            f"encoder.pretrained is ade20k, but those weights are whole SegFormers, and this is {model} with the head "
            f"'{head}'. Set model.name to segformer_b0 ... segformer_b5, or encoder.pretrained to true."
        )
    if width != WIDTHS[model]:
        raise ConfigError(
            f"encoder.pretrained is ade20k, but head.width is {width}, and the weights of {model} have "
            f"{WIDTHS[model]}. Leave out head.width, or set encoder.pretrained=imagenet, which has no head."
        )
    try:
        path = hub_file(ADE20K[model], HUB_FILES)
    except OutOfReachError as error:
        out_of_reach(model, ADE20K[model], str(error), None)
        return None
    return Whole(read_weights(path), ADE20K[model], LICENCE)


def _path(wanted: Any) -> Path | None:
    """The weight file that `wanted` names, if it names a file or a folder."""
    if not isinstance(wanted, str | Path) or str(wanted).lower() in WORDS:
        return None
    path = Path(wanted).expanduser()
    return weight_file(path) if path.is_dir() else path if path.is_file() else None


def weight_file(folder: Path) -> Path:
    """The weight file of a folder in Hugging Face's layout. `WeightsError`: there is none."""
    found = [folder / name for name in HUB_FILES if (folder / name).is_file()]
    if not found:
        raise WeightsError(
            f"the folder {folder} holds no {' and no '.join(HUB_FILES)}. Give a folder in Hugging Face's layout, or "
            "the path of a weight file."
        )
    return found[0]


def _has_head(tensors: dict[str, Tensor], head: str, path: Path) -> bool:
    """Whether there is a SegFormer head to load beside the encoder; of another function's a warning is given."""
    found = find_layout(tensors)
    if found is None:
        return False
    try:
        refuse_another_function(found[0], head)
    except WeightsError as error:
        log.warning("%s: only the encoder is taken from it: %s", path, error)
        return False
    return True
