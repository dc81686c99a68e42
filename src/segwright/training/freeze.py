"""Freezing the encoder for the first epochs, so that a new head does not spoil pretrained features.

Where the encoder has LoRA adapters, they are what freezes and thaws; its own weights never train.
"""

import logging

from torch import nn

from segwright.lora import is_adapter
from segwright.model import Segmenter, count_parameters, is_encoder

log = logging.getLogger("segwright")


def may_train(model: nn.Module) -> list[nn.Parameter]:
    """The encoder's parameters that train where it is not frozen: all, or its LoRA adapters where it has any."""
    own = {name: parameter for name, parameter in model.named_parameters() if is_encoder(name)}
    adapters = [parameter for name, parameter in own.items() if is_adapter(name)]
    return adapters or list(own.values())


def set_frozen(model: Segmenter, frozen: bool) -> None:
    """Switches the gradient of what may train in the encoder off or on."""
    for parameter in may_train(model):
        parameter.requires_grad_(not frozen)


def train_mode(model: Segmenter, frozen: bool) -> None:
    """Training mode, but a frozen encoder stays in evaluation: its batch-norm statistics and stochastic depth too.

    Beside adapters the statistics stay as well: they belong to the weights that no adapter holds.
    """
    model.train()
    if frozen:
        model.encoder.eval()
    elif any(is_adapter(name) for name, _ in model.encoder.named_parameters()):
        for module in model.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


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
