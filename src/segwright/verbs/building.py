"""What a run is built of: model, data, loss, optimizer and schedule, from a configuration."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from segwright import class_weights, lora
from segwright.data import EpochBatches, Share, evaluation_batches, preloaded, training_batches, worker_count
from segwright.datasets.base import Source
from segwright.engine import Engine
from segwright.errors import ConfigError
from segwright.losses import LOSSES
from segwright.model import Segmenter, build_model, count_parameters
from segwright.training.ema import Average
from segwright.training.optim import build_optimizer
from segwright.training.schedules import SCHEDULES
from segwright.transforms import Augment
from segwright.verbs.folder import run_folder
from segwright.verbs.loading import remember
from segwright.verbs.settings import LOSS_OF_TREE, Settings
from segwright.verbs.trees import channels, tree_for_loss

log = logging.getLogger("segwright")


@dataclass(frozen=True)
class Parts:
    """What a run is built of, before it has a folder."""

    bare: Segmenter
    model: nn.Module
    average: Average | None
    optimizer: Any
    schedule: Any
    loss: nn.Module
    weights: class_weights.ClassWeights | None
    """Those of the classes, where the loss takes any."""
    batches: DataLoader
    sampler: EpochBatches
    valid: DataLoader


def build(settings: Settings, source: Source, engine: Engine, payload: dict[str, Any] | None) -> Parts:
    """Model, data, loss, optimizer, schedule. Writes nothing but preloaded images."""
    t = settings.train
    loss, weights = build_loss(settings, source, resumed=payload is not None)
    torch.manual_seed(t.seed)
    bare = make_model(settings, source, payload)
    log_model(bare, settings, engine)
    batches, sampler, valid = build_batches(settings, source, engine, bare)
    model, optimizer = engine.prepare(bare, build_optimizer(bare, settings.optim, sampler.images_per_step))
    return Parts(
        bare=bare,
        model=model,
        average=None if t.ema is None else Average(bare, t.ema),
        optimizer=optimizer,
        schedule=build_schedule(settings, optimizer, sampler.steps),
        loss=loss,
        weights=weights,
        batches=batches,
        sampler=sampler,
        valid=valid,
    )


def build_batches(
    settings: Settings, source: Source, engine: Engine, model: Segmenter
) -> tuple[DataLoader, EpochBatches, DataLoader]:
    """Those to train on, the sampler that orders them, and those to validate on."""
    t, size, workers = settings.train, settings.input.pixels(), worker_count(settings.input.workers, engine.device)
    identity = {section: settings.dump()[section] for section in ("data", "classes")}
    identity |= {"names": [*source.classes, *source.coarse]}
    with engine.first():
        train_split = preloaded(settings.input, source.splits["train"], identity)
        valid_split = preloaded(settings.input, source.splits["valid"], identity, own_masks=True)
    share = Share(rank=engine.rank, processes=engine.processes, accumulate=t.accumulate)
    augment = Augment(settings.augment, model.encoder.mean)
    batches, sampler = training_batches(train_split, size, augment, t.batch_size, t.seed, workers, t.passes, share)
    return batches, sampler, evaluation_batches(valid_split, size, t.batch_size, workers, share)


def build_schedule(settings: Settings, optimizer: Any, epoch_steps: int) -> Any:
    """The schedule over the run. Raises `ConfigError` where it does not fit into the run."""
    name, config = settings.schedule.name, settings.schedule.config
    if settings.optim.scale_lr is not None and getattr(config, "max_lr", None) is not None:
        raise ConfigError(
            "schedule.max_lr and optim.scale_lr are both set, so it is not known whether the peak is to be scaled. "
            "Leave out schedule.max_lr: the cycle's peak is then optim.lr, scaled."
        )
    return SCHEDULES.build(name, config, optimizer, settings.train.epochs * epoch_steps, epoch_steps)


def make_model(settings: Settings, source: Source, payload: dict[str, Any] | None) -> Segmenter:
    """The model with its first weights and adapters; of a run that goes on, what its checkpoint is put into."""
    wanted = len(channels(settings, source.classes))
    model = build_model(settings.model, settings.encoder, settings.head, wanted, pretrained=payload is None)
    if payload is not None:
        remember(model, payload)
    lora.apply(model, settings.lora)
    return model


def build_loss(
    settings: Settings, source: Source, resumed: bool = False
) -> tuple[nn.Module, class_weights.ClassWeights | None]:
    """The loss, and its class weights, which a resumed run takes from its folder. Raises `ConfigError`."""
    name, config = settings.loss.name, settings.loss.config
    if source.coarse and name != LOSS_OF_TREE:
        raise ConfigError(
            f"hierarchy.coarse_labels names pixels of which only a group is known, but loss.name is {name}, which "
            "learns single classes. Train with loss.name=tree (with loss.tree_weight=0 a cross-entropy on each level), "
            f"or let these pixels count nowhere: classes.ignore=[{', '.join(source.coarse)}] in place of the coarse "
            "labels."
        )
    saved = run_folder(settings) / class_weights.FILE if resumed else None
    wanted = getattr(config, "class_weights", None)
    weights = class_weights.class_weights_for(wanted, source.classes, source.splits["train"], saved)
    tree = tree_for_loss(settings, source.classes)
    over = {"hierarchy": tree} if tree else {}
    return LOSSES.build(name, config, source.num_classes, weights and weights.class_weights, **over), weights


def log_model(model: Segmenter, settings: Settings, engine: Engine) -> None:
    in_vain = settings.train.amp and engine.precision == "no"
    log.info(
        "%s: encoder %s (%s), %s parameters, on %s in %s%s",
        settings.name,
        model.encoder.name,
        model.encoder.origin,
        f"{count_parameters(model):,}",
        engine.device,
        {"no": "float32"}.get(engine.precision, engine.precision)
        + (" (train.amp: this processor has no bfloat16 instructions)" if in_vain else ""),
        "" if engine.distributed == "none" else f", {engine.processes} processes ({engine.distributed})",
    )
    if settings.lora.enabled:
        log.info("%s", lora.trainable_parameters(model, detailed=True))
    if settings.train.frozen_epochs and model.encoder.origin == "random":
        log.warning(
            "the encoder's weights are random and stay so for %d epochs; a frozen random encoder teaches the head "
            "little. Give --pretrained a file, or do not freeze it",
            settings.train.frozen_epochs,
        )
