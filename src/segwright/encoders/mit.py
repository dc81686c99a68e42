"""Mix Transformer (MiT), the encoder of SegFormer.

Xie et al. 2021, "SegFormer", section 3.1, https://arxiv.org/abs/2105.15203
Parameter names, epsilons and initial values follow https://github.com/NVlabs/SegFormer, so that its files fit as they
are; the code is written anew.

Tokens stay (B, N, C) throughout: what a convolution needs of them is a channels-last view, not a copy.

Shapes: B batch, C channels, H x W the map's size, N = H * W tokens, r the reduction of keys and values.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segwright.encoders.attention import attend
from segwright.encoders.fused import add_linear, conv_gelu
from segwright.errors import ConfigError

NUM_HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
STRIDES = (4, 8, 16, 32)
MLP_RATIO = 4
BLOCK_EPS = 1e-6
"""For norm1, norm2 and the stage norms; patch embedding and reduction have PyTorch's 1e-5, as in the published code."""


def as_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens (B, N, C) as a channels-last map (B, C, H, W), without a copy.

    A view of the transposed tokens would do too, but gives a batch of one a stride by which PyTorch does not recognise
    channels-last; the convolution then copies twice (measured: 37 ms for what takes 2 ms).
    """
    return tokens.view(tokens.shape[0], height, width, -1).permute(0, 3, 1, 2)


def as_tokens(maps: Tensor) -> Tensor:
    """A map (B, C, H, W) as tokens (B, N, C); without a copy if it is channels-last."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


class PatchEmbed(nn.Module):
    """Overlapping patches: (B, C_in, H, W) -> (B, C, ceil(H / stride), ceil(W / stride)), normed."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(channels)

    def forward(self, maps: Tensor) -> tuple[Tensor, int, int]:
        """(B, C_in, H, W) -> tokens (B, N, C) and the new height and width."""
        maps = self.proj(maps)
        return self.norm(as_tokens(maps)), maps.shape[2], maps.shape[3]


class BlockConv2d(nn.Conv2d):
    """A convolution whose kernel is its stride, as one matrix product over r x r blocks: up to twice as fast forward,
    eleven times with the backward pass.

    (B, C, H, W) -> (B, C_out, H // r, W // r), channels-last. Rows and columns beyond a whole block are dropped, as the
    convolution does.
    """

    def __init__(self, channels: int, r: int) -> None:
        super().__init__(channels, channels, kernel_size=r, stride=r)

    def forward(self, input: Tensor) -> Tensor:
        r = self.stride[0]
        batch, channels, height, width = input.shape
        rows, columns = height // r, width // r
        image = input.permute(0, 2, 3, 1)[:, : rows * r, : columns * r]
        blocks = image.reshape(batch, rows, r, columns, r, channels).transpose(2, 3).flatten(3)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(blocks, weight, self.bias).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head attention with keys and values taken from a map that is r times smaller."""

    def __init__(self, channels: int, num_heads: int, r: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.r = r
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if r > 1:
            self.sr = BlockConv2d(channels, r)
            self.norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, height: int, width: int, onto: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C), added to `onto` if there is one."""
        batch, length, channels = tokens.shape
        source = self.norm(as_tokens(self.sr(as_map(tokens, height, width)))) if self.r > 1 else tokens
        query = self.q(tokens).view(batch, length, self.num_heads, -1).transpose(1, 2)
        keys_values = self.kv(source).view(batch, source.shape[1], 2, self.num_heads, -1)
        key, value = keys_values.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(query, key, value).transpose(1, 2).reshape(batch, length, channels)
        return self.proj(mixed) if onto is None else add_linear(onto, self.proj, mixed)


class DepthwiseConv(nn.Module):
    """3x3 depthwise convolution of tokens: it tells them where they are, in place of a position embedding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """(B, N, C) -> (B, N, C), with the GELU that follows."""
        return as_tokens(conv_gelu(self.dwconv, as_map(tokens, height, width)))


class MixFeedForward(nn.Module):
    """Linear, depthwise convolution, GELU, linear."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels * MLP_RATIO)
        self.dwconv = DepthwiseConv(channels * MLP_RATIO)
        self.fc2 = nn.Linear(channels * MLP_RATIO, channels)

    def forward(self, tokens: Tensor, height: int, width: int, onto: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C), added to `onto` if there is one."""
        hidden = self.dwconv(self.fc1(tokens), height, width)
        return self.fc2(hidden) if onto is None else add_linear(onto, self.fc2, hidden)


class Block(nn.Module):
    """Attention, then feed-forward, each normed before and added to what came in."""

    def __init__(self, channels: int, num_heads: int, r: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.attn = Attention(channels, num_heads, r)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.mlp = MixFeedForward(channels)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        if not self.training or isinstance(self.drop_path, nn.Identity):
            tokens = self.attn(self.norm1(tokens), height, width, onto=tokens)
            return self.mlp(self.norm2(tokens), height, width, onto=tokens)
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), height, width))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens), height, width))


class MixTransformer(nn.Module):
    """Image (B, in_chans, H, W), each side at least 29 px -> maps of strides 4, 8, 16, 32 and, if asked, class scores.

    `num_classes` 0 leaves the classifier out. `drop_path_rate` is the last block's; it grows evenly from 0.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = widths[-1]
        self.grad_checkpointing = False
        self.num_stages = len(depths)
        self.feature_info = [
            {"num_chs": width, "reduction": stride, "module": f"norm{stage}"}
            for stage, (width, stride) in enumerate(zip(widths, STRIDES, strict=True), start=1)
        ]
        last = max(sum(depths) - 1, 1)
        rates = itertools.count()
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            kernel, stride = (7, 4) if index == 0 else (3, 2)
            embed = PatchEmbed(widths[index - 1] if index else in_chans, width, kernel, stride)
            blocks = [
                Block(width, NUM_HEADS[index], REDUCTIONS[index], drop_path_rate * next(rates) / last)
                for _ in range(depth)
            ]
            self.add_module(f"patch_embed{index + 1}", embed)
            self.add_module(f"block{index + 1}", nn.ModuleList(blocks))
            self.add_module(f"norm{index + 1}", nn.LayerNorm(width, eps=BLOCK_EPS))
        self.head = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()
        self.apply(_initialise)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping what it computed."""
        self.grad_checkpointing = enable

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last of `indices`, and the classifier. The norms are part of the maps and stay."""
        taken = _taken(indices, self.num_stages)
        last = max(taken)
        for stage in range(last + 2, self.num_stages + 1):
            for part in ("patch_embed", "block", "norm"):
                delattr(self, f"{part}{stage}")
        self.num_stages = last + 1
        if prune_head:
            self.head = nn.Identity()
        return taken

    def forward_stage(self, maps: Tensor, stage: int) -> Tensor:
        """Stage 1 to 4: (B, C_before, H, W) -> (B, C, h, w), normed, channels-last. `ConfigError`: too small a map."""
        tokens, height, width = self.get_submodule(f"patch_embed{stage}")(maps)
        r = REDUCTIONS[stage - 1]
        if min(height, width) < r:
            raise ConfigError(
                f"the image is too small: stage {stage} of the Mix Transformer has a map of {height} x {width}, and "
                f"its attention takes blocks of {r} x {r}. Give images of at least 29 x 29 pixels."
            )
        for block in self.get_submodule(f"block{stage}").children():
            if self.grad_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, height, width, use_reentrant=False)
            else:
                tokens = block(tokens, height, width)
        return as_map(self.get_submodule(f"norm{stage}")(tokens), height, width)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """timm's protocol: image -> (last map, maps of `indices`), or these maps alone.

        The maps are normed whether `norm` says so or not: the norms are part of the stages. Only NCHW is given.
        """
        if output_fmt != "NCHW":
            raise ConfigError(f"a Mix Transformer gives maps as NCHW, not as {output_fmt}. Permute them yourself.")
        taken = _taken(indices, self.num_stages)
        last = max(taken)
        maps: list[Tensor] = []
        for stage in range(1, (last + 1 if stop_early or intermediates_only else self.num_stages) + 1):
            x = self.forward_stage(x, stage)
            if stage - 1 in taken:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def forward_features(self, x: Tensor) -> Tensor:
        """Image -> the last map (B, C, ceil(H / 32), ceil(W / 32))."""
        for stage in range(1, self.num_stages + 1):
            x = self.forward_stage(x, stage)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map -> scores (B, num_classes), or the pooled channels (B, C)."""
        pooled = x.mean(dim=(2, 3))
        return pooled if pre_logits else self.head(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Image -> scores (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


def _taken(indices: int | Sequence[int] | None, num_stages: int) -> list[int]:
    """timm's ways to say which maps: None: all; a number: that many from the end; or these (from the end if < 0)."""
    if indices is None:
        return list(range(num_stages))
    if isinstance(indices, int):
        return list(range(num_stages - indices, num_stages))
    return [index % num_stages for index in indices]


def _initialise(module: nn.Module) -> None:
    """Initial values as NVlabs has them: linear std 0.02, convolution std sqrt(2 / fan_out), biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
