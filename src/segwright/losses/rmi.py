"""Region mutual information: how much the labels of a 3 x 3 neighbourhood still vary once its probabilities are known.

Zhao et al. 2019, "Region Mutual Information Loss", https://arxiv.org/abs/1910.12037, for every node of a tree. Labels L
and probabilities P are reduced by a 3 x 3 maximum at stride 3; each place then gives a vector of its 9 neighbours,
centred over the image's places. With the matrices L and P of these vectors in their columns,

    S = L L' - L P' (P P' + a I)^-1 P L'
    value = 1/2 log det(S + a I) / 9, the mean over images, summed over nodes

A log-determinant may be negative. Computed in fp64, as in the paper's code: in fp32 the inverse loses its digits.

Shapes: B images, N nodes, h x w the logits, H x W the mask, M places.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from segwright.bilinear import exactly
from segwright.datasets.base import IGNORE
from segwright.hierarchy import Hierarchy
from segwright.hierarchy.tables import tables_of
from segwright.losses.pieces import resized

SIDE = 3
"""Of a neighbourhood, and of the windows whose maximum is taken."""
RIDGE = 1e-3
"""a: keeps both matrices invertible."""
FLOOR = 1e-6
"""Added to every probability, as in the paper's code."""


def rmi(logits: Tensor, leaf: Tensor, hierarchy: Hierarchy) -> Tensor:
    """The loss, a scalar. logits (B, N, h, w); leaf (B, H, W): which leaf is true, 255 = ignored.

    One image at a time is brought to the mask's size, and again in the backward pass: no map of the batch is held.
    """
    truth = nodes_of(hierarchy, leaf.device)
    with exactly(logits):
        values = [
            checkpoint(_of_image, logits[i : i + 1], leaf[i : i + 1], truth, use_reentrant=False)
            for i in range(len(logits))
        ]
        return torch.stack(values).mean()


def nodes_of(hierarchy: Hierarchy, device: torch.device) -> Tensor:
    """(K + 1, N): 1 where a node is true of a leaf's pixels; the last row, of ignored ones, is 0."""
    table = torch.zeros(hierarchy.num_leaves + 1, hierarchy.num_nodes, device=device)
    for nodes in tables_of(hierarchy, device).leaf_nodes:
        table[torch.arange(hierarchy.num_leaves, device=device), nodes] = 1
    return table


def _of_image(logits: Tensor, leaf: Tensor, truth: Tensor) -> Tensor:
    counted = leaf != IGNORE
    labels = truth[leaf.masked_fill(~counted, len(truth) - 1)].permute(0, 3, 1, 2)
    probabilities = torch.sigmoid(resized(logits, leaf.shape[-2:])) * counted[:, None]
    return information(labels, probabilities).to(logits.dtype if logits.dtype == torch.float64 else torch.float32)


def information(labels: Tensor, probabilities: Tensor) -> Tensor:
    """The value for labels and probabilities (B, N, H, W), both 0 to 1 and 0 where ignored: a scalar in fp64."""
    true, guessed = _neighbourhoods(labels.double()), _neighbourhoods(probabilities.double() + FLOOR)
    ridge = RIDGE * torch.eye(SIDE * SIDE, dtype=torch.float64, device=labels.device)
    cross = true @ guessed.mT
    rest = true @ true.mT - cross @ torch.linalg.solve(guessed @ guessed.mT + ridge, cross.mT)
    half_log_det = torch.linalg.cholesky(rest + ridge).diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return half_log_det.mean(0).sum() / (SIDE * SIDE)


def _neighbourhoods(maps: Tensor) -> Tensor:
    """(B, N, H, W) -> (B, N, 9, M), centred over the places."""
    small = F.max_pool2d(maps, SIDE, SIDE, padding=SIDE // 2)
    height, width = (side - SIDE + 1 for side in small.shape[-2:])
    shifted = [small[..., y : y + height, x : x + width].flatten(2) for y in range(SIDE) for x in range(SIDE)]
    vectors = torch.stack(shifted, 2)
    return vectors - vectors.mean(-1, keepdim=True)
