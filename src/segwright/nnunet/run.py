"""One training in nnU-Net from the options of `command`; with several GPUs, a process for each, as nnU-Net does."""

import argparse
import os
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.run.run_training import cleanup_ddp, find_free_network_port, maybe_load_checkpoint, setup_ddp
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch.backends import cudnn

from segwright.ahead import cores
from segwright.errors import ConfigError, DataError
from segwright.nnunet.trainer import nnUNetTrainer_segformer


def run(options: argparse.Namespace) -> None:
    """Trains and validates.

    Raises:
        ConfigError: a device that is not there, or flags that contradict each other; and what the trainer raises.
        DataError: the data set is not preprocessed.
    """
    _check(options)
    if options.num_gpus > 1:
        os.environ.setdefault("MASTER_ADDR", "localhost")
        os.environ.setdefault("MASTER_PORT", str(find_free_network_port()))
        mp.spawn(_one_of_several, args=(options,), nprocs=options.num_gpus)
        return
    torch.set_num_threads(cores() if options.device == "cpu" else 1)
    _train(options, torch.device(options.device))


def _one_of_several(rank: int, options: argparse.Namespace) -> None:
    setup_ddp(rank, options.num_gpus)
    torch.cuda.set_device(rank)
    _train(options, torch.device("cuda"))
    cleanup_ddp()


def _train(options: argparse.Namespace, device: torch.device) -> None:
    """nnU-Net's own steps."""
    trainer = make_trainer(options, device)
    if options.c:
        _go_on(trainer)
    else:
        maybe_load_checkpoint(trainer, False, options.val, options.pretrained_weights)
    if device.type == "cuda":
        cudnn.benchmark = True
    if not options.val:
        trainer.run_training()
    if options.val_best:
        trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_best.pth"))
    trainer.perform_actual_validation(options.npz)


def _go_on(trainer: Any) -> None:
    """Loads the newest checkpoint. A finished training has no latest one, so with --epochs it is newer than the final.

    nnU-Net takes the final one first, and starts anew where there is none.
    """
    folder = Path(trainer.output_folder)
    found = [path for name in ("latest", "final", "best") if (path := folder / f"checkpoint_{name}.pth").is_file()]
    if not found:
        raise ConfigError(
            f"there is no checkpoint in {folder}, so --c has nothing to go on from. Leave out --c to start a new "
            "training, or see that the data set, fold, -tr, -p and nnUNet_results are those of the old one."
        )
    trainer.load_checkpoint(str(found[0]))


def make_trainer(options: argparse.Namespace, device: torch.device) -> Any:
    """The trainer that the options name, with its configuration and schedule."""
    trainer_class = recursive_find_trainer_class_by_name(options.tr)
    if not issubclass(trainer_class, nnUNetTrainer_segformer):
        raise ConfigError(
            f"-tr is {options.tr}, which is none of ours and takes no --segformer_config. Train it with nnU-Net's own "
            f"nnUNetv2_train -tr {options.tr}, or take nnUNetTrainer_segformer."
        )
    folder = _preprocessed(options.dataset_name_or_id)
    plans_file = folder / f"{options.p}.json"
    if not plans_file.is_file():
        raise DataError(
            f"there are no plans {plans_file}, so the data set is not preprocessed, or -p names others. Run "
            f"nnUNetv2_plan_and_preprocess -d {options.dataset_name_or_id} -c 2d first."
        )
    trainer = trainer_class(
        plans=load_json(str(plans_file)) | {"continue_training": options.c},
        configuration=options.configuration,
        fold=options.fold if options.fold == "all" else int(options.fold),
        dataset_json=load_json(str(folder / "dataset.json")),
        device=device,
        segformer_config_path=options.segformer_config,
    )
    trainer.shorten(options.epochs, options.iterations_per_epoch)
    trainer.disable_checkpointing = options.disable_checkpointing
    return trainer


def _preprocessed(name: str) -> Path:
    """The data set's folder in nnUNet_preprocessed."""
    try:
        full = name if name.startswith("Dataset") else maybe_convert_to_dataset_name(int(name))
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition(".")[0]
        raise DataError(
            f"no data set is called '{name}' ({reason}). Give its number, 996, or its folder's name, Dataset996_Name, "
            "and see that nnUNet_raw and nnUNet_preprocessed name the right folders."
        ) from None
    return Path(nnUNet_preprocessed.require()) / full


def _check(options: argparse.Namespace) -> None:
    if options.fold != "all" and not options.fold.isdigit():
        raise ConfigError(f"the fold is '{options.fold}'; give its number, 0 to 4, or all.")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "-device is cuda, and PyTorch finds no GPU here. Give -device cpu, or install its CUDA build."
        )
    if options.num_gpus > 1 and (options.device != "cuda" or torch.cuda.device_count() < options.num_gpus):
        raise ConfigError(
            f"-num_gpus is {options.num_gpus} with -device {options.device}, and PyTorch finds "
            f"{torch.cuda.device_count()} GPUs here; several processes need one each. Give -num_gpus 1."
        )
    if options.val_best and options.disable_checkpointing:
        raise ConfigError(
            "--val_best needs a checkpoint, and --disable_checkpointing writes none. Leave one of them out."
        )
    if options.c and options.pretrained_weights:
        raise ConfigError(
            "--c goes on from a checkpoint of its own, so -pretrained_weights would be lost. Leave it out."
        )
