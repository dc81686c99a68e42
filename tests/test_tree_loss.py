"""Losses over trees against reference values of independent implementations, and what must hold of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segwright.errors import ConfigError
from segwright.hierarchy import Hierarchy, read
from segwright.hierarchy.tables import greatest_below, least_above
from segwright.losses.rmi import information
from segwright.losses.tree import Config, TreeLoss, build, level_sums
from segwright.losses.tree_triplet import at_random, ramp, the_first, tree_triplet
from trees import labels, leaves_for, logits_for, made, trees

TWO = read({"g": {"a": 0, "b": 1}, "h": {"c": 2, "d": 3}, "k": {"e": 4}})
THREE = read({"u": {"g": {"a": 0, "b": 1}, "h": {"c": 2, "d": 3}}, "v": {"k": {"e": 4}}})
NONE = (0.0,) * 3


def ignoring(mask: torch.Tensor) -> torch.Tensor:
    out = mask.clone()
    out[0, 0, :3] = 255
    out[1, 5, 7] = 255
    return out


Z2, Z3, Y = made(2, 8, 6, 8), made(2, 10, 6, 8), labels(2, 6, 8, classes=5)


@pytest.mark.parametrize(
    ("tree", "logits", "mask", "factor", "focus", "value"),
    [
        (TWO, Z2, Y, 5, 0, 14.9207220),
        (TWO, Z2, ignoring(Y), 5, 0, 14.6989336),
        (TWO, Z2, Y, 5, 2, 11.7036934),
        (THREE, Z3, Y, 5, 0, 25.1446304),
        (THREE, Z3, Y, 1, 2, 4.0146203),
        (THREE, Z3, ignoring(Y), 1, 2, 3.9496162),
    ],
)
def test_tree_min_equals_the_reference(tree, logits, mask, factor, focus, value):
    loss = TreeLoss(tree, NONE[: tree.depth], factor, focus)
    assert loss(logits, mask).item() == pytest.approx(value, abs=2e-6 * value)


def test_a_cross_entropy_a_level_equals_the_reference():
    assert TreeLoss(TWO, (1, 1), 0)(Z2, Y).item() == pytest.approx(5.3860846, abs=1e-6)
    assert TreeLoss(TWO, (1, 1), 0)(Z2, ignoring(Y)).item() == pytest.approx(5.3849316, abs=1e-6)


def test_every_level_weight_does_something():
    """Each by itself is torch's cross-entropy on that level's channels."""
    groups = torch.tensor([0, 0, 1, 1, 2])[Y]
    fine, coarse = F.cross_entropy(Z2[:, :5], Y), F.cross_entropy(Z2[:, 5:], groups)
    for config, value in (
        (Config(tree_weight=0, fine_weight=3, coarse_weight=0), 3 * fine),
        (Config(tree_weight=0, fine_weight=0, coarse_weight=2), 2 * coarse),
        (Config(tree_weight=0, level_weights=(2.0, 3.0)), 2 * coarse + 3 * fine),
    ):
        assert build(config, 8, None, TWO)(Z2, Y).item() == pytest.approx(value.item(), rel=1e-6)
    only_top = build(Config(tree_weight=0, fine_weight=0, coarse_weight=0, super_weight=1), 10, None, THREE)(Z3, Y)
    top = F.cross_entropy(Z3[:, 8:], torch.tensor([0, 0, 0, 0, 1])[Y])
    assert only_top.item() == pytest.approx(top.item(), rel=1e-6)


def test_region_mutual_information_equals_the_reference():
    one_hot = F.one_hot(labels(2, 24, 27, classes=3), 3).permute(0, 3, 1, 2)
    assert information(one_hot, torch.sigmoid(made(2, 3, 24, 27))).item() == pytest.approx(-5.9969886, abs=1e-6)


def test_the_loss_adds_the_region_term_and_it_ignores_what_is_ignored():
    tree = read({"a": 0, "b": 1, "c": 2})
    logits, mask = made(2, 3, 24, 27), labels(2, 24, 27, classes=3)
    loss = TreeLoss(tree, (0.0,), 0.0, rmi_weight=0.5)
    assert loss(logits, mask).item() == pytest.approx(-5.9969886 / 2, abs=1e-5)
    mask[0, :5] = 255
    moved = logits.clone()
    moved[0, :, :5] += 3
    assert loss(moved, mask).item() == pytest.approx(loss(logits, mask).item(), abs=1e-6)
    logits.requires_grad_()
    loss(logits, mask).backward()
    assert logits.grad[0, :, :5].abs().max() == 0
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() > 0


EMBEDDING = F.normalize(made(2, 16, 6, 8), dim=1)


def test_the_triplet_equals_the_reference_with_the_first_pixels():
    assert tree_triplet(EMBEDDING, Y, TWO, the_first).item() == pytest.approx(0.6855703, abs=1e-6)


def test_the_triplet_draws_at_random_from_a_seed_and_from_everywhere():
    one, same, other = (
        tree_triplet(EMBEDDING, Y, TWO, at_random(torch.Generator().manual_seed(seed))).item() for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other
    assert abs(one - 0.6855703) > 1e-6


def test_ignored_pixels_are_nobodys_negatives():
    mask = ignoring(Y)
    moved = EMBEDDING.clone()
    moved[:, :, 0, :3] = F.normalize(-moved[:, :, 0, :3] + 0.3, dim=1)
    moved[1, :, 0, :3] = EMBEDDING[1, :, 0, :3]
    assert tree_triplet(moved, mask, TWO, the_first).item() == tree_triplet(EMBEDDING, mask, TWO, the_first).item()


def test_a_triplet_by_hand_over_three_levels():
    """Anchor a, sibling b, cousin c, stranger e, one pixel each, embeddings 0, 90, 180 and 270 degrees apart.

    From a: (a, b, c): 1 - 2 + .1 + .5 * 2 / 3 = -.567 -> 0; (a, b, e): 1 - 1 + .1 + .5 * 4 / 3 = .767, one of the two
    is drawn: here the first, c. (a, c, e): 2 - 1 + .1 + .5 * 2 / 3 = 1.433.
    """
    where = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]).T.reshape(1, 2, 1, 4)
    mask = torch.tensor([[[0, 1, 2, 4]]])
    from_b = [max(0, 1 - 1 + 0.1 + 1 / 3), max(0, 1 - 2 + 0.1 + 1 / 3)]  # (b, a, c), (b, c, e)
    from_c = [max(0, 2 - 1 + 0.1 + 1 / 3)]  # (c, a, e): c has no sibling here
    expected = [0.0, 2 - 1 + 0.1 + 1 / 3, *from_b, *from_c]
    got = tree_triplet(where, mask, THREE, the_first).item()
    assert got == pytest.approx(sum(expected) / len(expected), abs=1e-6)


def test_without_triplets_the_loss_is_zero_and_has_a_gradient():
    embedding = EMBEDDING.clone().requires_grad_()
    loss = tree_triplet(embedding, torch.full((2, 6, 8), 255), TWO)
    loss.backward()
    assert loss.item() == 0
    assert embedding.grad.abs().max() == 0


def test_the_ramp_goes_by_iterations():
    assert [round(ramp(t, 80_000), 4) for t in (0, 20_000, 40_000, 80_000, 90_000)] == [0, 0.0732, 0.25, 0.5, 0.5]
    assert ramp(0, 0) == 0.5


# what must hold of the tree loss


def test_the_gradient_lives_where_a_probability_plus_epsilon_saturates():
    """log(sigmoid(-40) + 1e-8) = -18.42 whatever the logit; here the pull is 1 a pixel and level, and the value 40."""
    logits = torch.full((1, 8, 1, 1), -40.0, requires_grad=True)
    saturated = torch.log(torch.sigmoid(logits) + 1e-8)
    assert torch.autograd.grad(saturated.sum(), logits)[0].abs().max() < 1e-9
    value = TreeLoss(TWO, (0, 0), 1)(logits, torch.zeros(1, 1, 1, dtype=torch.int64))
    value.backward()
    assert value.item() == pytest.approx(40 / 5 + 40 / 3, rel=1e-6)
    assert logits.grad[0, 0].abs().item() > 0.1


@given(trees(), st.integers(0, 2**31), st.sampled_from([0.0, 2.0]))
@settings(deadline=None)
def test_sums_over_a_batch_of_two_are_those_of_two_batches_of_one(tree, seed, focus):
    logits = logits_for(tree, seed).permute(0, 2, 1, 3)  # (B, r, N, W)
    leaf = leaves_for(tree, seed)
    leaf[0, 0, :2] = 255
    both = level_sums(logits.flatten(0, 1), leaf.flatten(0, 1), tree, focus)
    alone = [level_sums(logits[i], leaf[i], tree, focus) for i in range(2)]
    for sums, first, second in zip(both, *alone, strict=True):
        torch.testing.assert_close(sums, first + second)


@given(trees(), st.integers(0, 2**31), st.sampled_from([0.0, 2.0]))
@settings(deadline=None)
def test_the_loss_is_the_papers_formula(tree, seed, focus):
    """Node by node with probabilities, in double precision."""
    logits = logits_for(tree, seed).double()
    leaf = leaves_for(tree, seed)
    low, high = torch.sigmoid(least_above(logits, tree)), torch.sigmoid(greatest_below(logits, tree))
    expected = []
    for level, nodes in enumerate(tree.levels):
        true = torch.tensor(tree.leaf_nodes[level])[leaf]
        of_nodes = [
            torch.where(
                true == v,
                -((1 - low[:, v]) ** focus) * low[:, v].log(),
                -(high[:, v] ** focus) * (1 - high[:, v]).log(),
            )
            for v in nodes
        ]
        expected.append(sum(x.sum() for x in of_nodes))
    got, _ = level_sums(logits.permute(0, 2, 1, 3).flatten(0, 1), leaf.flatten(0, 1), tree, focus)
    torch.testing.assert_close(got, torch.stack(expected))


@pytest.mark.parametrize("form", ["bce", "focal"])
def test_pieces_and_the_whole_have_one_value_and_one_gradient(form, monkeypatch):
    """Small logits, a larger mask: against enlarging all of it and letting autograd take the gradient."""
    tree, mask = THREE, labels(2, 20, 28, classes=5)
    mask[0, :4, :9] = 255
    loss = build(Config(form=form, super_weight=0.5), tree.num_nodes, None, tree)
    small = made(2, 10, 5, 7).requires_grad_()
    monkeypatch.setattr("segwright.losses.pieces.ON_CPU", 10 * 28 * 3)
    value = loss(small, mask)
    (gradient,) = torch.autograd.grad(value, small)
    whole = F.interpolate(small, size=(20, 28), mode="bilinear", align_corners=False)
    tree_sums, ce_sums = level_sums(whole.permute(0, 2, 1, 3).flatten(0, 1), mask.flatten(0, 1), tree, loss.focus)
    counted = (mask != 255).sum()
    plain = (5 * tree_sums / torch.tensor([2, 3, 5]) + torch.tensor([0.5, 1, 1]) * ce_sums).sum() / counted
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(gradient, torch.autograd.grad(plain, small)[0], rtol=1e-4, atol=1e-7)


def test_ignored_pixels_count_nowhere_and_the_mask_stays_as_it_is():
    mask = ignoring(Y)
    before = mask.clone()
    logits = Z2.clone().requires_grad_()
    loss = build(Config(rmi_weight=0.5), 8, None, TWO)
    loss(logits, mask).backward()
    assert torch.equal(mask, before)
    assert logits.grad[0, :, 0, :3].abs().max() == 0
    assert logits.grad[1, :, 5, 7].abs().max() == 0
    nothing = torch.full_like(mask, 255)
    assert TreeLoss(TWO, (1, 1))(logits, nothing).item() == 0


def test_half_precision_gives_the_value_of_single_precision():
    loss = TreeLoss(TWO, (1, 1))
    logits = (Z2 * 20).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, Y)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(logits.detach().float(), Y).item(), rel=1e-6)
    assert logits.grad.dtype == torch.bfloat16


@given(trees(), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_renumbering_the_leaves_leaves_the_loss(tree, seed):
    """Ids n -> 254 - n: the channels turn round, mask and logits with them."""

    def turned(value):
        return 254 - value if isinstance(value, int) else {key: turned(child) for key, child in value.items()}

    other = read(turned(tree.nested()))
    logits = logits_for(tree, seed)
    leaf = leaves_for(tree, seed)
    mask = torch.tensor(tree.ids)[leaf]
    moved = logits[:, [tree.paths.index(path) for path in other.paths]]
    weights = (1.0,) * tree.depth
    torch.testing.assert_close(TreeLoss(tree, weights)(logits, mask), TreeLoss(other, weights)(moved, 254 - mask))


def test_configs_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="every factor of loss 'tree' is 0"):
        Config(tree_weight=0, level_weights=(0.0, 0.0))
    with pytest.raises(ConfigError, match="2 numbers and the tree 3 levels"):
        build(Config(level_weights=(1.0, 1.0)), 10, None, THREE)
    with pytest.raises(ConfigError, match="8 channels and the tree 10 nodes"):
        TreeLoss(THREE, (1, 1, 1))(Z2, Y)


def test_without_a_tree_the_classes_are_one_level():
    tree = Hierarchy((("a",), ("b",), ("c",)), (0, 1, 2))
    logits, mask = made(2, 3, 4, 5), labels(2, 4, 5, classes=3)
    assert build(Config(), 3)(logits, mask).item() == TreeLoss(tree, (1.0,))(logits, mask).item()
