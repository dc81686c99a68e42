"""Reading weight files, and the filter that fits foreign checkpoints to our Mix Transformer.

Nothing in a file can run: pickles are read with `weights_only=True`, safetensors hold no code.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from segwright import checkpoint
from segwright.encoders.layouts import LAYOUTS, Layout, find_layout
from segwright.errors import WeightsError

HEADS = ("head.", "decode_head.", "auxiliary_head.", "classifier.", "decoder.", "segmentation_head.")
"""What stands beside the encoder in the checkpoints of whole models."""
FIRST_CONV = "patch_embed1.proj.weight"
WRAPPERS = ("state_dict", "model", "teacher", "visionfm_state_dict")
"""Keys below which checkpoints keep their tensors; the last two: RETFound's and VisionFM's."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a checkpoint that PyTorch saved. `WeightsError`: it cannot be read."""
    return tensors_in(read_file(path), f"'{path}'")


def read_file(path: str | Path) -> Any:
    """What such a file holds, tensors or whatever stands around them. `WeightsError`: it cannot be read."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weight file '{path}'. Check the path.")
    if path.suffix != ".safetensors":
        return checkpoint.read_plain(path, [argparse.Namespace])  # RETFound's options: plain values
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"'{path}' cannot be read as safetensors ({str(error).rstrip('. ')}): it is cut off, damaged or of another "
            "kind. Get it again."
        ) from error


def tensors_in(found: Any, what: str) -> dict[str, Tensor]:
    """The state dict inside a checkpoint."""
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {k: v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise WeightsError(
            f"{what} holds no tensors by name, neither at its top nor under {' or '.join(map(repr, WRAPPERS))}. "
            "Give a state dict."
        )
    return tensors


def to_mit(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """timm's filter for `mit_b0` ... `mit_b5`: a foreign checkpoint -> exactly the keys that `model` has.

    Decode heads are left out. A first convolution of 3 channels is kept as it is: timm adapts it to `in_chans`.

    Raises:
        WeightsError: an unknown layout; a key that is missing, unexpected or of another shape.
    """
    tensors = tensors_in(state_dict, "The checkpoint")
    found = find_layout(tensors)
    if found is None:
        raise WeightsError(
            f"The checkpoint is of no layout that is known for a Mix Transformer: it has keys like {some_of(tensors)}. "
            f"Known are: {'; '.join(layout.title for layout in LAYOUTS)}. Convert it to one of them."
        )
    layout, prefix = found
    wanted = model.state_dict()
    own_head = _own_head(wanted, model)
    fitted, used, missing = _collect(tensors, [k for k in wanted if k not in own_head], layout, prefix)
    inside = (key for key in tensors if key.startswith(prefix) and key not in used)
    unexpected = [key for key in inside if not key.removeprefix(prefix).startswith(HEADS)]
    wrong = [k for k, tensor in fitted.items() if not _fits(k, tensor, wanted[k])]
    if missing or unexpected or wrong:
        shapes = [f"{k} {tuple(fitted[k].shape)} instead of {tuple(wanted[k].shape)}" for k in wrong]
        raise WeightsError(
            misfit(_name(model), layout.title, {"missing": missing, "unexpected": unexpected, "shape": shapes})
        )
    return fitted | own_head


def load_mit(model: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Loads a foreign checkpoint into a Mix Transformer; weights for RGB are spread over other channels as timm does.

    Raises:
        WeightsError: as `to_mit`.
    """
    fitted = to_mit(tensors, model)
    channels = model.get_parameter(FIRST_CONV).shape[1]
    if fitted[FIRST_CONV].shape[1] != channels:
        fitted[FIRST_CONV] = adapt_input_conv(channels, fitted[FIRST_CONV])
    model.load_state_dict(fitted)


def _collect(
    tensors: Mapping[str, Tensor], keys: list[str], layout: Layout, prefix: str
) -> tuple[dict[str, Tensor], set[str], list[str]]:
    """Our tensors, the foreign names used for them, and the foreign names that are not there."""
    fitted: dict[str, Tensor] = {}
    used: set[str] = set()
    missing: list[str] = []
    for key in keys:
        names = layout.names(key, prefix)
        absent = [name for name in names if name not in tensors]
        missing += absent if names else [key]
        used.update(names)
        if names and not absent:
            fitted[key] = layout.join(key, [tensors[name] for name in names])
    return fitted, used, missing


def _own_head(wanted: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The classifier's own initial values, where it is for other classes than the file's; else nothing."""
    cfg = getattr(model, "pretrained_cfg", {})
    if getattr(model, "num_classes", 0) == cfg.get("num_classes", 1000):
        return {}
    return {key: tensor for key, tensor in wanted.items() if key.startswith("head.")}


def _fits(key: str, tensor: Tensor, wanted: Tensor) -> bool:
    if key == FIRST_CONV and tensor.ndim == 4 and tensor.shape[1] == 3:
        return tensor.shape[::2] == wanted.shape[::2] and tensor.shape[3] == wanted.shape[3]
    return tensor.shape == wanted.shape


def _name(model: nn.Module) -> str:
    return getattr(model, "pretrained_cfg", {}).get("architecture") or type(model).__name__


def some_of(keys: Any, count: int = 5) -> str:
    """The first few."""
    listed = list(keys)
    more = f", ... ({len(listed)} in all)" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more


def misfit(name: str, layout: str, problems: Mapping[str, list[str]]) -> str:
    """The message for a checkpoint of that layout whose keys are not those of the model `name`."""
    titles = {"missing": "missing", "unexpected": "not known", "shape": "of another shape"}
    lines = [f"{len(keys)} {titles[kind]}: {some_of(keys)}" for kind, keys in problems.items() if keys]
    return (
        f"The checkpoint (layout: {layout}) does not fit {name}; keys {'; '.join(lines)}. "
        "Choose the encoder that it was made with, or get the file again."
    )
