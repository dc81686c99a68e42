"""Convolution, batch norm and ReLU, in the arrangements that several heads share."""

from torch import Tensor, nn
from torch.nn import functional as F


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
