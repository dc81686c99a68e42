"""How foreign checkpoints name the parameters of SegFormer's heads, and the names both ways.

There are two functions, each a head of the catalogue, and no weights of one can express the other:

- `segformer`, the published one. Our names are Hugging Face's file names below `decode_head.`. The fuse convolution's
  columns go from the coarsest map to the finest in every layout, so no tensor changes, only names do. NVlabs' files
  carry a layer that nothing uses, `conv_seg`, which is dropped.
- `segformer_mmseg`, mmsegmentation's own from 0.20: a batch norm and a ReLU behind each projection, finest map first.
  Our names are its file's, but for the classifier, which is `conv_seg` there.

In the patterns i is the map from 0, the finest, s = i + 1, d the number of maps - 1 - i (0 the coarsest).

Sources of the names: github.com/NVlabs/SegFormer, huggingface/transformers (models/segformer), qubvel-org/
segmentation_models.pytorch (decoders/segformer), open-mmlab/mmsegmentation (decode_heads/segformer_head.py).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from segwright.errors import WeightsError

KEY = re.compile(r"(?:(?:linear_c|convs)\.(\d)\.)?([\w.]+)\.(\w+)")
"""A name of ours, taken apart: map, part, parameter."""
COUNTER = "num_batches_tracked"
"""How a batch norm's count ends. Old files lack it; it plays no part in what the head computes."""
HEADS = {"segformer": "linear_fuse.weight", "segformer_mmseg": "fusion_conv.conv.weight"}
"""The heads by their names in the catalogue, and a parameter that only this one has."""


@dataclass(frozen=True)
class Layout:
    """Names of one origin; each begins with the file's prefix, which `mark`'s first group finds."""

    title: str
    mark: re.Pattern[str]
    """Matches a key of the projections."""
    own: re.Pattern[str]
    """Matches, behind the prefix, what belongs to the head."""
    parts: Mapping[str, str]
    """Our part -> their name."""
    head: str = "segformer"
    """Whose function the weights are, one of `HEADS`."""

    def name(self, key: str, prefix: str, num_maps: int) -> str:
        """The foreign name for our `key`."""
        match = KEY.fullmatch(key)
        assert match is not None, f"'{key}' is no parameter of a SegFormer head"
        assert match[2] in self.parts, f"{self.title} has no place for '{key}'"
        i = int(match[1] or 0)
        return f"{prefix}{self.parts[match[2]]}.{match[3]}".format(i=i, s=i + 1, d=num_maps - 1 - i)


HUGGING_FACE = Layout(
    title="Hugging Face files",
    mark=re.compile(r"(.*?)linear_c\.\d\.proj\."),
    own=re.compile(r"linear_c\.|linear_fuse\.|batch_norm\.|classifier\."),
    parts={
        "proj": "linear_c.{i}.proj",
        "linear_fuse": "linear_fuse",
        "batch_norm": "batch_norm",
        "classifier": "classifier",
    },
)
TRANSFORMERS = Layout(
    title="transformers 5 in memory",
    mark=re.compile(r"(.*?)linear_projections\.\d\.proj\."),
    own=re.compile(r"linear_projections\.|linear_fuse\.|batch_norm\.|classifier\."),
    parts={**HUGGING_FACE.parts, "proj": "linear_projections.{i}.proj"},
)
NVLABS = Layout(
    title="NVlabs",
    mark=re.compile(r"(.*?)linear_c\d\.proj\."),
    own=re.compile(r"linear_c\d\.|linear_fuse\.|linear_pred\."),
    parts={
        "proj": "linear_c{s}.proj",
        "linear_fuse": "linear_fuse.conv",
        "batch_norm": "linear_fuse.bn",
        "classifier": "linear_pred",
    },
)
SMP = Layout(
    title="segmentation_models.pytorch",
    mark=re.compile(r"(.*?)decoder\.mlp_stage\.\d\.linear\."),
    own=re.compile(r"decoder\.|segmentation_head\."),
    parts={
        "proj": "decoder.mlp_stage.{d}.linear",
        "linear_fuse": "decoder.fuse_stage.0",
        "batch_norm": "decoder.fuse_stage.1",
        "classifier": "segmentation_head.0",
    },
)
MMSEG = Layout(
    title="mmsegmentation from 0.20",
    mark=re.compile(r"(.*?)fusion_conv\.(?:conv|bn)\."),
    own=re.compile(r"convs\.|fusion_conv\.|conv_seg\."),
    parts={
        "conv": "convs.{i}.conv",
        "bn": "convs.{i}.bn",
        "fusion_conv.conv": "fusion_conv.conv",
        "fusion_conv.bn": "fusion_conv.bn",
        "classifier": "conv_seg",
    },
    head="segformer_mmseg",
)
LAYOUTS = (HUGGING_FACE, TRANSFORMERS, NVLABS, SMP, MMSEG)


def find_layout(keys: Iterable[str]) -> tuple[Layout, str] | None:
    """The layout of a checkpoint's SegFormer head and the prefix of its names; None: there is no such head."""
    for key in keys:
        for layout in LAYOUTS:
            if match := layout.mark.match(key):
                return layout, match[1]
    return None


def refuse_another_function(layout: Layout, head: str) -> None:
    """Raises `WeightsError` where weights in this layout are not those of `head`, one of `HEADS`."""
    if layout.head != head:
        raise WeightsError(
            f"the checkpoint's SegFormer head (layout: {layout.title}) is another function than the head '{head}': "
            "mmsegmentation's own, from 0.20, has a batch norm and a ReLU behind each projection, and the published "
            f"one has none, so no weights are right in both. Set head.name: {layout.head}, with encoder.name in the "
            "place of model.name, or take the encoder alone."
        )


def to_head(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], new_classifier: bool = False
) -> dict[str, Tensor]:
    """A foreign checkpoint -> exactly the keys of `own`, a SegFormer head's state dict. An encoder's are passed by.

    `new_classifier` leaves `own`'s classifier where it is for another number of classes than the file's.

    Raises:
        WeightsError: no SegFormer head in a known layout, or another function's; a key that is missing, not known or of
            another shape.
    """
    found = find_layout(tensors)
    if found is None:
        raise WeightsError(
            f"the checkpoint has no SegFormer head of a known layout: it has keys like {_some(list(tensors))}. Known "
            f"are {', '.join(layout.title for layout in LAYOUTS)}. Convert it to one of them."
        )
    layout, prefix = found
    refuse_another_function(layout, _head_of(own))
    num_maps = sum(key.endswith("proj.weight") for key in own)
    names = {key: layout.name(key, prefix, num_maps) for key in own}
    fitted = {key: tensors[name] for key, name in names.items() if name in tensors}
    for key in (key for key in own if key.endswith(COUNTER)):
        fitted.setdefault(key, torch.zeros_like(own[key]))
    classes = len(own["classifier.weight"])
    if new_classifier and len(fitted.get("classifier.weight", ())) != classes:
        fitted |= {key: tensor for key, tensor in own.items() if key.startswith("classifier.")}
    _check(fitted, own, names, _strangers(tensors, names, layout, prefix), layout)
    return fitted


def from_head(head: Mapping[str, Tensor], layout: Layout, prefix: str = "") -> dict[str, Tensor]:
    """A SegFormer head's state dict with the names of `layout`.

    The layout is one of the head's own function. Hugging Face's, NVlabs' and mmsegmentation's whole models have the
    prefix `decode_head.`, SMP's none.
    """
    num_maps = sum(key.endswith("proj.weight") for key in head)
    return {layout.name(key, prefix, num_maps): tensor for key, tensor in head.items()}


def _head_of(own: Mapping[str, Tensor]) -> str:
    """The name in the catalogue of the head that has this state dict."""
    return next(head for head, key in HEADS.items() if key in own)


def _strangers(tensors: Mapping[str, Tensor], names: Mapping[str, str], layout: Layout, prefix: str) -> list[str]:
    """Keys of the checkpoint's head that ours has no place for."""
    known = set(names.values())
    inside = (key for key in tensors if key.startswith(prefix) and layout.own.match(key[len(prefix) :]))
    return [key for key in inside if key not in known]


def _check(
    fitted: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    names: Mapping[str, str],
    strangers: list[str],
    layout: Layout,
) -> None:
    wrong = [
        f"{names[key]} {tuple(fitted[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if key in fitted and fitted[key].shape != tensor.shape
    ]
    missing = [names[key] for key in own if key not in fitted]
    problems = {"missing": missing, "not known": strangers, "of another shape": wrong}
    lines = [f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in problems.items() if keys]
    if lines:
        raise WeightsError(
            f"the checkpoint's head (layout: {layout.title}) does not fit; keys {'; '.join(lines)}. Choose head.width, "
            "the encoder and the number of classes that it was made with, or get the file again."
        )


def _some(keys: list[str], count: int = 5) -> str:
    """The first few."""
    return ", ".join(keys[:count]) + (f", ... ({len(keys)} in all)" if len(keys) > count else "")
