"""Convolution, batch norm and ReLU, in the arrangements that several heads share, and what both SegFormers end in."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import ConfigError
from segwright.heads.summing import linear


def check_segformer(width: int, dropout: float) -> None:
    """Raises `ConfigError` where no SegFormer head can have this width or this dropout."""
    if width < 1:
        raise ConfigError(f"head.width is {width}; a projection needs at least 1 channel. The paper: 256 or 768.")
    if not 0 <= dropout < 1:
        raise ConfigError(f"head.dropout is {dropout}; it is a share, from 0 to below 1. The paper's code: 0.1.")


def classify(fused: Tensor, dropout: nn.Module, classifier: nn.Conv2d) -> Tensor:
    """Dropout and a 1x1 classifier: (B, E, h, w) -> (B, K, h, w).

    A channel that is dropped from the map may as well be dropped from that image's classifier: the same function
    and gradients without another map of E channels.
    """
    weight, bias = classifier.weight.flatten(1), classifier.bias
    if not (dropout.training and isinstance(dropout, nn.Dropout2d) and dropout.p > 0):
        return linear(dropout(fused), weight, bias)
    assert bias is not None
    batch, width, height, columns = fused.shape
    kept = dropout(weight.new_ones(batch, width, 1, 1)).flatten(2).transpose(1, 2)  # (B, 1, E)
    places = fused.permute(0, 2, 3, 1).flatten(1, 2)  # (B, h * w, E)
    logits = torch.matmul(places, (weight * kept).transpose(1, 2)) + bias
    return logits.view(batch, height, columns, -1).permute(0, 3, 1, 2)


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """A convolution that keeps the map's size, without bias, then batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        BatchNormOfAny(outputs),
        nn.ReLU(inplace=True),
    )


def enlarge(maps: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) at the size of `like` (B, D, H, W): bilinear; as it is, where the sizes are equal."""
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    if maps.shape[-2:] == (1, 1):  # what bilinear gives, for nothing
        return maps.expand(-1, -1, *like.shape[-2:])
    return F.interpolate(maps, size=like.shape[-2:], mode="bilinear", align_corners=False)


class BatchNormOfAny(nn.BatchNorm2d):
    """Batch norm that trains on a single value per channel too: (1, C, 1, 1), a pooled map of one image.

    Such a batch has no variance. PyTorch refuses it; here it is normed by the running statistics and leaves them alone.
    Everything else is `nn.BatchNorm2d`, its names and the conversion to `SyncBatchNorm` included.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(input, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(input)
