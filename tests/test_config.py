"""Configurations: dialects, precedence, every problem at once."""

from pathlib import Path

import pytest
import yaml

from segwright.config import parse_overrides
from segwright.errors import ConfigError
from segwright.verbs.settings import gather

DATA = {"data": {"root": "somewhere"}}


def test_defaults_are_those_of_the_crack_system():
    s = gather(DATA)
    assert (s.model.name, s.encoder.name, s.head.name, s.head.config.width) == (
        "segformer_lite",
        "segformer_b0",
        "lite",
        32,
    )
    assert (s.input.size, s.train.batch_size, s.train.amp, s.predict.threshold) == (512, 8, True, 0.40)
    assert (s.optim.lr, s.optim.rates(), s.optim.weight_decay) == (1e-3, (1e-3, 1e-4), 0.01)
    assert (s.train.freeze_epochs, s.schedule.name, s.loss.name) == (0, "plateau", "bce_dice")


def test_the_recipe_loads_with_the_documents_values():
    s = gather(Path(__file__).parents[1] / "recipes/crack/config.yaml")
    assert s.train.freeze_epochs == 5
    assert s.optim.rates() == (1e-3, 1e-4)
    assert s.encoder.pretrained == 1
    assert s.data.config.root == "data/cracks"


def test_a_head_alone_takes_the_place_of_the_default_model():
    settings = gather({"data": {"root": "d"}, "head": {"name": "segformer"}})
    assert (settings.model.name, settings.head.name, settings.encoder.name) == (None, "segformer", "segformer_b0")


def test_lr_head_falls_back_to_lr_and_lr_encoder_to_a_tenth():
    assert gather({**DATA, "optim": {"lr": 0.01}}).optim.rates() == pytest.approx((0.01, 0.001))
    assert gather(DATA, overrides=["LR=0.01", "LR_ENCODER=0.005"]).optim.rates() == pytest.approx((0.01, 0.005))


def test_flag_beats_override_beats_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("DATA_ROOT: x\nEPOCHS: 10\nBATCH_SIZE: 4\nSEED: 1\n")
    s = gather(file, {"train.epochs": 30, "train.seed": None}, ["train.epochs=20", "BATCH_SIZE=2"])
    assert (s.train.epochs, s.train.batch_size, s.train.seed) == (30, 2, 1)


def test_yaml_mapping_and_overrides_give_equal_objects(tmp_path):
    values = {"data": {"root": "x"}, "head": {"width": 16}, "optim": {"lr": 2e-3}, "augment": {"scale": [0.5, 2.0]}}
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(values))
    words = ["data.root=x", "head.width=16", "optim.lr=2e-3", "augment.scale=[0.5,2.0]"]
    assert gather(file) == gather(values) == gather(None, overrides=words)


def test_a_mapping_that_is_a_value_is_replaced_as_a_whole_by_an_override_and_by_a_file_over_a_checkpoints_config():
    table = {"background": 0, "crack": 1, "scratch": 2}
    tree = {"wood": {"joint": 1, "board": 2}, "sky": 0}
    values = {"data": {"name": "folder", "root": "x", "classes": table}, "hierarchy": {"classes": tree}}
    words = ["data.classes={background: 0, damage: 3}", "hierarchy.classes={all: {joint: 1, board: 2, sky: 0}}"]
    new, grown = {"background": 0, "damage": 3}, {"all": {"joint": 1, "board": 2, "sky": 0}}
    over = {"data": {"classes": new}, "hierarchy": {"classes": grown}}
    for settings in (gather(values, overrides=words), gather(over, base=values), gather(None, None, words, values)):
        assert (settings.data.config.classes, settings.hierarchy.classes) == (new, grown)
        assert settings.data.config.root == "x", "sections are merged"
    assert gather({**values, "classes": {"merge": {"a": ["b"]}}}, overrides=["classes.merge={}"]).classes.merge == {}


def test_one_key_of_a_mapping_that_is_a_value_can_be_overridden():
    classes = {"merge": {"damage": ["crack"], "wood": ["board", "beam"]}}
    merged = {"damage": ["scratch", "hole"], "wood": ["board", "beam"]}
    word = "classes.merge.damage=[scratch, hole]"
    assert gather({**DATA, "classes": classes}, overrides=[word]).classes.merge == merged
    assert gather(DATA, overrides=[word], base={"classes": classes}).classes.merge == merged
    seghiero = {"dataset": {"root": "x", "train": "a"}}
    words = ["data.name=seghiero", "data.root=y", "dataset.train=b"]
    assert gather(seghiero, overrides=words).data.config.dataset == {"root": "x", "train": "b"}


def test_a_mapping_may_use_the_crack_systems_keys_too():
    assert gather({"DATA_ROOT": "x", "LR": 0.02, "IMG_SIZE": 128}) == gather(
        {"data": {"root": "x"}, "optim": {"lr": 0.02}, "input": {"size": 128}}
    )


def test_a_dumped_config_gives_an_equal_one(tmp_path):
    s = gather({**DATA, "schedule": {"name": "onecycle"}, "input": {"size": [320, 480]}, "augment": {"crop": 256}})
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(s.dump()))
    assert gather(file).dump() == s.dump()
    assert gather(file).schedule == s.schedule


def test_all_problems_are_shown_at_once_with_the_nearest_name():
    bad = {
        "encodr": {},
        "head": {"widht": 3, "name": "lite"},
        "optim": {"lr": "fast"},
        "train": {"freeze_epochs": 60, "epochs": 50},
        "schedule": {"name": "plato"},
        "predict": {"threshold": 1.5},
    }
    with pytest.raises(ConfigError) as caught:
        gather(bad)
    text = str(caught.value)
    for part in (
        "'encodr'. Did you mean 'encoder'?",
        "head.widht: no such key. Did you mean 'width'?",
        "optim.lr is 'fast'",
        "freeze_epochs is 60, but the run has 50 epochs",
        "no schedule is called 'plato'. Did you mean 'plateau'?",
        "predict.threshold is 1.5",
        "data.root is not given",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (["epochs"], "neither a flag nor key=value"),
        (["TRESHOLD=0.3"], "Did you mean 'THRESHOLD'?"),
        (["train=3"], "train is 3; it must be a mapping"),
        (["input.size=16"], "input.size is 16"),
        (["schedule.name=poly", "schedule.power=.nan"], "schedule.power is nan, which is not a finite number"),
        (["schedule.name=poly", "schedule.power=nan"], "schedule.power is nan, which is not a finite number"),
        (["schedule.name=poly", "schedule.warmup_epochs=.inf"], "schedule.warmup_epochs is inf, which is not"),
        (["optim.weight_decay=-.inf"], "optim.weight_decay is -inf, which is not"),
        (["augment.scale=[0.5, .inf]"], "augment.scale is [0.5, inf], which is not"),
        (["augment.scale=[0.01, 0.01]"], "augment.scale is [0.01, 0.01]; it must be (low, high) with 0.1"),
        (["data.name=folder", "data.classes={crack: .inf}"], "data.classes is {'crack': inf}, which is not"),
        (["input.size=[1,2,3]"], "give a number of pixels"),
        (["model.name=segformer_lite", "head.name=fpnn"], "whose head is lite"),
    ],
)
def test_a_bad_word_is_named(words, seen):
    with pytest.raises(ConfigError) as caught:
        gather(DATA, overrides=words)
    assert seen in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("- 1\n", "holds a list; a configuration is a mapping"),
        ("just a string\n", "holds the text 'just a string'; a configuration is a mapping"),
        ("42\n", "holds the number '42'; a configuration is a mapping"),
        ("a: [", "cannot be read as YAML: line 1: "),
        ("train:\n\tepochs: 3\n", "c.yaml cannot be read as YAML: line 2: there is a tab, but YAML indents by spaces"),
        ("train:\n  epochs: 3\n   lr: 4\n", "line 3: there is a second colon, or another indentation"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_with_its_line(tmp_path, text, seen):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        gather(file)
    assert seen in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_said():
    with pytest.raises(ConfigError, match="there is no configuration file"):
        gather("none.yaml")


@pytest.mark.parametrize("text", ["{split}/photos/*", "{split}/truth/*_mask.png", "{split}{x}/a: b"])
def test_a_pattern_that_begins_with_a_placeholder_needs_no_quotes(text):
    assert parse_overrides([f"data.images={text}"]) == {"data": {"images": text}}


def test_a_mapping_stays_one():
    assert parse_overrides(["a.b={c}", "a.d={e: f}"]) == {"a": {"b": {"c": None}, "d": {"e": "f"}}}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "hierarchy.classes={a:[sky,building]}",
            "the value of hierarchy.classes is {a:[sky,building]}, which is no YAML. Put a space behind each colon, "
            "and all of it in quotes: 'hierarchy.classes={a: [sky, building]}'",
        ),
        ("input.size=[1, 2", "the value of input.size is [1, 2, which is no YAML. Close every bracket and quote"),
        ("data.root=${nowhere}", "the value of data.root is ${nowhere}, which cannot be read (Interpolation key"),
    ],
)
def test_a_value_that_is_no_yaml_is_said_in_a_sentence_with_the_right_form(word, said):
    with pytest.raises(ConfigError) as caught:
        parse_overrides([word])
    assert str(caught.value).startswith(said)
    assert len(str(caught.value).splitlines()) == 1
