"""Class weights: formulas with a pencil, counting, files, and what a run does with them."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

import segwright
from runs import small
from segwright.class_weights import METHODS, ClassWeights, class_weights_for, compute, count_pixels, read, weigh
from segwright.datasets.base import IGNORE
from segwright.errors import ConfigError, DataError
from segwright.verbs.building import build_loss
from segwright.verbs.settings import gather, with_loss_for
from segwright.verbs.source import read_source

CLASSES = ["wall", "crack", "stain"]


class Masks:
    """A split of masks alone."""

    name = "train"

    def __init__(self, *masks):
        self.masks = [np.array(mask, dtype=np.uint8) for mask in masks]
        self.read = 0

    def __len__(self):
        return len(self.masks)

    def path(self, index):
        return f"{index}.jpg"

    def annotation(self, index):
        return f"{index}.png"

    def image(self, index):
        return self.masks[index][..., None].repeat(3, 2)

    def mask(self, index):
        self.read += 1
        return self.masks[index]


def test_inverse_sqrt_by_hand():
    """n = 9000, 800, 200: 1/sqrt(n) = .010541, .035355, .070711, mean .038869."""
    assert weigh([9000, 800, 200], "inverse_sqrt") == pytest.approx([0.271191, 0.909603, 1.819206], abs=1e-6)


def test_inverse_by_hand():
    """n = 1, 2, 4: 1, 1/2, 1/4, mean 7/12."""
    assert weigh([1, 2, 4], "inverse") == pytest.approx([12 / 7, 6 / 7, 3 / 7])


def test_effective_number_by_hand():
    """n = 1, 3: N = 2, b = 1/2: effective numbers 1 and 1 + 1/2 + 1/4 = 7/4; weights 1 and 4/7, mean 11/14."""
    assert weigh([1, 3], "effective_number") == pytest.approx([14 / 11, 8 / 11])


def test_effective_number_is_inverse_for_the_rare_and_level_for_the_frequent():
    rare, rarer, often, oftener = weigh([100, 10, 10**7, 10**8], "effective_number")
    assert rarer / rare == pytest.approx(10, rel=1e-4)
    assert often / oftener < 10
    assert weigh([5, 5], "effective_number") == pytest.approx([1, 1])
    assert weigh([1, 1], "effective_number") == pytest.approx([1, 1])


@pytest.mark.parametrize("method", METHODS)
def test_weights_have_mean_1_over_the_classes_that_occur_and_absent_ones_0(method):
    weights = weigh([70, 0, 20, 3], method)
    assert weights[1] == 0
    assert sum(weights) / 3 == pytest.approx(1)
    assert weights[0] < weights[2] < weights[3]


def test_ignored_pixels_are_not_counted():
    split = Masks([[0, 0, 1], [IGNORE, 2, 2]], [[2, IGNORE]])
    assert count_pixels(split, 3).tolist() == [2, 1, 3]


def test_an_absent_class_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "segwright"):
        weights = compute("inverse", CLASSES, Masks([[0, 0, 2]]))
    assert weights.class_weights[1] == 0
    assert "no training pixel has the class crack" in caplog.text


def test_an_id_that_is_no_class_names_the_mask():
    with pytest.raises(DataError, match=r"1\.png holds the class id 7, but there are 3 classes"):
        count_pixels(Masks([[0]], [[7]]), 3)


def test_masks_without_a_pixel_that_counts_are_refused():
    with pytest.raises(DataError, match="all are ignored"):
        compute("inverse", CLASSES, Masks([[IGNORE]]))


def test_what_was_saved_is_read_back(tmp_path):
    weights = compute("inverse_sqrt", CLASSES, Masks([[0, 0, 1, 2]]))
    weights.save(tmp_path / "w.json")
    assert json.loads((tmp_path / "w.json").read_text()).keys() == {"class_weights", "classes", "method"}
    assert read(tmp_path / "w.json", CLASSES) == weights


def test_a_list_a_file_and_a_method_are_told_apart(tmp_path):
    split = Masks([[0, 1, 1, 2, 2, 2, 2]])
    file = tmp_path / "w.json"
    file.write_text('{"class_weights": [1, 2, 3]}')
    assert class_weights_for(None, CLASSES, split) is None
    assert class_weights_for([1, 2, 0], CLASSES, split).class_weights == [1, 2, 0]
    assert class_weights_for(str(file), CLASSES, split).class_weights == [1, 2, 3]
    assert split.read == 0
    assert class_weights_for("inverse", CLASSES, split).class_weights == pytest.approx([12 / 7, 6 / 7, 3 / 7])


def test_a_run_that_goes_on_does_not_count_again(tmp_path):
    split, file = Masks([[0, 1, 2]]), tmp_path / "class_weights.json"
    ClassWeights([1.0, 0.5, 1.5], CLASSES, "inverse").save(file)
    assert class_weights_for("inverse", CLASSES, split, file).class_weights == [1.0, 0.5, 1.5]
    assert split.read == 0
    assert class_weights_for("inverse_sqrt", CLASSES, split, file).class_weights == [1.0, 1.0, 1.0]


def test_a_file_of_weights_that_changed_stops_a_run_that_goes_on(tmp_path):
    own, given = tmp_path / "class_weights.json", tmp_path / "w.json"
    for file in (own, given):
        ClassWeights([1.0, 0.5, 1.5], CLASSES, "inverse").save(file)
    assert class_weights_for(str(given), CLASSES, Masks([[0]]), own).class_weights == [1.0, 0.5, 1.5]
    ClassWeights([1.0, 1.0, 1.0], CLASSES, "inverse").save(given)
    with pytest.raises(ConfigError, match="other class weights than the run began with"):
        class_weights_for(str(given), CLASSES, Masks([[0]]), own)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"class_weights": [1, 2]}', "has 2 weights, but the data have 3 classes"),
        ('{"class_weights": [1, 2, 3], "classes": ["crack", "wall", "stain"]}', "in another order"),
        ('{"class_weights": [1, 2, 3], "classes": ["wall", "crack", "moss"]}', "it has moss that the data lack"),
        ('{"class_weights": [1, -2, 3]}', "numbers from 0 up"),
        ('{"class_weights": [0, 0, 0]}', "one must be positive"),
        ('{"class_weights": {"wall": 1}}', "numbers from 0 up"),
        ('{"weights": [1, 2, 3]}', "holds no class weights"),
        ("[1, 2, 3", "cannot be read as JSON"),
    ],
)
def test_a_file_that_does_not_fit_says_why(tmp_path, text, words):
    file = tmp_path / "w.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read(file, CLASSES)


def test_wrong_words_and_counts_say_why():
    with pytest.raises(ConfigError, match=r"no file and no method. Did you mean 'inverse_sqrt'"):
        class_weights_for("invers_sqrt", CLASSES, Masks([[0]]))
    with pytest.raises(ConfigError, match=r"loss\.class_weights has 2 weights"):
        class_weights_for([1, 2], CLASSES, Masks([[0]]))
    with pytest.raises(ConfigError, match="the data have one class"):
        class_weights_for("inverse", ["crack"], Masks([[0]]))


DATA = {"data": {"root": "x"}}


def test_without_a_name_the_loss_follows_the_number_of_classes():
    settings = gather(DATA)
    assert with_loss_for(settings, 1).loss.name == "bce_dice"
    several = with_loss_for(settings, 4)
    assert several.loss.name == several.dump()["loss"]["name"] == "ce_dice"
    assert with_loss_for(gather(settings), 4).loss.name == "ce_dice"
    assert gather(settings) == settings
    assert gather(several) == several


def test_keys_without_a_name_go_to_the_loss_that_follows():
    several = with_loss_for(gather({**DATA, "loss": {"dice_weight": 2, "class_weights": "inverse"}}), 3).loss
    assert (several.name, several.config.dice_weight, several.config.class_weights) == ("ce_dice", 2, "inverse")
    one = with_loss_for(gather({**DATA, "loss": {"smooth": 3}}), 1).loss
    assert (one.name, one.config.smooth) == ("bce_dice", 3)
    with pytest.raises(ConfigError, match=r"loss\.bce_weight: no such key"):
        with_loss_for(gather({**DATA, "loss": {"bce_weight": 2}}), 3)
    with pytest.raises(ConfigError, match=r"loss\.class_weights: no such key"):
        with_loss_for(gather({**DATA, "loss": {"class_weights": [1]}}), 1)


def test_a_named_loss_stays():
    settings = gather({**DATA, "loss": {"name": "bce_dice"}})
    assert with_loss_for(settings, 3) is settings


@pytest.fixture
def several(tmp_path):
    """A data set of three classes: bands across the image, of 4, 2 and 1 rows in 7, with an ignored corner."""
    bands = np.repeat(np.array([0, 0, 0, 0, 1, 1, 2], dtype=np.uint8), 8)[:, None].repeat(80, 1)
    bands[:4, :4] = IGNORE
    for split, count in {"train": 4, "valid": 2, "test": 2}.items():
        for index in range(count):
            noise = np.random.default_rng(index).integers(0, 60, (56, 80, 3), dtype=np.uint8)
            image = noise + (np.minimum(bands, 2) * 90)[..., None].astype(np.uint8)
            for kind, pixels in {"images": image, "masks": bands}.items():
                folder = tmp_path / "bands" / split / kind
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{split}{index}.png")
    return tmp_path / "bands"


def run_config(data, folder, **loss):
    own = {"name": "folder", "root": str(data), "classes": CLASSES}
    short = {"epochs": 2, "freeze_epochs": 0}
    return small(data, folder, data=own, loss=loss, train=short, run={"check": False})


@pytest.mark.slow
def test_a_run_on_several_classes_trains_with_ce_dice_and_saves_its_weights(several, tmp_path):
    run = segwright.train(run_config(several, tmp_path / "run", class_weights="inverse_sqrt"))
    saved = json.loads((run.folder / "class_weights.json").read_text())
    n = np.array([32 * 80 - 16, 16 * 80, 8 * 80])
    assert saved["class_weights"] == pytest.approx(list(n**-0.5 / np.mean(n**-0.5)))
    assert (saved["classes"], saved["method"]) == (CLASSES, "inverse_sqrt")
    config = torch.load(run.folder / "last.pth", weights_only=True)["config"]
    assert (config["loss"]["name"], config["loss"]["class_weights"]) == ("ce_dice", "inverse_sqrt")
    assert np.isfinite([row["train_loss"] for row in run.rows] + [row["valid_loss"] for row in run.rows]).all()
    metrics = segwright.evaluate(run.best, output=tmp_path / "out")
    assert metrics["per_class"].keys() == set(CLASSES)


def test_weights_from_a_file_and_from_the_config_reach_the_loss(several, tmp_path):
    file = tmp_path / "w.json"
    ClassWeights([0.5, 1.0, 1.5], CLASSES, "made").save(file)
    for given in (str(file), [0.5, 1.0, 1.5]):
        settings = gather(run_config(several, tmp_path / "run", name="dice_focal", class_weights=given))
        loss, weights = build_loss(settings, read_source(settings))
        assert weights is not None
        assert weights.class_weights == loss.focal.class_weights.tolist() == [0.5, 1.0, 1.5]


def test_a_loss_for_one_class_stops_a_run_on_several_before_it_begins(several, tmp_path):
    with pytest.raises(ConfigError, match=r"bce_dice, which is for one class, but the data have 3"):
        segwright.train(run_config(several, tmp_path / "run", name="bce_dice"))
    assert not (tmp_path / "run").exists()
