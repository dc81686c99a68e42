"""How foreign checkpoints name the parameters of a Mix Transformer, and the names both ways.

Ours are NVlabs' names: `patch_embed{s}`, `block{s}.{j}`, `norm{s}`, `head`. A layout says, for one of these, which
tensors of the foreign file make it up. In the patterns s is the stage from 1, i = s - 1, j the block, p `weight` or
`bias`.

Sources of the names: github.com/NVlabs/SegFormer; huggingface/transformers, models/segformer;
open-mmlab/mmsegmentation, tools/model_converters/mit2mmseg.py.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

KEY = re.compile(r"(?:(patch_embed|norm)(\d)|block(\d)\.(\d+)|(head))\.(?:(.+)\.)?(weight|bias)")
"""A name of ours, taken apart."""


@dataclass(frozen=True)
class Layout:
    """Names of one origin. `prefix` (e.g. `backbone.`) differs from file to file and is found by `mark`."""

    title: str
    mark: re.Pattern[str]
    """Matches a key of the encoder; its first group is the prefix."""
    patch: str
    block: str
    norm: str
    head: str | None
    """The ImageNet classifier; None: the layout has none."""
    parts: Mapping[str, tuple[str, ...]]
    """Our part of a patch embedding or block -> theirs; several are stacked along the first axis."""
    stacked_qkv: bool = False
    """One tensor holds query, key and value, stacked in this order."""
    convolved_mlp: bool = False
    """A block's linear layers are written as 1x1 convolutions."""

    def names(self, key: str, prefix: str) -> tuple[str, ...]:
        """The foreign names for our `key`; empty if the layout has none."""
        match = KEY.fullmatch(key)
        if match is None:
            return ()
        kind, stage, block_stage, j, head, part, p = match.groups()
        if head:
            return (self.head.format(prefix=prefix, p=p),) if self.head else ()
        s = int(stage or block_stage)
        where = {"prefix": prefix, "s": s, "i": s - 1, "j": j, "p": p}
        if kind == "norm":
            return (self.norm.format(**where),)
        pattern = self.patch if kind else self.block
        theirs = self.parts.get(f"{kind}.{part}" if kind else part, ())
        return tuple(pattern.format(**where, part=name.format(p=p)) for name in theirs)

    def join(self, key: str, pieces: list[Tensor]) -> Tensor:
        """Our tensor from the foreign ones."""
        tensor = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        if self.stacked_qkv and (".attn.q." in key or ".attn.kv." in key):
            third = tensor.shape[0] // 3
            tensor = tensor[:third] if ".attn.q." in key else tensor[third:]
        return tensor.flatten(1) if _is_linear(key) and tensor.ndim == 4 else tensor

    def split(self, key: str, tensor: Tensor, count: int) -> tuple[Tensor, ...]:
        """Our tensor in so many pieces, one for each foreign name: the way back from `join`, but for the stacking."""
        convolved = self.convolved_mlp and _is_linear(key) and key.endswith(".weight")
        return (tensor[:, :, None, None] if convolved else tensor).chunk(count)


def _is_linear(key: str) -> bool:
    return ".fc1." in key or ".fc2." in key


_SAME = ("attn.q", "attn.kv", "attn.proj", "attn.sr", "attn.norm", "norm1", "norm2")
_MLP = ("mlp.fc1", "mlp.dwconv.dwconv", "mlp.fc2")

NVLABS = Layout(
    title="NVlabs and segmentation_models.pytorch",
    mark=re.compile(r"(.*?)(?:patch_embed[1-4]\.(?:proj|norm)|block[1-4]\.\d+)\."),
    patch="{prefix}patch_embed{s}.{part}",
    block="{prefix}block{s}.{j}.{part}",
    norm="{prefix}norm{s}.{p}",
    head="{prefix}head.{p}",
    parts={
        **{name: (f"{name}.{{p}}",) for name in (*_SAME, *_MLP)},
        "patch_embed.proj": ("proj.{p}",),
        "patch_embed.norm": ("norm.{p}",),
    },
)

HUGGING_FACE = Layout(
    title="Hugging Face files",
    mark=re.compile(r"(.*?)encoder\.(?:patch_embeddings\.\d|block\.\d\.\d+|layer_norm\.\d)\."),
    patch="{prefix}encoder.patch_embeddings.{i}.{part}",
    block="{prefix}encoder.block.{i}.{j}.{part}",
    norm="{prefix}encoder.layer_norm.{i}.{p}",
    head="classifier.{p}",
    parts={
        "patch_embed.proj": ("proj.{p}",),
        "patch_embed.norm": ("layer_norm.{p}",),
        "norm1": ("layer_norm_1.{p}",),
        "norm2": ("layer_norm_2.{p}",),
        "attn.q": ("attention.self.query.{p}",),
        "attn.kv": ("attention.self.key.{p}", "attention.self.value.{p}"),
        "attn.proj": ("attention.output.dense.{p}",),
        "attn.sr": ("attention.self.sr.{p}",),
        "attn.norm": ("attention.self.layer_norm.{p}",),
        "mlp.fc1": ("mlp.dense1.{p}",),
        "mlp.dwconv.dwconv": ("mlp.dwconv.dwconv.{p}",),
        "mlp.fc2": ("mlp.dense2.{p}",),
    },
)

TRANSFORMERS = Layout(
    title="transformers 5 in memory",
    mark=re.compile(r"(.*?)stages\.\d\.(?:patch_embeddings|blocks|layer_norm)\."),
    patch="{prefix}stages.{i}.patch_embeddings.{part}",
    block="{prefix}stages.{i}.blocks.{j}.{part}",
    norm="{prefix}stages.{i}.layer_norm.{p}",
    head="classifier.{p}",
    parts={
        **{name: (f"{name}.{{p}}",) for name in _MLP},
        "patch_embed.proj": ("proj.{p}",),
        "patch_embed.norm": ("layer_norm.{p}",),
        "norm1": ("layernorm_before.{p}",),
        "norm2": ("layernorm_after.{p}",),
        "attn.q": ("attention.q_proj.{p}",),
        "attn.kv": ("attention.k_proj.{p}", "attention.v_proj.{p}"),
        "attn.proj": ("attention.o_proj.{p}",),
        "attn.sr": ("attention.sequence_reduction.sequence_reduction.{p}",),
        "attn.norm": ("attention.sequence_reduction.layer_norm.{p}",),
    },
)

MMSEG = Layout(
    title="mmsegmentation from 0.20",
    mark=re.compile(r"(.*?)layers\.\d\.(?:0\.(?:projection|norm)|1\.\d+\.(?:attn|ffn|norm[12]))\."),
    patch="{prefix}layers.{i}.0.{part}",
    block="{prefix}layers.{i}.1.{j}.{part}",
    norm="{prefix}layers.{i}.2.{p}",
    head=None,
    parts={
        "patch_embed.proj": ("projection.{p}",),
        "patch_embed.norm": ("norm.{p}",),
        "norm1": ("norm1.{p}",),
        "norm2": ("norm2.{p}",),
        "attn.q": ("attn.attn.in_proj_{p}",),
        "attn.kv": ("attn.attn.in_proj_{p}",),
        "attn.proj": ("attn.attn.out_proj.{p}",),
        "attn.sr": ("attn.sr.{p}",),
        "attn.norm": ("attn.norm.{p}",),
        "mlp.fc1": ("ffn.layers.0.{p}",),
        "mlp.dwconv.dwconv": ("ffn.layers.1.{p}",),
        "mlp.fc2": ("ffn.layers.4.{p}",),
    },
    stacked_qkv=True,
    convolved_mlp=True,
)

LAYOUTS = (NVLABS, HUGGING_FACE, TRANSFORMERS, MMSEG)


def find_layout(keys: Iterable[str]) -> tuple[Layout, str] | None:
    """The layout and prefix that most of the keys have; None if no layout knows any."""
    seen: Counter[tuple[int, str]] = Counter()
    for key in keys:
        for index, layout in enumerate(LAYOUTS):
            if match := layout.mark.match(key):
                seen[index, match[1]] += 1
    if not seen:
        return None
    (index, prefix), _ = seen.most_common(1)[0]
    return LAYOUTS[index], prefix


def from_mit(tensors: Mapping[str, Tensor], layout: Layout, prefix: str) -> dict[str, Tensor]:
    """A Mix Transformer's state dict with the names of `layout`, which may have no place for a classifier.

    Hugging Face's files for whole models have the prefix `segformer.`, NVlabs' and mmsegmentation's whole models
    `backbone.`.
    """
    named: dict[str, list[Tensor]] = {}
    for key, tensor in sorted(tensors.items(), key=lambda item: ".attn.kv." in item[0]):  # stacked behind the query
        names = layout.names(key, prefix)
        assert names, f"{layout.title} has no place for '{key}'"
        for name, piece in zip(names, layout.split(key, tensor, len(names)), strict=True):
            named.setdefault(name, []).append(piece)
    return {name: torch.cat(pieces) if len(pieces) > 1 else pieces[0] for name, pieces in named.items()}
