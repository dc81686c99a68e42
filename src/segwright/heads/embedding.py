"""An embedding of each place for losses that compare places, beside any head.

A projection of two 1x1 convolutions with batch norm and ReLU between, then unit length, as in Wang et al. 2021,
"Exploring Cross-Image Pixel Contrast for Semantic Segmentation", section 3.3, https://arxiv.org/abs/2101.11939; here on
the coarsest map.

Shapes: B batch, C channels, E the embedding's width.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from segwright.errors import ConfigError
from segwright.heads.blocks import conv_norm_relu


class EmbeddingHead(nn.Module):
    """maps [(B, C_i, h_i, w_i)], finest first -> (B, E, h, w) of the last map's size, fp32, of length 1 at each place.

    Raises:
        ConfigError: a width below 1.
    """

    def __init__(self, channels_in: int, width: int = 256) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(f"the embedding's width is {width}; it needs at least 1 channel. 256 is the default.")
        self.project = nn.Sequential(*conv_norm_relu(channels_in, channels_in), nn.Conv2d(channels_in, width, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        # a length in half precision loses small vectors and overflows on large ones
        return F.normalize(self.project(maps[-1]).float(), dim=1, eps=1e-6)
