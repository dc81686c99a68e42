"""Trainers of nnU-Net with Segwright's networks. It finds them in the folder that `segwright nnunet path` names.

The configuration travels in the plans (key `segformer_config`), which nnU-Net copies beside every trained model and
into every checkpoint, so predicting, continuing, ensembling and exporting need no file of ours.
"""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import autocast
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from segwright.errors import ConfigError, MissingPackageError
from segwright.lora import trainable_parameters
from segwright.nnunet.config import SegFormernnUNetConfig, from_plain, load_config, same_network, to_plain
from segwright.nnunet.network import SegFormerNetwork, add_adapters, build_network

try:
    from batchgenerators.utilities.file_and_folder_operations import load_json
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] not in {"batchgenerators", "nnunetv2"}:
        raise
    raise MissingPackageError("nnunetv2", "training inside nnU-Net", "nnunet") from error

KEY = "segformer_config"
"""Of the plans, and of a checkpoint's `init_args`."""
SAVE_EVERY = 50
"""Epochs between two checkpoints in nnU-Net, whose schedule has 1000; a shorter one is divided into as many pieces."""


class nnUNetTrainer_segformer(nnUNetTrainer):
    """nnU-Net's trainer with a network of Segwright, AdamW, and a configuration of its own. 2d only.

    The configuration is the file's, else the plans' own (key `segformer_config`), else the packaged default.

    Raises:
        ConfigError: a 3d configuration; one that cannot be read or cannot work; another fold has another network.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own default
        segformer_config_path: str | None = None,
    ) -> None:
        _refuse_3d(plans, configuration)
        self.given = _given(plans, segformer_config_path)
        # nnU-Net records what self.__init__ takes from its own local variables, where the sixth argument is missing;
        # so while it does, the instance shows nnU-Net's __init__.
        self.__dict__["__init__"] = super().__init__
        super().__init__(plans, configuration, fold, dataset_json, device)
        del self.__dict__["__init__"]
        self.segformer_config_path = segformer_config_path
        self.enable_deep_supervision = False
        self.from_checkpoint = False
        self.schedule: dict[str, int] = {}
        self.use_config(self.given or load_config())

    def shorten(self, epochs: int | None = None, iterations_per_epoch: int | None = None) -> None:
        """Another schedule than the configuration's, also after a checkpoint is loaded; None: as it says."""
        wanted = {"epochs": epochs, "iterations_per_epoch": iterations_per_epoch}
        self.schedule = {key: value for key, value in wanted.items() if value is not None}
        self.use_config(self.segformer_config)

    def use_config(self, config: SegFormernnUNetConfig) -> None:
        """Trains with it from now on, and writes it into the plans and checkpoints."""
        train = replace(config.train, **self.schedule)
        self.segformer_config = replace(config, train=train)
        plain, plans = to_plain(self.segformer_config), self.plans_manager.plans
        plans[KEY] = plain
        self.my_init_kwargs |= {"plans": plans, "segformer_config_path": self.segformer_config_path, KEY: plain}
        self.initial_lr, self.weight_decay = train.initial_lr, train.weight_decay
        self.num_epochs, self.num_iterations_per_epoch = train.epochs, train.iterations_per_epoch
        self.num_val_iterations_per_epoch = max(1, train.iterations_per_epoch // 5)
        self.save_every = min(SAVE_EVERY, math.ceil(train.epochs / 20))

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> SegFormerNetwork:
        """For a prediction: no weights are looked up, and adapters are merged when those of a checkpoint come."""
        return build_network(_config_of(plans_manager.plans), num_input_channels, num_output_channels)

    def initialize(self) -> None:
        """As nnU-Net's, but the network is for training: with pretrained weights where it starts, and with adapters."""
        if not self.from_checkpoint:
            self._refuse_other_folds()
        self.__dict__["build_network_architecture"] = self._network_for_training
        super().initialize()

    def _network_for_training(
        self,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> SegFormerNetwork:
        schemes, fresh = configuration_manager.normalization_schemes, not self.from_checkpoint
        network = build_network(self.segformer_config, num_input_channels, num_output_channels, schemes, fresh)
        add_adapters(network, self.segformer_config)
        self._describe(network)
        return network

    def _describe(self, network: SegFormerNetwork) -> None:
        encoder = network.backbone
        weights = f"{encoder.origin}, licence: {encoder.licence}"
        folded = f"mean {encoder.mean}, std {encoder.std}" if network.normalises else "nnU-Net's alone"
        self.print_to_log_file(f"SegFormer configuration: {to_plain(self.segformer_config)}")
        self.print_to_log_file(network)
        self.print_to_log_file(trainable_parameters(network, detailed=True), add_timestamp=False)
        self.print_to_log_file(f"backbone: {encoder.name}, weights: {weights}; normalisation: {folded}")

    def configure_optimizers(self) -> tuple[Any, Any]:
        """AdamW on what trains, and nnU-Net's PolyLR."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = AdamW(trained, lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def train_step(self, batch: dict) -> dict:
        """One step on `data` (B, C, H, W) and `target` (B, 1, H, W), in mixed precision on a GPU, as nnU-Net's."""
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"].to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast("cuda") if self.device.type == "cuda" else nullcontext():
            loss = self.loss(self.network(data), target)
        self._step(loss)
        return {"loss": loss.detach().cpu().numpy()}

    def _step(self, loss: torch.Tensor) -> None:
        scaler, longest = self.grad_scaler, self.segformer_config.train.gradient_clip or math.inf
        (scaler.scale(loss) if scaler else loss).backward()
        if scaler:
            scaler.unscale_(self.optimizer)
        clip_grad_norm_(self.network.parameters(), longest)
        if scaler:
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.optimizer.step()

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """The network has one output, so there is nothing to switch."""

    def plot_network_architecture(self) -> None:
        """The log has it in words; nnU-Net's drawing needs a package that it does not install."""

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """As nnU-Net's, but with the checkpoint's own network, and `train` where the trainer was given no file.

        Raises:
            ConfigError: the trainer was given another network.
        """
        if not self.was_initialized:
            self.from_checkpoint = True
            self._take_over(_recorded(filename_or_checkpoint))
        super().load_checkpoint(filename_or_checkpoint)
        self.use_config(self.segformer_config)  # nnU-Net takes the checkpoint's init_args
        for group in self.optimizer.param_groups:  # and the optimizer the checkpoint's decay
            group["weight_decay"] = self.weight_decay

    def _take_over(self, recorded: dict[str, Any]) -> None:
        """What a checkpoint's `init_args` say of the network, before it is made. The recorded file is not read."""
        config = _config_of(recorded["plans"])
        if self.given and (differing := same_network(config, self.given)):
            raise ConfigError(
                f"the checkpoint holds another network than the configuration: {'; '.join(differing)}. To go on with "
                "it, leave --segformer_config out, or change its section train alone, and take the same plans (-p)."
            )
        if self.given and self.segformer_config_path is not None:
            config = replace(config, train=self.given.train)
        else:  # what plans say of `train` is where the training began, perhaps with another --epochs
            self.segformer_config_path = recorded.get("segformer_config_path")
        self.use_config(config)

    def _refuse_other_folds(self) -> None:
        """All folds share one plans.json, by which nnU-Net predicts with them together."""
        base = Path(self.output_folder_base)
        others = [path for path in base.glob("fold_*/checkpoint_*.pth") if path.parent != Path(self.output_folder)]
        if not others or not (base / "plans.json").is_file():
            return
        differing = same_network(_config_of(load_json(str(base / "plans.json"))), self.segformer_config)
        if differing:
            raise ConfigError(
                f"{others[0].parent} was trained with another network: {'; '.join(differing)}. nnU-Net keeps one "
                "plans.json for all folds of a trainer, so neither could be predicted with. Take the other folds' "
                "configuration, another folder nnUNet_results, or copy the plans under another name (-p)."
            )


class nnUNetTrainerNoDeepSupervision_segformer(nnUNetTrainer_segformer):
    """The same under the name that says what it lacks; `nnUNetv2_train_segformer` uses it."""


def _refuse_3d(plans: dict, configuration: str) -> None:
    manager = PlansManager(plans).get_configuration(configuration)
    if len(manager.patch_size) != 2:
        raise ConfigError(
            f"the configuration '{configuration}' has patches of {list(manager.patch_size)}, and SegFormer's backbones "
            "take two dimensions. Train the configuration 2d, which nnU-Net predicts volumes with slice by slice; for "
            "3d use nnU-Net's own trainer (nnUNetv2_train -tr nnUNetTrainer)."
        )


def _given(plans: dict, path: str | None) -> SegFormernnUNetConfig | None:
    """What the file holds, else the plans; None: neither was given."""
    if path is not None:
        return load_config(path)
    return from_plain(plans[KEY]) if KEY in plans else None


def _config_of(plans: dict) -> SegFormernnUNetConfig:
    if KEY not in plans:
        raise ConfigError(
            f"the plans hold no '{KEY}', so the network that was trained is not known. It stands in the plans.json "
            "beside a trained model; take that one."
        )
    return from_plain(plans[KEY])


def _recorded(path: str) -> dict[str, Any]:
    """A checkpoint's `init_args`; its weights are not read."""
    return torch.load(path, map_location="cpu", weights_only=False, mmap=True)["init_args"]
