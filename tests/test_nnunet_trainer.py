"""The trainers inside the real nnU-Net: what they record, what they refuse, and the whole path with its commands."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from segwright.errors import ConfigError, DataError
from segwright.nnunet import command

pytestmark = [
    pytest.mark.nnunet,
    pytest.mark.usefixtures("nnunet"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
"""The warnings are nnU-Net's and its own dependencies'."""

NAMES = ("nnUNetTrainer_segformer", "nnUNetTrainerNoDeepSupervision_segformer")
CONFIG = {
    "model": {"backbone": "timm/test_vit", "decoder_hidden_size": 16, "pretrained": False},
    "lora": {"r": 2},
    "train": {"epochs": 4, "iterations_per_epoch": 5, "gradient_clip": 0.001},
}
DATASET = {
    "channel_names": {"0": "rgb_to_0_1", "1": "rgb_to_0_1", "2": "rgb_to_0_1"},
    "labels": {"background": 0, "crack": 1},
    "numTraining": 2,
    "file_ending": ".png",
}


def plans(**more: Any) -> dict[str, Any]:
    """As much of nnU-Net's plans as a trainer needs."""
    flat = {
        "data_identifier": "nnUNetPlans_2d",
        "batch_size": 2,
        "patch_size": [50, 64],
        "normalization_schemes": ["RGBTo01Normalization"] * 3,
        "batch_dice": True,
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    return {
        "dataset_name": "Dataset996_Cracks",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": {"2d": flat, "3d_fullres": flat | {"patch_size": [16, 50, 64]}},
        "continue_training": False,
        **more,
    }


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's three folders, with a preprocessed data set that holds one empty case."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    data = tmp_path / "preprocessed" / "Dataset996_Cracks" / "nnUNetPlans_2d"
    data.mkdir(parents=True)
    (data / "a.b2nd").touch()
    monkeypatch.setenv(command.EXTERNAL, str(command.trainer_folder()))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def made(folders: Path, name: str = NAMES[0], path: str | None = "c.yaml", fold: int = 0, **options: Any) -> Any:
    import segwright.nnunet as ours

    given = str(folders / path) if path else None
    configuration = options.pop("configuration", "2d")
    return getattr(ours, name)(plans(**options), configuration, fold, DATASET, torch.device("cpu"), given)


def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"data": torch.rand(2, 3, 50, 64), "target": (torch.rand(2, 1, 50, 64) > 0.8).float()}


def squares() -> dict[str, torch.Tensor]:
    """Something that can be learned: cells of the patch's grid that are bright are the foreground."""
    target = torch.zeros(2, 1, 50, 64)
    target[0, :, :32, 16:48] = target[1, :, 16:, :32] = 1
    return {"data": target.expand(-1, 3, -1, -1) + batch()["data"] / 10, "target": target}


@pytest.mark.parametrize("name", NAMES)
def test_the_path_is_the_sixth_argument_and_stands_in_init_args_with_the_resolved_config(
    name: str, folders: Path
) -> None:
    import segwright.nnunet as ours

    parameters = inspect.signature(getattr(ours, name)).parameters
    assert [*parameters][5] == "segformer_config_path"
    assert parameters["segformer_config_path"].default is None
    trainer = made(folders, name)
    recorded = trainer.my_init_kwargs
    assert recorded["segformer_config_path"] == str(folders / "c.yaml")
    assert recorded["segformer_config"]["train"]["epochs"] == 4
    assert recorded["plans"]["segformer_config"] == recorded["segformer_config"]
    assert [recorded[key] for key in ("configuration", "fold", "dataset_json")] == ["2d", 0, DATASET]
    assert inspect.signature(trainer.__init__).parameters.keys() == parameters.keys()
    json.dumps(recorded["plans"])


def test_without_a_path_the_packaged_default_holds_and_plans_come_first(folders: Path) -> None:
    assert made(folders, path=None).segformer_config.model.backbone_size == "large"
    assert made(folders, path=None).num_epochs == 1000
    assert made(folders, path=None, segformer_config={"lora": {"r": 3}}).segformer_config.lora.r == 3


def test_a_3d_configuration_is_refused_before_anything_is_written(folders: Path) -> None:
    with pytest.raises(ConfigError, match=r"two dimensions.*2d.*nnUNetTrainer"):
        made(folders, configuration="3d_fullres")
    assert not any((folders / "results").iterdir())


def test_a_config_that_does_not_exist_is_an_error(folders: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file .*gone\.yaml"):
        made(folders, path="gone.yaml")


def test_loss_optimizer_and_schedule_are_as_configured(folders: Path) -> None:
    """PolyLR by hand: at epoch 1 of 4, 0.001 (3/4)^0.9. Fifth of 5 iterations: 1 for validation."""
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss

    trainer = made(folders)
    trainer.initialize()
    assert type(trainer.loss) is DC_and_CE_loss
    assert type(trainer.optimizer) is torch.optim.AdamW
    assert trainer.optimizer.param_groups[0]["weight_decay"] == 3e-5
    trained = {id(p) for p in trainer.network.parameters() if p.requires_grad}
    assert {id(p) for p in trainer.optimizer.param_groups[0]["params"]} == trained
    trainer.lr_scheduler.step(1)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.001 * 0.75**0.9)
    assert (trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch, trainer.save_every) == (5, 1, 1)
    assert made(folders, path=None).save_every == 50
    log = Path(trainer.log_file).read_text()
    assert "decode_head" in log
    assert "backbone: test_vit, weights: random" in log
    assert "trainable params:" in log


@pytest.mark.parametrize("longest", [0.001, 0.0])
def test_gradients_are_clipped_to_the_configured_norm(longest: float, folders: Path) -> None:
    trainer = made(folders)
    trainer.segformer_config.train.gradient_clip = longest
    trainer.initialize()
    trainer.network.train()
    assert np.isfinite(trainer.train_step(batch())["loss"])
    grads = [p.grad.norm() for p in trainer.network.parameters() if p.grad is not None]
    norm = torch.stack(grads).norm().item()
    assert norm == pytest.approx(longest, rel=1e-3) if longest else norm > 0.002


def test_a_few_steps_on_one_batch_lower_the_loss(folders: Path) -> None:
    torch.manual_seed(0)
    config = CONFIG | {"lora": {"enabled": False}, "train": {"initial_lr": 0.003}}
    trainer = made(folders, path=None, segformer_config=config)
    trainer.initialize()
    trainer.network.train()
    losses = [float(trainer.train_step(squares())["loss"]) for _ in range(15)]
    assert min(losses[-3:]) < losses[0] - 0.2


def trained(folders: Path, name: str = NAMES[0], fold: int = 0) -> tuple[Any, str]:
    """A trainer after one step, and its checkpoint at the end of epoch 1; and plans beside, as nnU-Net leaves them."""
    trainer = made(folders, name, fold=fold)
    trainer.initialize()
    trainer.network.train()
    trainer.train_step(batch())
    trainer.current_epoch = 1
    path = str(Path(trainer.output_folder) / "checkpoint_latest.pth")
    trainer.save_checkpoint(path)
    Path(trainer.output_folder_base, "plans.json").write_text(json.dumps(trainer.plans_manager.plans))
    return trainer, path


def test_a_training_goes_on_with_the_checkpoints_own_network_and_schedule(
    folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, path = trained(folders)
    assert "LORA ON RANDOM WEIGHTS" in caplog.text
    caplog.clear()
    after = made(folders, path=None)
    after.load_checkpoint(path)
    assert not caplog.text, "its weights are trained, not random"
    assert after.segformer_config == before.segformer_config
    assert after.segformer_config_path == str(folders / "c.yaml")
    assert (after.current_epoch, after.num_epochs) == (2, 4)
    after.lr_scheduler.step(after.current_epoch)
    assert after.optimizer.param_groups[0]["lr"] == pytest.approx(0.001 * 0.5**0.9)
    theirs, ours = before.network.state_dict(), after.network.state_dict()
    assert [key for key in theirs if not torch.equal(theirs[key], ours[key])] == []
    assert any("lora_" in key for key in ours), "it trains on with its adapters"
    assert after.optimizer.state_dict()["state"], "and with the optimizer's moments"


def test_going_on_with_a_longer_schedule_is_recorded(folders: Path) -> None:
    _, path = trained(folders)
    after = made(folders, path=None)
    after.shorten(epochs=8)
    after.load_checkpoint(path)
    assert after.num_epochs == 8
    assert after.my_init_kwargs["plans"]["segformer_config"]["train"]["epochs"] == 8
    assert after.my_init_kwargs["segformer_config"]["train"]["iterations_per_epoch"] == 5


def test_going_on_with_another_network_is_refused(folders: Path) -> None:
    _, path = trained(folders)
    other = made(folders, path=None, segformer_config=CONFIG | {"lora": {"r": 3}})
    with pytest.raises(ConfigError, match=r"lora\.r is 2 there and 3 here"):
        other.load_checkpoint(path)
    (folders / "c.yaml").write_text(yaml.safe_dump(CONFIG | {"lora": {"r": 4}}))
    with pytest.raises(ConfigError, match=r"lora\.r is 2 there and 4 here"):
        made(folders).load_checkpoint(path)


def test_going_on_with_a_file_takes_its_schedule_and_weight_decay(folders: Path) -> None:
    _, path = trained(folders)
    (folders / "c.yaml").write_text(yaml.safe_dump(CONFIG | {"train": {"epochs": 9, "weight_decay": 0.25}}))
    after = made(folders)
    after.load_checkpoint(path)
    assert after.num_epochs == 9
    assert {group["weight_decay"] for group in after.optimizer.param_groups} == {0.25}


def test_going_on_takes_the_checkpoints_schedule_though_the_plans_hold_another(folders: Path) -> None:
    """The recorded file is gone by then, as on another machine."""
    _, path = trained(folders)
    (folders / "c.yaml").unlink()
    for _ in range(2):  # and once more from what it wrote
        after = made(folders, path=None, segformer_config=CONFIG | {"train": {"epochs": 9}})
        after.load_checkpoint(path)
        assert after.num_epochs == 4
        assert after.my_init_kwargs["segformer_config_path"] == str(folders / "c.yaml")
        after.save_checkpoint(path)


def test_a_given_file_comes_before_the_plans_and_must_exist(folders: Path) -> None:
    held = {"segformer_config": {"lora": {"r": 3}}}
    assert made(folders, **held).segformer_config.lora.r == 2
    with pytest.raises(ConfigError, match=r"no configuration file .*gone\.yaml"):
        made(folders, path="gone.yaml", **held)


def test_folds_with_different_networks_are_refused(folders: Path) -> None:
    trained(folders)
    made(folders, fold=1).initialize()
    (folders / "c.yaml").write_text(yaml.safe_dump(CONFIG | {"lora": {"enabled": False}}))
    made(folders).initialize()  # the same fold anew
    with pytest.raises(ConfigError, match=r"fold_0 was trained with another network: lora\.enabled is True there"):
        made(folders, fold=1).initialize()


@pytest.mark.parametrize("name", NAMES)
def test_nnunets_predictor_makes_the_network_from_plans_and_checkpoint_alone(name: str, folders: Path) -> None:
    """With the folder of trainers and nothing else of ours: no config file, and no adapters any more."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer, _ = trained(folders, name)
    Path(trainer.output_folder_base, "dataset.json").write_text(json.dumps(DATASET))
    (folders / "c.yaml").unlink()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,), "checkpoint_latest.pth")
    assert not [key for key in predictor.network.state_dict() if "lora_" in key]
    image = batch()["data"]
    with torch.no_grad():
        expected = trainer.network.eval()(image)
        assert (predictor.network.eval()(image) - expected).abs().max() < 1e-5


def test_plans_without_a_configuration_say_where_it_stands(folders: Path) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from segwright.nnunet import nnUNetTrainer_segformer as trainer

    manager = PlansManager(plans())
    with pytest.raises(ConfigError, match=r"plans\.json beside a trained model"):
        trainer.build_network_architecture(manager, manager.get_configuration("2d"), 3, 2, False)


OPTIONS: dict[str, Any] = {
    "dataset_name_or_id": "996",
    "configuration": "2d",
    "fold": "0",
    "tr": NAMES[1],
    "p": "nnUNetPlans",
    "segformer_config": None,
    "epochs": None,
    "iterations_per_epoch": None,
    "c": False,
    "val": False,
    "val_best": False,
    "npz": False,
    "disable_checkpointing": False,
    "pretrained_weights": None,
    "device": "cpu",
    "num_gpus": 1,
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, r"nnUNetv2_plan_and_preprocess -d 996"),
        ({"dataset_name_or_id": "997"}, r"no data set is called '997' \(Could not find"),
        ({"dataset_name_or_id": "cracks"}, "no data set is called 'cracks'"),
        ({"tr": "nnUNetTrainer"}, r"none of ours.*nnUNetv2_train -tr nnUNetTrainer"),
        ({"fold": "first"}, "0 to 4, or all"),
        ({"num_gpus": 2}, "one each"),
        ({"val_best": True, "disable_checkpointing": True}, "--val_best"),
        ({"c": True, "pretrained_weights": "a.pth"}, "-pretrained_weights would be lost"),
    ],
)
def test_what_the_command_cannot_do_is_one_error(changed: dict[str, Any], message: str, folders: Path) -> None:
    from segwright.nnunet.run import run

    with pytest.raises((ConfigError, DataError), match=message):
        run(SimpleNamespace(**(OPTIONS | changed)))  # type: ignore[arg-type]


def preprocessed(folders: Path) -> SimpleNamespace:
    """Writes the plans and the description that the command reads; its options, for going on."""
    folder = folders / "preprocessed" / "Dataset996_Cracks"
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans()))
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    return SimpleNamespace(**(OPTIONS | {"c": True}))


def test_going_on_without_a_checkpoint_is_an_error_and_no_new_training(folders: Path) -> None:
    from segwright.nnunet.run import run

    with pytest.raises(ConfigError, match=r"no checkpoint in .*fold_0, .*Leave out --c"):
        run(preprocessed(folders))  # type: ignore[arg-type]


@pytest.mark.parametrize(("there", "epoch"), [("latest final best", 2), ("final best", 6), ("best", 9)])
def test_going_on_takes_the_newest_checkpoint(
    there: str, epoch: int, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished training that was made longer and killed has a latest checkpoint beside the older final one."""
    import segwright.nnunet as ours
    from segwright.nnunet.run import run

    trainer, path = trained(folders, NAMES[1])
    for name, last in {"latest": 1, "final": 5, "best": 8}.items():
        trainer.current_epoch = last
        if name in there.split():
            trainer.save_checkpoint(path.replace("latest", name))
        else:
            Path(path.replace("latest", name)).unlink(missing_ok=True)
    began: list[int] = []
    monkeypatch.setattr(ours.nnUNetTrainer_segformer, "run_training", lambda self: began.append(self.current_epoch))
    monkeypatch.setattr(ours.nnUNetTrainer_segformer, "perform_actual_validation", lambda self, npz: None)
    run(preprocessed(folders))  # type: ignore[arg-type]
    assert began == [epoch]


def test_a_missing_gpu_is_said_before_the_training_starts(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segwright.nnunet.run import run

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="-device cpu"):
        run(SimpleNamespace(**(OPTIONS | {"device": "cuda"})))  # type: ignore[arg-type]


# the whole path, with the real commands


class Commands:
    """nnU-Net's commands with folders of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.variables = {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}
        for folder in self.variables.values():
            Path(folder).mkdir()
        self.variables |= {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1"}

    def __call__(self, *words: str, **variables: str) -> str:
        """Runs a command of this environment, or a script; what it prints."""
        script = Path(words[0]) if "/" in words[0] else Path(sys.executable).parent / words[0]
        if not script.exists():  # an entry point of the package, in an environment that has it by its path alone
            script = Path(__file__).parents[1] / "recipes" / "nnunet" / f"{words[0]}.py"
        environment = {**os.environ, **self.variables, **variables}
        done = subprocess.run(
            [sys.executable, str(script), *words[1:]], capture_output=True, text=True, env=environment, cwd=self.root
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_path_with_nnunets_own_commands(tmp_path: Path) -> None:
    """Plan, train, go on, predict, score, export, install elsewhere, predict: the same masks."""
    call = Commands(tmp_path)
    recipes = Path(__file__).parents[1] / "recipes" / "nnunet"
    raw = tmp_path / "raw"
    call(str(recipes / "make_dataset996.py"), str(raw), "--train", "6", "--test", "2")
    call(
        "nnUNetv2_plan_and_preprocess", "-d", "996", "--verify_dataset_integrity", "-c", "2d", "-np", "1", "-npfp", "1"
    )
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG | {"train": {"iterations_per_epoch": 2}}))
    train = ("nnUNetv2_train_segformer", "996", "2d", "0", "-device", "cpu")
    shown = call(*train, "--segformer_config", "c.yaml", "--epochs", "2", nnUNet_n_proc_DA="0")
    assert "decode_head" in shown
    assert "Mean Validation Dice" in shown
    shown = call(*train, "--c", "--epochs", "3", nnUNet_n_proc_DA="0")
    assert "Epoch 2" in shown
    assert "Epoch1\n" not in shown.replace(" ", "")
    model = tmp_path / "results" / "Dataset996_Cracks" / f"{NAMES[1]}__nnUNetPlans__2d"
    checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["init_args"]["segformer_config_path"] == "c.yaml"
    assert checkpoint["init_args"]["segformer_config"]["train"]["epochs"] == 3
    (tmp_path / "c.yaml").unlink()

    where = {command.EXTERNAL: str(command.trainer_folder())}
    chosen = ("-d", "996", "-c", "2d", "-f", "0", "-tr", NAMES[1])
    predict = ("nnUNetv2_predict", "-i", str(raw / "Dataset996_Cracks" / "imagesTs"), *chosen, "-device", "cpu")
    call(*predict, "-o", "one", "-npp", "1", "-nps", "1", **where)
    truth = str(raw / "Dataset996_Cracks" / "labelsTs")
    call("nnUNetv2_evaluate_folder", truth, "one", "-djfile", str(model / "dataset.json"), "-pfile", "one/plans.json")
    assert 0 <= json.loads((tmp_path / "one" / "summary.json").read_text())["foreground_mean"]["Dice"] <= 1

    zipped = ("-d", "996", "-o", "m.zip", "-c", "2d", "-f", "0", "-tr", NAMES[1])
    call("nnUNetv2_export_model_to_zip", *zipped)
    elsewhere = {"nnUNet_results": str(tmp_path / "elsewhere"), **where}
    call("nnUNetv2_install_pretrained_model_from_zip", "m.zip", **elsewhere)
    call(*predict, "-o", "two", "-npp", "1", "-nps", "1", **elsewhere)
    masks = sorted(path.name for path in (tmp_path / "one").glob("*.png"))
    assert len(masks) == 2
    for name in masks:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
