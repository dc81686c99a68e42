"""Trees of classes: what people write, what the tree knows, decoding and scores. Random trees by hypothesis."""

import json

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.errors import ConfigError, DataError
from segwright.hierarchy import Hierarchy, read
from segwright.hierarchy.decode import coherent, decode, leaf_scores
from segwright.hierarchy.scores import TreeCounts
from segwright.hierarchy.tables import greatest_below, least_above, tables_of
from trees import logits_for, trees

STREET = """
sky: 4
construction: {building: 1, walls: {brick: 7, plaster: 3}}
movable: {car: 0, sky: 9}
"""
"""Leaves on three depths, ids in no order, a group's leaf with the name of another leaf."""


@pytest.fixture
def street() -> Hierarchy:
    return read(yaml.safe_load(STREET))


# what the tree knows


def test_channels_are_leaves_by_id_and_then_groups_from_the_deepest(street):
    assert street.ids == (0, 1, 3, 4, 7, 9)
    names = ["/".join(path) for path in street.paths]
    assert names[:6] == ["movable/car", "construction/building", "construction/walls/plaster", "sky",
                         "construction/walls/brick", "movable/sky"]  # fmt: skip
    assert names[6:] == ["construction/walls", "construction", "movable"]


def test_a_shallow_leaf_stands_for_itself_on_the_levels_below(street):
    assert street.depth == 3
    assert street.names(0) == ("sky", "construction", "movable")
    assert street.names(1) == ("car", "building", "sky", "movable/sky", "walls")
    assert [len(level) for level in street.levels] == [3, 5, 6]
    sky = street.ids.index(4)
    assert {nodes[sky] for nodes in street.leaf_nodes} == {sky}


def test_ancestors_and_descendants(street):
    brick, walls, construction = (street.channel("construction", *p) for p in (("walls", "brick"), ("walls",), ()))
    assert street.ancestors(brick) == (brick, walls, construction)
    assert set(street.descendants(construction)) == {construction, walls, brick, 1, 2}
    assert street.descendants(3) == (3,)


def test_the_distance_is_the_number_of_levels_that_differ(street):
    leaf = {street.paths[i]: i for i in range(6)}
    brick, plaster = leaf["construction", "walls", "brick"], leaf["construction", "walls", "plaster"]
    building, car = leaf["construction", "building"], leaf["movable", "car"]
    d = street.distances
    assert (d[brick][brick], d[brick][plaster], d[brick][building], d[brick][car]) == (0, 1, 2, 3)


def test_the_tree_draws_itself(street):
    assert str(street).splitlines() == [
        "├── construction",
        "│   ├── walls",
        "│   │   ├── plaster (3)",
        "│   │   └── brick (7)",
        "│   └── building (1)",
        "├── movable",
        "│   ├── car (0)",
        "│   └── sky (9)",
        "└── sky (4)",
    ]


@given(trees())
@settings(deadline=None)
def test_a_tree_survives_being_written_down(tree):
    assert read(tree.nested()) == tree
    assert read(yaml.safe_load(yaml.safe_dump(tree.nested(), sort_keys=False))) == tree


# SegHiero's form

EXAMPLE = """
super_coarse_to_coarse_map: [[0, 2], [3]]
super_coarse_names: {0: Plant, 1: Fungus}
coarse_to_fine_map: [[0, 3], [4, 6], [7], [8]]
coarse_names: {0: Flower, 1: Tree, 2: Grass, 3: Mushroom}
fine_names: {0: Sunflower, 1: Lily, 2: Rose, 3: Tulip, 4: Juniper, 5: Oak, 6: Palm, 7: Bermuda, 8: Lions Mane}
"""
"""Its own example: three levels, ranges with both ends and single ids."""


def test_the_form_of_levels_with_ranges_over_coarse_ids():
    tree = read(yaml.safe_load(EXAMPLE))
    assert tree.level_names == ("super_coarse", "coarse", "fine")
    assert tree.names(0) == ("Plant", "Fungus")
    assert tree.names(1) == ("Flower", "Tree", "Grass", "Mushroom")
    assert tree.ids == tuple(range(9))
    assert tree.leaf_positions == ((0,) * 8 + (1,), (0, 0, 0, 0, 1, 1, 1, 2, 3), tuple(range(9)))


def test_both_forms_say_the_same_tree():
    nested = {
        "Plant": {"Flower": {"Sunflower": 0, "Lily": 1, "Rose": 2, "Tulip": 3},
                  "Tree": {"Juniper": 4, "Oak": 5, "Palm": 6}, "Grass": {"Bermuda": 7}},
        "Fungus": {"Mushroom": {"Lions Mane": 8}},
    }  # fmt: skip
    assert read(nested) == read(yaml.safe_load(EXAMPLE))


def test_ids_of_a_group_need_not_be_neighbours():
    tree = read(
        {"fine_names": ["a", "b", "c", "d"], "coarse_names": ["x", "y"], "coarse_to_fine_map": [[[0], [2, 3]], 1]}
    )
    assert tree.leaf_positions[0] == (0, 1, 0, 0)


def test_names_without_ids_take_them_from_the_data(real_data):
    names = [c["name"] for c in json.loads((real_data / "camvid/classes.json").read_text())["classes"]]
    tree = read(json.loads((real_data / "camvid/hierarchy.json").read_text()), names)
    assert tree.ids == tuple(range(11))
    assert [path[-1] for path in tree.paths[:11]] == names
    assert tree.names(0) == ("sky", "construction", "ground", "nature", "movable")
    assert tree.num_nodes == 16


# what is wrong with a tree


def cycle() -> dict:
    tree: dict = {"a": {"b": 0}}
    tree["a"]["back"] = tree["a"]
    return tree


BAD = {
    "a leaf in two places": ({"a": {"x": 0}, "b": {"x": 0, "y": 1}}, "id 0 is at a/x and b/x"),
    "no id": ({"a": {"x": None, "y": 1}}, r"classes\.a\.x is None"),
    "an id that is no number": ({"a": {"x": "0"}}, r"classes\.a\.x is '0'"),
    "true is no id": ({"a": True, "b": 0}, r"classes\.a is True"),
    "the ignored value": ({"a": 255, "b": 0}, "a has id 255"),
    "an empty group": ({"a": {}, "b": 0}, r"classes\.a is an empty group"),
    "a cycle": (cycle(), r"classes\.a\.back contains itself"),
    "an unknown name": ({"a": ["trea", "car"]}, r"names trea, which is no class of the data\. Did you mean 'tree'"),
    "a range past the end": (
        {"fine_names": {0: "a", 1: "b"}, "coarse_names": {0: "g"}, "coarse_to_fine_map": [[0, 3]]},
        "coarse_to_fine_map lists ids 2, 3, but fine_names has the ids 0 to 1",
    ),
    "a coarse id that is not there": (
        yaml.safe_load(EXAMPLE) | {"super_coarse_to_coarse_map": [[0, 2], [3, 5]]},
        "super_coarse_to_coarse_map lists ids 4, 5, but coarse_names has the ids 0 to 3",
    ),
    "an id in two ranges": (
        yaml.safe_load(EXAMPLE) | {"coarse_to_fine_map": [[0, 4], [4, 6], [7], [8]]},
        "coarse_to_fine_map lists id 4 more than once",
    ),
    "an id in no range": (
        yaml.safe_load(EXAMPLE) | {"coarse_to_fine_map": [[0, 2], [4, 6], [7], [8]]},
        "coarse_to_fine_map leaves out id 3",
    ),
    "an id without a name": (
        yaml.safe_load(EXAMPLE) | {"coarse_names": {0: "Flower", 1: "Tree", 2: "Grass"}},
        r"entry 3 \(\[8\]\) has no name in coarse_names",
    ),
    "a name without an entry": (
        yaml.safe_load(EXAMPLE) | {"super_coarse_to_coarse_map": [[0, 3]]},
        r"super_coarse_names: Fungus \(1\) has no entry",
    ),
    "a range that goes down": (
        yaml.safe_load(EXAMPLE) | {"coarse_to_fine_map": [[3, 0], [4, 6], [7], [8]]},
        "entry 0 of Flower is .* from its lower to its higher end",
    ),
    "a key misspelt": (yaml.safe_load(EXAMPLE) | {"super_coarse_map": []}, r"super_coarse_map: no such key\. Did you"),
    "a name twice in a group": (
        {"fine_names": ["a", "a"], "coarse_names": ["g"], "coarse_to_fine_map": [[0, 1]]},
        "g/a is there 2 times",
    ),
    "no mapping": ([1, 2], "a tree is a mapping"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(case):
    tree, message = BAD[case]
    with pytest.raises(ConfigError, match=message):
        read(tree, ["sky", "tree", "car"])


def test_everything_wrong_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        read({"a": {}, "b": {"x": "one"}, "c": [1]})
    assert all(place in str(caught.value) for place in ("classes.a", "classes.b.x", "classes.c"))


def test_a_mask_value_outside_the_tree_is_named(street):
    leaves = tables_of(street, torch.device("cpu")).leaves
    mask = torch.tensor([[0, 255], [9, 7]], dtype=torch.uint8)
    assert leaves(mask).tolist() == [[0, 255], [5, 4]]
    assert mask.tolist() == [[0, 255], [9, 7]]
    with pytest.raises(DataError, match=r"a mask holds \[2\]"):
        leaves(torch.tensor([[2, 0]]))


# decoding


@given(trees(), st.integers(0, 2**31))
@settings(deadline=None)
def test_what_is_decoded_is_a_path(tree, seed):
    logits = logits_for(tree, seed)
    for how in ("path", "leaf"):
        assert coherent(decode(logits, tree, how), tree).all()


@given(trees(), st.integers(0, 2**31))
@settings(deadline=None)
def test_the_decoded_path_has_the_highest_sum_of_scores(tree, seed):
    """Against every path by itself, in plain Python."""
    logits = logits_for(tree, seed)
    got, scores = decode(logits, tree)[:, -1], torch.sigmoid(logits)
    routes = list(zip(*tree.leaf_nodes, strict=True))
    for b, y, x in ((0, 0, 0), (1, 2, 3)):
        sums = [sum(float(scores[b, node, y, x]) for node in route) for route in routes]
        assert sums[got[b, y, x]] == pytest.approx(max(sums), abs=1e-6)


@given(trees(), st.integers(0, 2**31))
@settings(deadline=None)
def test_a_positive_score_is_never_above_an_ancestors(tree, seed):
    logits = logits_for(tree, seed)
    low, high = least_above(logits, tree), greatest_below(logits, tree)
    for node, parent in enumerate(tree.parents):
        if parent is not None:
            assert (low[:, node] <= low[:, parent]).all()
            assert (high[:, node] <= high[:, parent]).all()
    assert (low <= logits).all()
    assert (high >= logits).all()


@given(trees(), st.integers(0, 2**31), st.randoms())
@settings(deadline=None)
def test_permuting_ids_permutes_outputs(tree, seed, random):
    """The same tree with other ids: the same leaf, by its path, is decoded from the same node's logits."""
    ids = list(tree.ids)
    random.shuffle(ids)

    def renamed(value):
        return ids[tree.ids.index(value)] if isinstance(value, int) else {k: renamed(v) for k, v in value.items()}

    other = read(renamed(tree.nested()))
    logits = logits_for(tree, seed)
    moved = logits[:, [tree.paths.index(path) for path in other.paths]]
    assert torch.allclose(
        leaf_scores(logits, tree)[:, 0], leaf_scores(moved, other)[:, other.paths.index(tree.paths[0])]
    )
    for level, (mine, theirs) in enumerate(
        zip(decode(logits, tree).unbind(1), decode(moved, other).unbind(1), strict=True)
    ):
        a = [tree.paths[tree.levels[level][i]] for i in mine.flatten()]
        b = [other.paths[other.levels[level][i]] for i in theirs.flatten()]
        assert a == b


def test_one_image_of_a_batch_is_decoded_as_alone(street):
    logits = logits_for(street, 5)
    for how in ("path", "leaf", "independent"):
        assert torch.equal(decode(logits, street, how)[1:], decode(logits[1:], street, how))


def test_independent_levels_may_contradict_each_other_and_the_path_decides():
    """Leaves a (in g), b and c (in h): a is the best leaf, h the best group. a: .7 + .4; b: .6 + .6; c: .1 + .6."""
    tree = read({"g": {"a": 0}, "h": {"b": 1, "c": 2}})
    logits = torch.logit(torch.tensor([0.7, 0.6, 0.1, 0.4, 0.6])).reshape(1, 5, 1, 1)
    found = {how: decode(logits, tree, how).flatten().tolist() for how in ("path", "leaf", "independent")}
    assert found == {"path": [1, 1], "leaf": [0, 0], "independent": [1, 0]}
    assert not coherent(decode(logits, tree, "independent"), tree).any()


def test_scores_by_hand(street):
    """Pixels: right; brick for plaster (1 level); building for brick (2); sky for car (3): error 2; one ignored."""
    plaster, brick, building, sky, car = (street.paths.index(p) for p in (
        ("construction", "walls", "plaster"), ("construction", "walls", "brick"), ("construction", "building"),
        ("sky",), ("movable", "car")))  # fmt: skip
    mask = torch.tensor([[3, 3, 7, 0, 255]], dtype=torch.uint8)
    leaf = torch.tensor([[plaster, brick, building, sky, car]])
    levels = torch.stack([torch.tensor(street.leaf_positions)[:, i] for i in leaf[0]], 1)[:, None]
    levels[0, 0, 1] = (levels[0, 0, 1] + 1) % 3  # the second pixel's top level says something else
    counts = TreeCounts(street)
    counts.add(leaf, levels, mask)
    assert counts.scores() == {"hierarchical_error": 2.0, "coherence": 0.75}
    assert TreeCounts(street).scores() == {"hierarchical_error": 0.0, "coherence": 1.0}
