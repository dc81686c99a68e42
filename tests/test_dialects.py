"""The YAML blocks of the SPARK and ARTeFACT systems load as they stand, and their keys work wherever they are given."""

import pytest
import yaml

from segwright.config.sections import KEYS
from segwright.errors import ConfigError, SegwrightError
from segwright.verbs.folder import aside, claim_folder, set_aside
from segwright.verbs.run_files import remove_run
from segwright.verbs.settings import gather

SPARK = """
model:
  variant: "b2"
  pretrained: "ade20k"
  freeze_backbone: false
training:
  epochs: 100
  image_size: 512
  batch_size: 8
  optimizer:
    type: "adamw"
    lr: 6e-5
    weight_decay: 0.01
  loss:
    type: "ce_dice"
"""
ARTEFACT = """
training:
  batch_size: 96
  epochs: 50
  learning_rate: 0.001
  weight_decay: 0.01
  mixed_precision: true
loss:
  type: dice_focal
  dice_weight: 0.5
  focal_weight: 0.5
  focal_gamma: 2.0
  focal_alpha: 0.25
optimizer:
  type: adamw
scheduler:
  type: onecycle
  max_lr: 0.001
"""


@pytest.fixture
def spark(tmp_path):
    (tmp_path / "spark.yaml").write_text(SPARK)
    return tmp_path / "spark.yaml"


@pytest.fixture
def artefact(tmp_path):
    (tmp_path / "artefact.yaml").write_text(ARTEFACT)
    return tmp_path / "artefact.yaml"


DATA = {"data.root": "x"}


def test_sparks_block_loads_as_it_stands(spark):
    s = gather(spark, DATA)
    assert (s.model.name, s.encoder.name, s.encoder.pretrained) == ("segformer_b2", "segformer_b2", "ade20k")
    assert (s.head.name, s.head.config.width) == ("segformer", 768)
    assert (s.train.epochs, s.train.batch_size, s.train.freeze_encoder, s.input.size) == (100, 8, False, 512)
    assert (s.optim.name, s.optim.rates(), s.optim.weight_decay) == ("adamw", (6e-5, 6e-5), 0.01)
    assert s.loss.name == "ce_dice"
    assert (s.run.output, s.run.best_as) == ("model_weights_segformer_b2", "segformer_best")


def test_artefacts_block_loads_as_it_stands(artefact):
    s = gather(artefact, DATA)
    assert (s.train.epochs, s.train.batch_size, s.train.amp) == (50, 96, True)
    assert (s.optim.name, s.optim.rates(), s.optim.weight_decay) == ("adamw", (1e-3, 1e-3), 0.01)
    loss = s.loss.config
    assert s.loss.name == "dice_focal"
    assert (loss.dice_weight, loss.focal_weight, loss.gamma, loss.alpha) == (0.5, 0.5, 2.0, 0.25)
    assert (s.schedule.name, s.schedule.config.max_lr) == ("onecycle", 1e-3)


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("model.variant=b5", lambda s: s.model.name == s.encoder.name == "segformer_b5"),
        ("model.variant=b5", lambda s: s.run.output == "model_weights_segformer_b5"),
        ("model.variant=b0", lambda s: s.head.config.width == 256),
        ("training.image_size=768", lambda s: s.input.size == 768),
        ("training.optimizer.lr=2e-5", lambda s: s.optim.rates() == (2e-5, 2e-5)),
        ("optim.lr_head=6e-4", lambda s: s.optim.rates() == (6e-4, 6e-5)),
        ("training.loss.type=focal", lambda s: s.loss.name == "focal"),
        ("training.loss.dice_weight=0.25", lambda s: s.loss.config.dice_weight == 0.25),
        ("model.pretrained=imagenet", lambda s: s.encoder.pretrained == "imagenet"),
        ("model.pretrained=false", lambda s: s.encoder.pretrained is False),
        ("model.freeze_backbone=true", lambda s: s.train.freeze_encoder),
        ("training.zero_stage=2", lambda s: s.train.distributed == "auto_zero2"),
        ("training.zero_stage=0", lambda s: s.train.distributed == "auto"),
        ("save_path=elsewhere", lambda s: (s.run.output, s.run.best_as) == ("elsewhere", "segformer_best")),
        ("save_path=w/{variant}", lambda s: s.run.output == "w/b2"),
    ],
)
def test_a_key_of_sparks_changes_its_file_on_the_command_line(spark, word, read):
    assert read(gather(spark, DATA, [word]))


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("training.learning_rate=5e-4", lambda s: s.optim.rates() == (5e-4, 5e-4)),
        ("scheduler.max_lr=0.01", lambda s: s.schedule.config.max_lr == 0.01),
        ("loss.focal_gamma=1", lambda s: s.loss.config.gamma == 1.0),
        ("loss.gamma=1", lambda s: s.loss.config.gamma == 1.0),
        ("training.mixed_precision=false", lambda s: not s.train.amp),
        ("optimizer.type=sgd", lambda s: s.optim.name == "sgd"),
    ],
)
def test_a_key_of_artefacts_changes_its_file_on_the_command_line(artefact, word, read):
    assert read(gather(artefact, DATA, [word]))


def test_a_native_key_beside_theirs_wins(tmp_path):
    file = tmp_path / "both.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(SPARK) | {"optim": {"lr_head": 1e-3}, "run": {"output": "here"}}))
    s = gather(file, DATA)
    assert s.optim.rates() == (1e-3, 6e-5)
    assert s.run.output == "here"


def test_a_learning_rate_without_the_encoders_is_for_both_however_it_is_spelled(artefact, spark):
    for file, key in ((spark, "training.optimizer.lr"), (artefact, "training.learning_rate")):
        assert KEYS[key] == ("optim.lr", "optim.lr_encoder")
        assert len(set(gather(file, DATA, [f"{key}=3e-4"]).optim.rates())) == 1


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("training.optimiser=adamw", r"training\.optimiser.*Did you mean 'training\.optimizer\."),
        ("training.batchsize=3", r"training\.batchsize.*training\.batch_size"),
        ("model.variant=b7", r"model\.variant is 'b7'"),
        ("training.zero_stage=3", r"training\.zero_stage is 3"),
        ("scheduler.maxlr=1", r"schedule\.maxlr: no such key.*max_lr"),
        ("optimizer.type=lion", "lion"),
    ],
)
def test_what_nobody_knows_is_told_with_the_nearest(artefact, word, told):
    with pytest.raises(ConfigError, match=told):
        gather(artefact, DATA, [word])


def test_a_peak_of_another_schedule_than_one_cycle_is_refused(artefact):
    with pytest.raises(ConfigError, match=r"schedule\.max_lr"):
        gather(artefact, DATA, ["scheduler.type=poly"])


def test_a_dump_of_theirs_gives_an_equal_config(spark, artefact):
    for file in (spark, artefact):
        s = gather(file, DATA)
        assert gather(s.dump()) == s


def test_sparks_best_weights_have_its_name_too_and_the_run_can_be_replaced(spark, tmp_path):
    settings = gather(spark, DATA, [f"save_path={tmp_path}/weights_{{variant}}"])
    folder = claim_folder(settings, resume=False)
    assert folder == tmp_path / "weights_b2"
    for content in (b"first", b"better"):
        (folder / "new").write_bytes(content)
        (folder / "new").replace(folder / "best.pth")  # as every checkpoint is written
        assert (folder / "segformer_best").read_bytes() == content
    (folder / "evaluation").mkdir()
    set_aside(folder)
    remove_run(aside(folder))
    assert not aside(folder).exists()


def test_a_link_to_something_else_is_not_a_runs(spark, tmp_path):
    folder = claim_folder(gather(spark, DATA, [f"save_path={tmp_path}/w"]), resume=False)
    (folder / "mine").symlink_to(tmp_path)
    with pytest.raises(SegwrightError, match="mine"):
        set_aside(folder)


def test_another_name_of_the_best_weights_is_no_path(spark):
    with pytest.raises(ConfigError, match=r"run\.best_as"):
        gather(spark, DATA, ["run.best_as=../best"])
