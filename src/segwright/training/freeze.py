"""Freezing the encoder for the first epochs, so that a new head does not spoil pretrained features."""

import logging

from torch import nn

from segwright.model import Segmenter, count_parameters

log = logging.getLogger("segwright")


def set_frozen(model: Segmenter, frozen: bool) -> None:
    """Switches the gradient of every encoder parameter off or on."""
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(not frozen)


def train_mode(model: Segmenter, frozen: bool) -> None:
    """Training mode, but a frozen encoder stays in evaluation: its batch-norm statistics and stochastic depth too."""
    model.train()
    if frozen:
        model.encoder.eval()


def begin_epoch(model: Segmenter, epoch: int, freeze_epochs: int) -> bool:
    """Puts the encoder into the state of this epoch (from 0); True where it is frozen. Logs every change."""
    frozen = epoch < freeze_epochs
    changed = frozen != is_frozen(model.encoder)
    set_frozen(model, frozen)
    train_mode(model, frozen)
    if changed or (epoch == 0 and frozen):
        word = "frozen" if frozen else "unfrozen"
        log.info("epoch %d: encoder %s, %s trainable parameters", epoch + 1, word, f"{count_parameters(model, True):,}")
    return frozen


def is_frozen(encoder: nn.Module) -> bool:
    """Whether none of its parameters has a gradient."""
    return not any(parameter.requires_grad for parameter in encoder.parameters())
