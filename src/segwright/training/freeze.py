"""Freezing the encoder for the first epochs, so that a new head does not spoil pretrained features."""

import logging

from segwright.model import Segmenter, count_parameters, is_encoder

log = logging.getLogger("segwright")


def set_frozen(model: Segmenter, frozen: bool) -> None:
    """Switches the gradient of every encoder parameter off or on."""
    for name, parameter in model.named_parameters():
        if is_encoder(name):
            parameter.requires_grad_(not frozen)


def train_mode(model: Segmenter, frozen: bool) -> None:
    """Training mode, but a frozen encoder stays in evaluation: its batch-norm statistics and stochastic depth too."""
    model.train()
    if frozen:
        model.encoder.eval()


def begin_epoch(model: Segmenter, epoch: int, freeze_epochs: int) -> bool:
    """Puts the encoder into the state of this epoch (from 0); True where it is frozen. Logs every change."""
    frozen = epoch < freeze_epochs
    changed = frozen != is_frozen(model)
    set_frozen(model, frozen)
    train_mode(model, frozen)
    if changed or (epoch == 0 and frozen):
        word = "frozen" if frozen else "unfrozen"
        log.info("epoch %d: encoder %s, %s trainable parameters", epoch + 1, word, f"{count_parameters(model, True):,}")
    return frozen


def is_frozen(model: Segmenter) -> bool:
    """Whether none of the encoder's parameters has a gradient."""
    return not any(parameter.requires_grad for name, parameter in model.named_parameters() if is_encoder(name))
