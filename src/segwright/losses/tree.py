"""Losses for classes that form a tree: tree-min, a cross-entropy a level, and where asked RMI and tree-triplet.

Li et al. 2022, "Deep Hierarchical Semantic Segmentation", sections 3.2 and 3.3, https://arxiv.org/abs/2203.14335.
With z the logits of the nodes, A_v and C_v those above and below v (both with v), l_v = 1 where v is true of a pixel:

    x_v = -min of z over A_v where l_v = 1, else max of z over C_v
    tree-min  sum_v softplus(x_v)                 = -l log min s - (1 - l) log(1 - max s),  s = sigmoid(z)
    focal     sum_v softplus(x_v) sigmoid(x_v)^g

so a group that is less likely than what is in it costs. As in the paper's code each level is a mean over its nodes and
the pixels that count, and levels are added. The least and the greatest are taken among logits, and softplus keeps a
gradient where log(sigmoid(z) + 1e-8) has none.

A coarse label says of a pixel no more than its group. On the levels below that one tree-min adds nothing for the
group's nodes (they stay in the level's mean), and the cross-entropy is that of all of them together, -log of the sum of
their probabilities.

Shapes: B batch, N nodes, D levels, h x w the logits, H x W the mask, r rows of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from segwright.bilinear import exactly
from segwright.datasets.base import IGNORE
from segwright.errors import ConfigError
from segwright.hierarchy import Hierarchy
from segwright.hierarchy.tables import Tables, greatest_below, tables_of
from segwright.losses.arguments import check_range, needs_several
from segwright.losses.pieces import pieces, working_type
from segwright.losses.rmi import rmi
from segwright.losses.tree_triplet import SAMPLES, at_random, ramp, tree_triplet

FOCUS = 2.0
"""g of the focal form (section 3.2 of the paper)."""


@dataclass(frozen=True, kw_only=True)
class Config:
    form: Literal["bce", "focal"] = "bce"
    """Of the tree-min loss: plain, or with the factor that lets easy nodes count less."""
    tree_weight: float = 5.0
    """Factor of the tree-min loss. The paper's code has 5 with bce and two levels, 0.5 with focal and three."""
    fine_weight: float = 1.0
    """Factor of the cross-entropy on the finest level."""
    coarse_weight: float = 1.0
    """The same on the level above the finest."""
    super_weight: float = 1.0
    """The same on each level above that one."""
    level_weights: tuple[float, ...] = ()
    """The same for each level, the coarsest first, in place of the three."""
    rmi_weight: float = 0.0
    """Factor of the region mutual information loss, which sees 3 x 3 neighbourhoods; 0: none."""
    triplet_weight: float = 0.0
    """Factor of the tree-triplet loss, which makes the embeddings (model.embedding) of pixels alike that are near in
    the tree; 0: none. The paper's is 1: by its schedule half of that is reached."""
    triplet_steps: int | None = None
    """Optimizer steps over which the tree-triplet loss rises from nothing to its full strength; none: all of the run's.
    The paper: 60000 to 160000, which were all of its runs'."""
    triplet_samples: int = SAMPLES
    """Highest number of triplets of one class in a batch."""

    def __post_init__(self) -> None:
        for name in ("tree_weight", "fine_weight", "coarse_weight", "super_weight", "rmi_weight", "triplet_weight"):
            check_range(name, getattr(self, name), 0)
        if self.triplet_samples < 1 or (self.triplet_steps or 0) < 0:
            raise ConfigError(
                f"loss.triplet_samples is {self.triplet_samples} and loss.triplet_steps {self.triplet_steps}; a class "
                "needs 1 triplet or more, and a rise takes 0 steps or more. 200 and none are the defaults."
            )
        for weight in self.level_weights:
            check_range("level_weights", weight, 0)
        if not any((self.tree_weight, self.rmi_weight, *self.level_weights, *self._three())):
            raise ConfigError("every factor of loss 'tree' is 0, so nothing is learnt. Give one a positive number.")

    def _three(self) -> tuple[float, ...]:
        return () if self.level_weights else (self.fine_weight, self.coarse_weight, self.super_weight)

    def weights(self, depth: int) -> tuple[float, ...]:
        """The cross-entropy's factor on each of `depth` levels, the coarsest first. Raises `ConfigError`."""
        if self.level_weights:
            if len(self.level_weights) != depth:
                raise ConfigError(
                    f"loss.level_weights has {len(self.level_weights)} numbers and the tree {depth} levels; each level "
                    "needs one. Give them from the coarsest level to the finest."
                )
            return self.level_weights
        upper = (self.super_weight,) * max(depth - 2, 0)
        return (*upper, *((self.coarse_weight,) if depth > 1 else ()), self.fine_weight)


@dataclass(frozen=True)
class Triplet:
    """The tree-triplet loss within a tree loss; see `Config`."""

    weight: float
    steps: int | None = None
    samples: int = SAMPLES

    def __call__(self, embedding: Tensor, mask: Tensor, hierarchy: Hierarchy, step: int, steps: int) -> Tensor:
        """Its part of the loss at a step. The pixels are drawn from the step's number alone, so that a run that goes on
        after a stop draws the same."""
        draw = at_random(torch.Generator().manual_seed(step))
        factor = self.weight * ramp(step, steps if self.steps is None else self.steps)
        return factor * tree_triplet(embedding, mask, hierarchy, draw, self.samples)


class TreeLoss(nn.Module):
    """logits (B, N, h, w), mask (B, H, W) of leaf ids and coarse labels, 255 = ignored -> scalar in fp32.

    With a `triplet` it wants in training also the embedding (B, E, h', w'), the number of the optimizer step, from 0,
    and how many the run has; without an embedding, as in validation, that part is left out.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        level_weights: Sequence[float],
        tree_weight: float = 5.0,
        focus: float = 0.0,
        rmi_weight: float = 0.0,
        triplet: Triplet | None = None,
    ) -> None:
        super().__init__()
        assert len(level_weights) == hierarchy.depth
        self.hierarchy, self.focus = hierarchy, focus
        self.level_weights, self.tree_weight, self.rmi_weight = tuple(level_weights), tree_weight, rmi_weight
        self.triplet = triplet

    @property
    def needs_embedding(self) -> bool:
        """Whether training gives it an embedding, a step and their number."""
        return self.triplet is not None

    def forward(
        self, logits: Tensor, mask: Tensor, embedding: Tensor | None = None, step: int = 0, steps: int = 1
    ) -> Tensor:
        if logits.shape[1] != self.hierarchy.num_nodes:
            raise ConfigError(
                f"the logits have {logits.shape[1]} channels and the tree {self.hierarchy.num_nodes} nodes; each node "
                "needs one. Build the model for the tree's nodes."
            )
        tables = tables_of(self.hierarchy, mask.device)
        label = tables.labels(mask)
        counted = int((label != IGNORE).sum()) or 1
        loss = _InPieces.apply(logits, label, lambda z, rows: self._of_rows(z, rows) / counted)
        if self.rmi_weight:
            loss = loss + self.rmi_weight * rmi(logits, tables.leaves(mask), self.hierarchy)
        if self.triplet and embedding is not None:
            loss = loss + self.triplet(embedding, mask, self.hierarchy, step, steps)
        return loss

    def _of_rows(self, z: Tensor, label: Tensor) -> Tensor:
        tables = tables_of(self.hierarchy, z.device)
        known = Known.of(label, tables)
        pairs = zip(self.level_weights, ce_sums(z, known, tables), strict=True)
        total = sum((weight * ce for weight, ce in pairs), z.new_zeros(()))
        if not self.tree_weight:
            return total
        return total + self.tree_weight * (tree_min_sums(z, known, tables, self.focus) / tables.level_sizes).sum()


@dataclass(frozen=True)
class Known:
    """What labels say of pixels."""

    ignored: Tensor
    """(r, W) bool."""
    label: Tensor
    """(r, W), 0 where ignored."""
    several: list[Tensor | None]
    """D times (r, nodes of the level, W) bool: left open beside others; None where no label leaves any open."""

    @staticmethod
    def of(label: Tensor, tables: Tables) -> "Known":
        """label (r, W), 255 = ignored."""
        ignored = label == IGNORE
        safe = label.masked_fill(ignored, 0)
        return Known(ignored, safe, [None if rows is None else rows[safe].movedim(-1, 1) for rows in tables.open])


def level_sums(z: Tensor, label: Tensor, hierarchy: Hierarchy, focus: float = 0.0) -> tuple[Tensor, Tensor]:
    """Sums over the pixels that count of the tree-min loss and the cross-entropy on each level, two (D,).

    z (r, N, W) logits, label (r, W) which label is true, 255 = ignored.
    """
    tables = tables_of(hierarchy, z.device)
    known = Known.of(label, tables)
    return tree_min_sums(z, known, tables, focus), ce_sums(z, known, tables)


def tree_min_sums(z: Tensor, known: Known, tables: Tables, focus: float) -> Tensor:
    """The first of `level_sums`. The nodes that a label leaves open miss nothing."""
    least, sums = None, []
    for i, highest in enumerate(tables.by_level(greatest_below(z, tables.hierarchy))):
        true = z.gather(1, tables.label_nodes[i][known.label][:, None])  # (r, 1, W): the true node's logit
        least = true if least is None else torch.minimum(least, true)
        x = highest.scatter(1, tables.label_places[i][known.label][:, None], -least)
        miss = F.softplus(x) * torch.sigmoid(x) ** focus if focus else F.softplus(x)
        several = known.several[i]
        if several is not None:
            miss = miss.masked_fill(several, 0)
        sums.append(miss.sum(1).masked_fill(known.ignored, 0).sum())
    return torch.stack(sums)


def ce_sums(z: Tensor, known: Known, tables: Tables) -> Tensor:
    """The second of `level_sums`. Where a label leaves several nodes open, the true one is whichever of them."""
    sums = []
    for i, of_level in enumerate(tables.by_level(z)):
        likely = of_level.gather(1, tables.label_places[i][known.label][:, None])[:, 0]
        several = known.several[i]
        if several is not None:
            any_open = several.any(1)
            inside = of_level.masked_fill(~several & any_open[:, None], -torch.inf)
            likely = torch.where(any_open, torch.logsumexp(inside, 1), likely)
        sums.append((torch.logsumexp(of_level, 1) - likely).masked_fill(known.ignored, 0).sum())
    return torch.stack(sums)


class _InPieces(torch.autograd.Function):
    """The sum of `term` over pieces of rows, with its gradient taken in the same pass, while a piece is there.

    That is possible because the loss is a plain sum over pixels. What is kept is one map at the logits' own size.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, term: Any) -> Tensor:
        kind, wanted = working_type(logits), logits.requires_grad
        gradient = torch.zeros_like(logits, dtype=kind) if wanted else None
        total = torch.zeros((), dtype=torch.float64, device=logits.device)
        with exactly(logits), torch.set_grad_enabled(wanted):
            for piece in pieces(logits, label):
                source = logits[piece.image, :, piece.source].detach().to(kind).requires_grad_(wanted)
                value = term(piece.enlarge(source, label.shape[-1]), label[piece.image, piece.rows])
                total += value.detach()
                if gradient is not None:
                    gradient[piece.image, :, piece.source] += torch.autograd.grad(value, source)[0]
        ctx.gradient, ctx.kind = gradient, logits.dtype
        return total.to(kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor, None, None]:
        return (by * ctx.gradient).to(ctx.kind), None, None


def build(
    config: Config, num_classes: int, weights: Sequence[float] | None = None, hierarchy: Hierarchy | None = None
) -> TreeLoss:
    """The loss that `config` describes. Without a tree the classes are one level. `weights` has no part in it.

    Raises:
        ConfigError: one class, or other numbers of levels in the config than in the tree.
    """
    needs_several("tree", num_classes)
    tree = hierarchy or flat([f"class_{number}" for number in range(num_classes)])
    focus = FOCUS if config.form == "focal" else 0.0
    wanted = Triplet(config.triplet_weight, config.triplet_steps, config.triplet_samples)
    triplet = wanted if config.triplet_weight else None
    return TreeLoss(tree, config.weights(tree.depth), config.tree_weight, focus, config.rmi_weight, triplet)


def flat(classes: Sequence[str]) -> Hierarchy:
    """A tree of one level: the classes as they are."""
    return Hierarchy(tuple((name,) for name in classes), tuple(range(len(classes))))
