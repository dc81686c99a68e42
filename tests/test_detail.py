"""The detail path: full resolution out, at any size, and as deep as it is told."""

import pytest
import torch

from segwright.errors import ConfigError
from segwright.heads.detail import DetailPath
from segwright.model import Config, count_parameters


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_logits_come_at_the_images_own_size_and_every_parameter_learns(depth):
    path = DetailPath(8, 2, detail=4, depth=depth)
    logits = path(torch.randn(2, 3, 33, 50), torch.randn(2, 8, 9, 13))
    assert logits.shape == (2, 2, 33, 50)
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in path.parameters())


def test_a_further_convolution_costs_its_own_weights():
    """4 to 4 channels, 3 x 3, and a batch norm's two values a channel: 4 * 4 * 9 + 2 * 4 = 152."""
    one, two, three = (count_parameters(DetailPath(8, 2, detail=4, depth=depth)) for depth in (1, 2, 3))
    assert two - one == three - two == 152


def test_a_path_without_a_convolution_is_refused():
    with pytest.raises(ConfigError, match=r"model\.detail_depth is 0"):
        Config(detail=4, detail_depth=0)
