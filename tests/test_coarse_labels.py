"""Masks that say of some pixels a group of the tree and no more: the loss, the scores, and a whole run."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

import segwright
from runs import read_csv
from segwright.datasets.base import IGNORE, leaves_alone
from segwright.errors import ConfigError, DataError
from segwright.hierarchy import Config as TreeConfig
from segwright.hierarchy import Hierarchy, read, tree_of
from segwright.hierarchy.decode import decode
from segwright.hierarchy.scores import TreeCounts
from segwright.hierarchy.tables import greatest_below, least_above, tables_of
from segwright.losses.tree import TreeLoss, level_sums
from segwright.verbs.augment_preview import show_augment
from segwright.verbs.settings import gather
from segwright.verbs.source import read_source
from segwright.verbs.trees import places_of
from trees import leaves_for, logits_for, made, trees

CPU = torch.device("cpu")


@pytest.fixture
def tree() -> Hierarchy:
    """sky 0, vehicle: car 1, cycles: bicycle 2 and moped 3; masks say vehicle as 4 and cycles as 5."""
    classes = {"sky": 0, "vehicle": {"car": 1, "cycles": {"bicycle": 2, "moped": 3}}}
    config = TreeConfig(classes=classes, coarse_labels={"some vehicle": "vehicle", "a cycle": "vehicle/cycles"})
    found = tree_of(config, ["sky", "car", "bicycle", "moped"])
    assert found is not None
    return found


@st.composite
def labelled_trees(draw) -> Hierarchy:
    """A random tree with groups, of which some have a coarse label."""
    tree = draw(trees().filter(lambda tree: bool(tree.groups)))
    groups = draw(st.lists(st.sampled_from(list(tree.groups)), min_size=1, max_size=3))
    free = [value for value in range(IGNORE) if value not in tree.ids]
    return replace(tree, coarse=tuple(zip(free, groups, strict=False)))


# what the tree knows


def test_a_coarse_label_says_the_levels_down_to_its_group_and_leaves_open_what_is_in_it(tree):
    """Levels: sky, vehicle | sky, car, cycles | sky, car, bicycle, moped."""
    assert [tree.names(level) for level in range(3)] == [
        ("sky", "vehicle"),
        ("sky", "car", "cycles"),
        ("sky", "car", "bicycle", "moped"),
    ]
    some_vehicle, a_cycle = (tuple(level[label] for level in tree.label_levels) for label in (4, 5))
    assert some_vehicle == ((1,), (1, 2), (1, 2, 3))
    assert a_cycle == ((1,), (2,), (2, 3))


def test_places_of_what_is_open_are_ignored(tree):
    super_coarse, coarse, fine = places_of(tree)[:, :7].tolist()
    assert super_coarse == [0, 1, 1, 1, 1, 1, 255]
    assert coarse == [0, 1, 2, 2, 255, 2, 255]
    assert fine == [0, 1, 2, 3, 255, 255, 255]


def test_the_tree_in_lines_has_the_values_of_coarse_labels(tree):
    assert "├── vehicle (4)" in str(tree)
    assert "│   ├── cycles (5)" in str(tree)


def test_a_label_of_a_group_of_one_leaf_is_that_leaf_everywhere():
    tree = read({"nature": {"tree": 0}, "vehicle": {"car": 1, "bicycle": 2}})
    tree = replace(tree, coarse=((3, tree.channel("nature")),))
    mask = torch.tensor([[3, 0, 1]])
    assert tables_of(tree, CPU).leaves(mask).tolist() == [[0, 0, 1]]
    assert places_of(tree)[:, 3].tolist() == [0, 0]
    counts = TreeCounts(tree)
    levels = torch.zeros(2, 1, 3, dtype=torch.int64)
    counts.add(levels[-1], levels, mask)
    assert counts.pixels == 3
    z = made(1, tree.num_nodes, 1)
    for of_label, of_leaf in zip(*(level_sums(z, torch.tensor([[n]]), tree) for n in (3, 0)), strict=True):
        assert torch.equal(of_label, of_leaf)


def test_leaves_leave_coarse_labels_out_and_labels_count_them(tree):
    mask = torch.tensor([[0, 4, 3], [5, 255, 1]], dtype=torch.uint8)
    tables = tables_of(tree, CPU)
    assert tables.labels(mask).tolist() == [[0, 4, 3], [5, 255, 1]]
    assert tables.leaves(mask).tolist() == [[0, 255, 3], [255, 255, 1]]
    with pytest.raises(DataError, match=r"a mask holds \[6\]"):
        tables.labels(torch.tensor([[6]]))


# the loss


def test_the_loss_of_a_coarse_label_by_hand():
    """Logits: sky 0.5, car -1, bicycle 2, vehicle 0.3; the pixel is some vehicle.

    Coarse level: tree-min log(1 + e^0.5) + log(1 + e^-0.3), cross-entropy log(e^0.5 + e^0.3) - 0.3.
    Fine level: of tree-min sky alone is known to be wrong; cross-entropy log(e^0.5 + e^-1 + e^2) - log(e^-1 + e^2).
    """
    tree = read({"sky": 0, "vehicle": {"car": 1, "bicycle": 2}})
    tree = replace(tree, coarse=((3, tree.channel("vehicle")),))
    z = torch.tensor([0.5, -1, 2, 0.3]).view(1, 4, 1)
    sums, ce = level_sums(z, torch.tensor([[3]]), tree)
    assert sums.tolist() == pytest.approx([math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(-0.3)),
                                           math.log(1 + math.exp(0.5))])  # fmt: skip
    inside = math.exp(-1) + math.exp(2)
    assert ce.tolist() == pytest.approx([math.log(math.exp(0.5) + math.exp(0.3)) - 0.3,
                                         math.log(math.exp(0.5) + inside) - math.log(inside)])  # fmt: skip


@given(labelled_trees(), st.integers(0, 2**31), st.sampled_from([0.0, 2.0]))
@settings(deadline=None)
def test_the_loss_of_coarse_labels_is_the_formula(tree, seed, focus):
    """Pixel by pixel and node by node, in double precision: a node of the path is right, one in the group open, any
    other wrong; the cross-entropy is that of all open nodes together."""
    z = logits_for(tree, seed).double().permute(0, 2, 1, 3).flatten(0, 1)  # (r, N, W)
    labels = torch.randint(0, tree.num_leaves + len(tree.coarse), (6, 4), generator=torch.Generator().manual_seed(seed))
    low, high = torch.sigmoid(least_above(z, tree)), torch.sigmoid(greatest_below(z, tree))
    sums, ce = torch.zeros(tree.depth).double(), torch.zeros(tree.depth).double()
    for row, column in np.ndindex(6, 4):
        label = int(labels[row, column])
        is_leaf = label < tree.num_leaves
        node = label if is_leaf else tree.coarse[label - tree.num_leaves][1]
        for level, nodes in enumerate(tree.levels):
            probability = torch.softmax(z[row, nodes, column], 0)
            right = [v for v in nodes if v in tree.ancestors(node)]
            open_nodes = right or [v for v in nodes if node in tree.ancestors(v)]
            if len(open_nodes) == 1:  # nothing is open
                right = open_nodes
            ce[level] -= probability[[nodes.index(v) for v in open_nodes]].sum().log()
            for v in nodes:
                if v in right:
                    # of a leaf that alone is in its group, the levels above it are known to be right too
                    least = low[row, v, column]
                    sums[level] -= (1 - least) ** focus * least.log()
                elif v not in open_nodes:
                    sums[level] -= high[row, v, column] ** focus * (1 - high[row, v, column]).log()
    got, of_levels = level_sums(z, labels, tree, focus)
    torch.testing.assert_close(got, sums)
    torch.testing.assert_close(of_levels, ce)


@given(labelled_trees(), st.integers(0, 2**31))
@settings(deadline=None)
def test_leaves_cost_the_same_whether_or_not_masks_may_say_groups(tree, seed):
    z, leaf = logits_for(tree, seed).permute(0, 2, 1, 3).flatten(0, 1), leaves_for(tree, seed).flatten(0, 1)
    for got, alone in zip(level_sums(z, leaf, tree), level_sums(z, leaf, replace(tree, coarse=())), strict=True):
        torch.testing.assert_close(got, alone)


def test_what_is_in_its_group_is_taught_alike_and_far_logits_have_gradients(tree):
    """Equal logits in the group stay equal; far logits give finite gradients."""
    z = torch.zeros(1, tree.num_nodes, 2, 2, requires_grad=True)
    mask = torch.full((1, 2, 2), 4)
    TreeLoss(tree, (1, 1, 1))(z, mask).backward()
    grad = z.grad[0, :, 0, 0]
    assert grad[2] == grad[3] != 0
    far = (200 * made(1, tree.num_nodes, 2, 2)).requires_grad_()
    TreeLoss(tree, (1, 1, 1), rmi_weight=0.5)(far, torch.tensor([[[4, 5], [255, 0]]])).backward()
    assert far.grad.isfinite().all()


def test_coarse_labels_in_pieces_and_whole_are_one(tree, monkeypatch):
    small, mask = made(2, tree.num_nodes, 5, 7).requires_grad_(), torch.arange(2 * 20 * 28).view(2, 20, 28) % 6
    loss = TreeLoss(tree, (1, 0.5, 1))
    monkeypatch.setattr("segwright.losses.pieces.ON_CPU", tree.num_nodes * 28 * 3)
    in_pieces = torch.autograd.grad(loss(small, mask), small)[0]
    whole = F.interpolate(small, size=(20, 28), mode="bilinear", align_corners=False).permute(0, 2, 1, 3).flatten(0, 1)
    sums, ce = level_sums(whole, mask.flatten(0, 1), tree)
    nodes = torch.tensor([len(level) for level in tree.levels])
    value = (5 * sums / nodes + torch.tensor([1, 0.5, 1]) * ce).sum() / mask.numel()
    torch.testing.assert_close(in_pieces, torch.autograd.grad(value, small)[0])


# scores


def test_how_far_mistakes_are_is_counted_where_the_leaf_is_known(tree):
    counts = TreeCounts(tree)
    levels = torch.tensor([[[1, 1, 1]], [[1, 1, 2]], [[1, 1, 2]]])
    counts.add(levels[-1], levels, torch.tensor([[4, 2, 2]]))
    assert counts.pixels == 2
    assert counts.scores() == {"hierarchical_error": 2.0, "coherence": 1.0}


def test_without_a_tree_coarse_labels_are_ignored():
    assert leaves_alone(np.array([0, 3, 4, 255], np.uint8), 4).tolist() == [0, 3, 255, 255]


# a whole run

CLASSES = ["road", "some vehicle", "car", "bicycle", "pavement"]
"""The coarse label in the midst of the others: leaves are road 0, car 1, bicycle 2, pavement 3, and it becomes 4."""
TREE = {"ground": ["road", "pavement"], "vehicle": ["car", "bicycle"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Stripes of every class; in each second image vehicles have the coarse label."""
    root = tmp_path_factory.mktemp("coarse") / "data"
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        for index in range(count):
            mask = np.repeat(np.repeat(np.array([[0, 2, 3, 4]], np.uint8), 32, 0), 12, 1)
            image = (mask[..., None] * 50 + rng.integers(0, 30, (32, 48, 3))).astype(np.uint8)
            if index % 2:
                mask[(mask == 2) | (mask == 3)] = 1
            mask[:2] = 255
            for kind, picture in (("images", image), ("masks", mask)):
                path = root / split / kind / f"{split}{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
    return root


def config(data, **more):
    values = {
        "data": {"name": "folder", "root": str(data), "classes": CLASSES},
        "hierarchy": {"classes": TREE, "coarse_labels": {"some vehicle": "vehicle"}},
        "encoder": {"name": "test_resnet", "pretrained": False},
        "input": {"workers": 0},
        "train": {"epochs": 1, "batch_size": 2, "device": "cpu"},
        "run": {"output": str(data.parent / "run")},
    }
    return {**values, **more}


@pytest.fixture(scope="module")
def run(data):
    return segwright.train(config(data))


def test_such_a_class_is_apart_from_the_others_whatever_its_place(data):
    source = read_source(gather(config(data)))
    assert list(source.classes) == ["road", "car", "bicycle", "pavement"]
    assert tuple(source.coarse) == ("some vehicle",)
    assert np.unique(source.splits["train"].mask(0)).tolist() == [0, 1, 2, 3, 255]
    assert np.unique(source.splits["train"].mask(1)).tolist() == [0, 3, 4, 255]


def test_the_check_knows_such_values(data):
    report = segwright.check(data, config=config(data))
    assert {finding.code for finding in report.findings if finding.level != "info"} <= {"rare-class"}
    shares = next(finding for finding in report.findings if finding.code == "class-shares")
    assert "some vehicle 25 %" in shares.message


def test_a_run_has_a_channel_a_node_and_scores_a_level_where_it_is_known(run, data, tmp_path):
    assert "vehicle (4)" in (run.folder / "hierarchy.txt").read_text()
    assert float(read_csv(run.folder)[0]["valid_iou_coarse"]) >= 0
    metrics = segwright.evaluate(run.best, split="valid", output=tmp_path)
    assert set(metrics["per_class"]) == {"road", "car", "bicycle", "pavement"}
    confusion = [line.split(",") for line in (tmp_path / "confusion_valid.csv").read_text().splitlines()]
    pixels = sum(int(cell) for row in confusion[1:] for cell in row[1:])
    assert pixels == 30 * 48 * 4 - 30 * 24 * 2, "all that count, but for the vehicles of two images"


@pytest.mark.parametrize("how", ["path", "leaf", "independent"])
def test_what_is_decoded_are_leaves_however_high_a_groups_score(tree, how):
    logits = torch.zeros(1, tree.num_nodes, 2, 2)
    logits[:, tree.num_leaves :] = 9
    assert decode(logits, tree, how)[:, -1].max() < tree.num_leaves


def test_converting_keeps_such_a_class_as_any_other(data, tmp_path):
    segwright.convert(data, to="folder", output=tmp_path / "new", config=config(data))
    source = read_source(gather({"data": {"root": str(tmp_path / "new")}}))
    assert sorted(source.classes) == sorted(CLASSES)


def test_a_mended_copy_is_read_by_the_same_config_as_the_data_were(data, tmp_path):
    segwright.check(data, config=config(data), fix=tmp_path / "mended")
    old, new = (read_source(gather(config(root))) for root in (data, tmp_path / "mended"))
    assert list(new.classes) == list(old.classes)
    for index in range(6):
        assert np.array_equal(new.splits["train"].mask(index), old.splits["train"].mask(index))
    named = json.loads((tmp_path / "mended/classes.json").read_text())
    assert [entry["name"] for entry in named["classes"]] == CLASSES


def test_the_page_and_the_augmented_samples_draw_such_masks(data, tmp_path):
    segwright.check(data, config=config(data), html=tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 1000
    show_augment(gather(config(data)), tmp_path / "augmented.png")
    assert np.asarray(Image.open(tmp_path / "augmented.png")).std() > 0


def test_a_run_goes_on_with_the_same_data_alone(data, tmp_path):
    """The classes' order in the data is part of what a run began with, coarse labels included."""
    root = tmp_path / "copy"
    segwright.check(data, config=config(data), fix=root)
    values = config(root, run={"output": str(tmp_path / "run")})
    del values["data"]["classes"]  # its own file names them
    segwright.train(values)
    names = (root / "classes.json").read_text()
    swapped = names.replace('"car"', '"x"').replace('"some vehicle"', '"car"').replace('"x"', '"some vehicle"')
    (root / "classes.json").write_text(swapped)
    with pytest.raises(ConfigError, match=r"the classes: road, some vehicle, car, .* -> road, car, some vehicle"):
        segwright.train(values, resume=True)


def test_a_model_is_evaluated_on_data_without_its_coarse_labels_and_on_others_with_them(run, data, tmp_path):
    """Data that are labelled in full are the normal case; what their masks mean is said by a config."""
    whole, own = tmp_path / "whole", ["road", "car", "bicycle", "pavement"]
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (whole / split / kind).mkdir(parents=True)
        for mask in sorted((data / split / "masks").iterdir())[::2]:
            table = np.array([0, 9, 1, 2, 3, *range(5, 256)], np.uint8)
            Image.fromarray(table[np.asarray(Image.open(mask))]).save(whole / split / "masks" / mask.name)
            (whole / split / "images" / mask.name).symlink_to(data / split / "images" / mask.name)
    there = {"data": {"name": "folder", "root": str(whole), "classes": own}}
    metrics = segwright.evaluate(run.best, config=there, split="valid", output=tmp_path / "a")
    assert metrics["num_images"] == 2
    plain = segwright.train(there | {"hierarchy": {"classes": TREE}} | {
        key: config(data)[key] for key in ("encoder", "input", "train")
    } | {"run": {"output": str(tmp_path / "plain")}})  # fmt: skip
    for loss in ("tree", "ce"):
        if loss == "ce":
            plain = segwright.train(there | {"hierarchy": {"classes": TREE}, "loss": {"name": "ce"}} | {
                key: config(data)[key] for key in ("encoder", "input", "train")
            } | {"run": {"output": str(tmp_path / "flat")}})  # fmt: skip
        found = segwright.evaluate(plain.best, config=config(data), split="valid", output=tmp_path / loss)
        assert found["num_images"] == 4
        assert found["per_level"]["coarse"]["per_class"]["vehicle"]["iou"] is not None


def test_images_of_coarse_labels_alone_are_not_ranked_and_have_no_score(run, data, tmp_path):
    """Every pixel of one validation image says its group alone."""
    root = tmp_path / "data"
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            for path in (data / split / kind).iterdir():
                link = root / split / kind / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
    (root / "val/masks/val1.png").unlink()
    Image.fromarray(np.full((32, 48), 1, np.uint8)).save(root / "val/masks/val1.png")
    metrics = segwright.evaluate(run.best, config=config(root), split="valid", output=tmp_path / "out")
    rows = [line.split(",") for line in (tmp_path / "out/per_image_valid.csv").read_text().splitlines()]
    assert {row[0].rpartition("/")[2]: row[2] == "" for row in rows[1:]} == {
        "val0.png": False, "val1.png": True, "val2.png": False, "val3.png": False}  # fmt: skip
    page = (tmp_path / "out/evaluation_valid.html").read_text()
    assert "val0.png" in page
    assert "val1.png" not in page
    for index in (0, 2, 3):
        (root / f"val/masks/val{index}.png").unlink()
        Image.fromarray(np.full((32, 48), 1, np.uint8)).save(root / f"val/masks/val{index}.png")
    with pytest.raises(DataError, match="no pixel of the validation split says which class it is"):
        segwright.train(config(root, run={"output": str(tmp_path / "run")}))
    assert metrics["iou"] < 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"coarse_labels": {"some vehicle": "vehicel"}}, r"no group 'vehicel'\. Did you mean 'vehicle'"),
        ({"coarse_labels": {"some vehicle": "car"}}, r"coarse_labels\.some vehicle: the tree has no group 'car'"),
        ({"coarse_labels": {"some vehicl": "vehicle"}}, r"the data have no class 'some vehicl'\. Did you mean"),
        ({"coarse_labels": {}}, r"no leaf for the data's some vehicle \(1\)"),
        ({"classes": {}}, r"hierarchy\.classes gives no tree that they are of"),
        (
            {"coarse_labels": {"some vehicle": ["vehicle"]}},
            r"some vehicle is \['vehicle'\]; a label stands for one group",
        ),
        ({"coarse_labels": dict.fromkeys(CLASSES, "vehicle")}, "leaves no class of the data's road, some vehicle"),
        ({"coarse_labels": dict.fromkeys(CLASSES[1:], "vehicle")}, "leaves road of the data's road, some vehicle"),
    ],
)
def test_labels_that_cannot_be_used_are_named(changed, message, data):
    values = config(data, run={"output": str(data.parent / "none")})
    values["hierarchy"] = values["hierarchy"] | changed
    for verb in (lambda: segwright.train(values), lambda: segwright.check(data, config=values)):
        with pytest.raises(ConfigError, match=message):
            verb()
    assert not (data.parent / "none").exists()


def test_a_name_of_two_groups_wants_its_path():
    tree = {"a": {"x": {"p": 0, "q": 1}}, "b": {"x": {"r": 2, "s": 3}}}
    with pytest.raises(ConfigError, match=r"2 groups of the tree are called 'x'\. Write the path of one: .*b/x"):
        tree_of(TreeConfig(classes=tree, coarse_labels={"some x": "x"}), list("pqrs"))
    found = tree_of(TreeConfig(classes=tree, coarse_labels={"some x": "b/x"}), list("pqrs"))
    assert found is not None
    assert [found.paths[group] for _, group in found.coarse] == [("b", "x")]
    nested = {"x": {"x": {"p": 0, "q": 1}, "r": 2}, "s": 3}
    for name, path in (("x", ("x",)), ("x/x", ("x", "x"))):
        found = tree_of(TreeConfig(classes=nested, coarse_labels={"some x": name}), list("pqrs"))
        assert found is not None
        assert [found.paths[group] for _, group in found.coarse] == [path]


def test_a_loss_of_single_classes_refuses_them(data):
    values = config(
        data, loss={"name": "ce", "class_weights": "inverse_sqrt"}, run={"output": str(data.parent / "none")}
    )
    with pytest.raises(
        ConfigError, match=r"loss\.name is ce, which learns single classes\. Train with loss\.name=tree"
    ):
        segwright.train(values)
    assert not (data.parent / "none").exists()
    segwright.check(data, config=values)  # has no loss


def test_a_loss_of_single_classes_takes_the_same_data_without_them(data):
    source = read_source(gather(config(data, loss={"name": "ce"}, hierarchy={"classes": TREE},
                                       classes={"ignore": ["some vehicle"]})))  # fmt: skip
    assert np.unique(source.splits["train"].mask(1)).tolist() == [0, 3, 255]
    assert json.dumps(list(source.classes)) == '["road", "car", "bicycle", "pavement"]'
