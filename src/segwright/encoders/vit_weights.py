"""Weight files of plain ViTs, in each family's own layout, fitted to timm's model.

Known are timm's own names, Meta's DINOv2 and DINOv3, and MAE's, RETFound's and VisionFM's, with whatever stands beside
the encoder in them (decoder, classifier, the heads of the self-supervised training). Positions are resized to the
model's table, patches never: a kernel for other pixels is another model.
"""

import contextlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models import adapt_input_conv
from torch import Tensor

from segwright.encoders.weights import misfit, read_weights, some_of
from segwright.errors import WeightsError

FIRST_CONV = "patch_embed.proj.weight"
BESIDE = ("head.", "decoder_", "dino_head.", "ibot_head.", "lm_head.")
"""What a file holds beside the encoder."""
LAYOUT = "plain ViT"


def load_vit(vit: Any, path: str | Path, name: str) -> None:
    """Loads the file into timm's model; `name` is for messages.

    Raises:
        WeightsError: the file cannot be read, or a key is missing, not known or of another shape.
    """
    tensors = read_weights(path)
    try:
        vit.load_state_dict(fit_vit(tensors, vit, name))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def fit_vit(tensors: Mapping[str, Tensor], vit: Any, name: str) -> dict[str, Tensor]:
    """A foreign checkpoint -> exactly the keys that timm's model `vit` has.

    Raises:
        WeightsError: another layout; a key that is missing, not known or of another shape.
    """
    inside = _inside(tensors, name)
    _same_patch(inside[FIRST_CONV], vit, name)
    _no_bias_lost(inside, vit, name)
    fitted, wanted = _as_timm(inside, vit, name), vit.state_dict()
    first = fitted.get(FIRST_CONV)
    if first is not None and first.shape[1] == 3 != wanted[FIRST_CONV].shape[1]:
        fitted[FIRST_CONV] = adapt_input_conv(wanted[FIRST_CONV].shape[1], first)
    missing = [key for key in wanted if key not in fitted]
    unknown = [key for key in fitted if key not in wanted]
    wrong = [
        f"{key} {tuple(fitted[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in fitted and fitted[key].shape != tensor.shape
    ]
    if missing or unknown or wrong:
        raise WeightsError(misfit(name, LAYOUT, {"missing": missing, "unexpected": unknown, "shape": wrong}))
    return fitted


def _inside(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The encoder's tensors without the prefix that they all have in the file, e.g. `module.backbone.`."""
    prefixes = [key.removesuffix(FIRST_CONV) for key in tensors if key.endswith(FIRST_CONV)]
    if len(prefixes) != 1:
        seen = f"{len(prefixes)} ({some_of(prefixes)})" if prefixes else f"none, but keys like {some_of(tensors)}"
        raise WeightsError(
            f"The checkpoint does not fit {name}: it should hold one '{FIRST_CONV}', below whatever prefix, and has "
            f"{seen}. Known are the layouts of timm, Meta's DINOv2 and DINOv3, MAE, RETFound and VisionFM."
        )
    own = {key.removeprefix(prefixes[0]): tensor for key, tensor in tensors.items() if key.startswith(prefixes[0])}
    return {key: tensor for key, tensor in own.items() if not key.startswith(BESIDE)}


def _same_patch(first: Tensor, vit: Any, name: str) -> None:
    """timm would resize the kernel without a word."""
    found, wanted = tuple(first.shape[-2:]), tuple(vit.patch_embed.patch_size)
    if first.ndim == 4 and found != wanted:
        raise WeightsError(
            f"The checkpoint does not fit {name}: its patches are {found[0]} x {found[1]} pixels instead of "
            f"{wanted[0]} x {wanted[1]}. Choose the encoder that it was made with."
        )


def _no_bias_lost(inside: Mapping[str, Tensor], vit: Any, name: str) -> None:
    """Meta's DINOv3 has biases of query and value, zero as published; timm's filter drops them whatever they are."""
    if "storage_tokens" not in inside or "blocks.0.attn.q_bias" in vit.state_dict():
        return
    for key, bias in inside.items():
        if not key.endswith("attn.qkv.bias"):
            continue
        query, _, value = bias.chunk(3)
        if query.any() or value.any():
            raise WeightsError(
                f"The checkpoint does not fit {name}: its '{key}' is not zero, and this model has no such bias. "
                f"Choose the model that has, '{name}_qkvb'."
            )


def _as_timm(inside: dict[str, Tensor], vit: Any, name: str) -> dict[str, Tensor]:
    """Through timm's own filter for the model's class: names of other origins, and the table of positions resized."""
    convert = sys.modules[type(vit).__module__].checkpoint_filter_fn
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints about every bias that is not there
            return convert(dict(inside), vit)
    except (AssertionError, AttributeError, KeyError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"The checkpoint does not fit {name}: {str(error) or type(error).__name__}. "
            "Choose the encoder that it was made with."
        ) from error
