"""Classes merged, renamed, dropped and ignored: ids are dense, in the data's order, and nothing is guessed."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from segwright.datasets import folder
from segwright.datasets.base import Source
from segwright.datasets.mapping import Config, mapped
from segwright.errors import ConfigError
from segwright.verbs.settings import gather
from segwright.verbs.source import read_source

NAMES = ("sky", "road", "pavement", "background", "car", "truck")
COLOURS = tuple((10 * i, 0, 0) for i in range(6))
VALUES = np.array([[0, 1, 2, 3, 4, 5, 255, 17]], np.uint8)
"""Every class, the ignored, and one that stands for none."""


@dataclass(frozen=True)
class OneImage:
    values: tuple[int, ...]
    name: str = "train"

    def __len__(self) -> int:
        return 1

    def path(self, index: int) -> Path:
        return Path("a.png")

    def annotation(self, index: int) -> Path:
        return Path("a_mask.png")

    def image(self, index: int) -> np.ndarray:
        return np.zeros((1, len(self.values), 3), np.uint8)

    def mask(self, index: int) -> np.ndarray:
        return np.array([self.values], np.uint8)


SOURCE = Source(NAMES, {"train": OneImage(tuple(VALUES[0].tolist()))}, colours=COLOURS)
BINARY = Source(("crack",), {"train": OneImage((0, 1, 255, 9))}, colours=((255, 0, 0),))


def result(**config) -> tuple[list[str], list[int]]:
    """Class names, and what the values 0 to 5, 255 and 17 became."""
    new = mapped(SOURCE, Config(**config))
    return list(new.classes), new.splits["train"].mask(0)[0].tolist()


def refused(source: Source = SOURCE, **config) -> str:
    with pytest.raises(ConfigError) as caught:
        mapped(source, Config(**config))
    return str(caught.value)


def test_nothing_asked_is_nothing_changed():
    assert mapped(SOURCE, Config()) is SOURCE


def test_merged_classes_stand_where_the_first_of_them_stood():
    assert result(merge={"vehicle": ["truck", "car"], "ground": ["pavement", "road"]}) == (
        ["sky", "ground", "background", "vehicle"],
        [0, 1, 1, 2, 3, 3, 255, 254],
    )


def test_a_class_may_be_merged_into_another():
    assert result(merge={"car": ["car", "truck"]}) == (
        ["sky", "road", "pavement", "background", "car"],
        [0, 1, 2, 3, 4, 4, 255, 254],
    )


def test_renamed_classes_keep_their_place():
    assert result(rename={"road": "street"})[0] == ["sky", "street", "pavement", "background", "car", "truck"]


def test_dropped_classes_become_background_and_ignored_ones_255():
    assert result(drop=["sky", "truck"], ignore=["pavement"]) == (
        ["background", "road", "car"],
        [0, 1, 255, 0, 2, 0, 255, 254],
    )


def test_background_may_have_another_name():
    assert result(drop=["car", "truck"], background="road", rename={"road": "else"}) == (
        ["sky", "else", "pavement", "background"],
        [0, 1, 2, 3, 1, 1, 255, 254],
    )


def test_one_class_against_the_rest():
    classes, ids = result(merge={"vehicle": ["car", "truck"]}, drop=["sky", "road", "pavement"], binary=True)
    assert (classes, ids) == (["vehicle"], [0, 0, 0, 0, 1, 1, 255, 254])


def test_colours_follow_their_classes():
    new = mapped(SOURCE, Config(merge={"vehicle": ["truck", "car"]}, ignore=["sky"]))
    assert new.colours == [(10, 0, 0), (20, 0, 0), (30, 0, 0), (40, 0, 0)]


def test_a_binary_source_can_be_renamed_and_keeps_its_background():
    new = mapped(BINARY, Config(rename={"crack": "damage"}))
    assert list(new.classes) == ["damage"]
    assert new.splits["train"].mask(0).tolist() == [[0, 1, 255, 254]]


def test_what_became_what_is_a_finding():
    (finding,) = mapped(SOURCE, Config(drop=["sky"], ignore=["truck"], merge={"way": ["road", "pavement"]})).findings
    assert finding.level == "info"
    assert finding.message == (
        "classes: 0 background <- sky, background; 1 way <- road, pavement; 2 car <- car; ignored <- truck."
    )


def test_mapped_splits_survive_pickling_and_give_the_rest_through():
    split = pickle.loads(pickle.dumps(mapped(SOURCE, Config(ignore=["sky"])).splits["train"]))
    assert (len(split), split.name, split.path(0), split.annotation(0)) == (
        1, "train", Path("a.png"), Path("a_mask.png"),
    )  # fmt: skip
    assert split.image(0).shape == (1, 8, 3)
    assert split.mask(0)[0, 0] == 255


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"drop": ["raod"]}, "classes.drop: the data have no class 'raod'. Did you mean 'road'?"),
        ({"merge": {"x": ["cars"]}}, "classes.merge: the data have no class 'cars'. Did you mean 'car'?"),
        ({"rename": {"Sky": "air"}}, "Did you mean 'sky'?"),
        ({"ignore": ["void"]}, "There are: background, car, "),
        ({"rename": {"road": "sky"}}, "two classes would be called 'sky'"),
        ({"merge": {"sky": ["road", "car"]}}, "two classes would be called 'sky'"),
        ({"ignore": list(NAMES)}, "nothing is left to learn"),
        ({"ignore": list(NAMES[1:])}, "only 'sky' is left"),
        ({"binary": True}, "classes.binary is true, but sky, road"),
        ({"drop": ["car"], "ignore": ["background"]}, "no class that stays is called background"),
    ],
)
def test_what_cannot_be_is_refused(config, message):
    assert message in refused(**config)


def test_a_class_with_two_fates_is_refused():
    with pytest.raises(ConfigError, match="'road' stands in two places"):
        Config(drop=["road"], merge={"x": ["road", "sky"]})


def test_the_section_of_a_config_reaches_the_masks(tmp_path):
    folder.example(tmp_path)
    settings = gather(
        {"data": {"root": str(tmp_path)}, "classes": {"merge": {"thing": ["plant", "crack"]}}},
        overrides=["classes.background=wall", "classes.binary=true"],
    )
    assert gather(settings.dump()) == settings
    plain, binary = folder.scan(folder.Config(root=str(tmp_path))), read_source(settings)
    assert list(binary.classes) == ["thing"]
    old, new = plain.splits["train"].mask(0), binary.splits["train"].mask(0)
    np.testing.assert_array_equal(new, np.where(old == 255, 255, old > 0))
