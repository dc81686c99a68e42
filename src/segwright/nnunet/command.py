"""`nnUNetv2_train_segformer`: nnU-Net's training command with a configuration of ours. Imports nothing heavy by itself.

Flags are those of `nnUNetv2_train`; `--segformer_config`, `--epochs` and `--iterations-per-epoch` are ours.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from segwright.errors import ConfigError, MissingPackageError, SegwrightError

TRAINER = "nnUNetTrainerNoDeepSupervision_segformer"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
"""Set to 1 before anything heavy is imported: nnU-Net's workers would else multiply their threads."""
EXTERNAL = "nnUNet_extTrainer"
FOLDERS = {
    "nnUNet_preprocessed": "what nnUNetv2_plan_and_preprocess has made lies there",
    "nnUNet_results": "trained models go there",
}
"""The variables that a training needs, and what for."""


def trainer_folder() -> Path:
    """The folder that `nnUNet_extTrainer` must name, so that nnU-Net's own commands find the trainers."""
    return Path(__file__).parent / "ext"


def run_training_entry(arguments: Sequence[str] | None = None) -> None:
    """The command. A user's error is one message and exit status 1; `arguments` are those of the command line."""
    options = _parser().parse_args(arguments)
    for name in THREADS:
        os.environ[name] = "1"
    log = logging.getLogger("segwright")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    try:
        require_nnunet()
        require_folders()
        from segwright.nnunet.run import run

        run(options)
    except SegwrightError as error:
        sys.exit(f"error: {error}")


def require_nnunet() -> None:
    """Raises `MissingPackageError` where nnU-Net is not installed; else makes it find our trainers."""
    if find_spec("nnunetv2") is None:
        raise MissingPackageError("nnunetv2", "training inside nnU-Net", "nnunet")
    known = os.environ.get(EXTERNAL, "").split(os.pathsep)
    if str(trainer_folder()) not in known:
        os.environ[EXTERNAL] = os.pathsep.join([str(trainer_folder()), *filter(None, known)])


def require_folders() -> None:
    """Raises `ConfigError` where nnU-Net's variables are not set, with what to write."""
    if unset := [name for name in FOLDERS if not os.environ.get(name)]:
        purposes = "; ".join(f"{name}: {FOLDERS[name]}" for name in unset)
        example = " ".join(f"export {name}=$HOME/nnunet/{name.removeprefix('nnUNet_')};" for name in unset)
        raise ConfigError(f"the environment variables are not set: {purposes}. Name a folder for each, e.g. {example}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_train_segformer",
        description="Train a SegFormer, or any encoder with any head of Segwright, inside nnU-Net.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("dataset_name_or_id", help="996, or Dataset996_Name")
    add("configuration", help="2d; other two-dimensional configurations of the plans")
    add("fold", help="0 to 4, or all")
    add("-tr", default=TRAINER, help="trainer (default: %(default)s)")
    add("-p", default="nnUNetPlans", help="plans (default: %(default)s)")
    add("--segformer_config", metavar="FILE", help="YAML; else the packaged default, or with --c the checkpoint's own")
    add("--epochs", type=int, metavar="N", help="instead of the configuration's train.epochs")
    add("--iterations-per-epoch", type=int, metavar="N", help="instead of train.iterations_per_epoch")
    going = parser.add_mutually_exclusive_group()
    going.add_argument("--c", action="store_true", help="go on from the latest checkpoint")
    going.add_argument("--val", action="store_true", help="only validate a finished training")
    add("--val_best", action="store_true", help="validate with checkpoint_best")
    add("--npz", action="store_true", help="also keep the validation's probabilities, for ensembles")
    add("--disable_checkpointing", action="store_true", help="write no checkpoints")
    add("-pretrained_weights", metavar="FILE", help="start from a checkpoint of nnU-Net with the same network")
    add("-device", default="cuda", choices=["cuda", "cpu", "mps"], help="(default: %(default)s)")
    add("-num_gpus", type=int, default=1, metavar="N", help="GPUs of one machine (default: %(default)s)")
    return parser
