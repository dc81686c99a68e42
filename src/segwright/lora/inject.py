"""Putting adapters into an encoder, with a look at whether each is used, and taking them out again.

An adapter can be dead without a word: some attentions read a layer's weight and never call the layer. So each adapter
is looked at while the encoder runs once on a small image.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from segwright.errors import ConfigError, MissingPackageError
from segwright.lora.config import Config, check_values
from segwright.lora.parts import adapters_of, encoder_of
from segwright.lora.targets import find_targets

log = logging.getLogger("segwright")

PROBE_PX = (64, 224, 384, 512)
"""Sides of the image that shows which adapters are used: the first that the encoder takes. Windows fix some sizes."""


def enable_lora(
    model: nn.Module,
    r: int = 8,
    alpha: float = 16,
    dropout: float = 0.05,
    targets: Sequence[str] = ("qkv",),
) -> None:
    """Freezes the encoder of `model` (its `.encoder` or `.backbone`) and puts adapters beside the target layers.

    A target is the end of a module's name: `qkv`, `attn.proj`, `mlp.fc1`. An encoder's pyramid, which no pretrained
    weights know, stays trainable. Random encoder weights are a warning.

    Raises:
        ConfigError: r, dropout or the targets cannot work, adapters would be dead, or there are some already.
        MissingPackageError: peft is not installed.
    """
    peft = _peft()
    encoder = encoder_of(model)
    if adapters_of(encoder):
        raise ConfigError(
            "the model has LoRA adapters already; a second set would stack. Call disable_lora(model) first."
        )
    check_values(r, alpha, dropout)
    names = find_targets(encoder, targets)
    _warn_of_random(model, encoder)
    mended = _separate_biases(encoder, names)
    config = peft.LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, bias="none")
    peft.inject_adapter_in_model(config, encoder)
    for layer in adapters_of(encoder).values():
        layer.train(layer.get_base_layer().training)  # peft leaves them in training mode, with dropout
    if dead := _dead(encoder):
        _remove(encoder, merge=False)
        _set_separate(mended, False)
        _refuse_dead(dead)
    if mended:
        log.info(
            "LoRA: the biases of %d attentions are now added apart, else adapters would have no effect", len(mended)
        )
    for part in _fresh(encoder):
        part.requires_grad_(True)


def apply(model: nn.Module, config: Config) -> None:
    """`enable_lora` with the values of the section `lora`, where it is enabled. Raises what that raises."""
    if config.enabled:
        enable_lora(model, config.r, config.lora_alpha, config.lora_dropout, config.target_modules)


def disable_lora(model: nn.Module) -> None:
    """Adds the adapters to the weights and removes them; in evaluation the function is the same up to rounding.

    The encoder stays frozen; `model.requires_grad_(True)` would train it on.
    """
    encoder = encoder_of(model)
    if not adapters_of(encoder):
        log.info("LoRA is not enabled on this model; nothing to merge")
        return
    _remove(encoder, merge=True)
    log.info("LoRA: adapters merged into the encoder's weights")


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingPackageError("peft", "LoRA", "lora") from error
    return peft


def _warn_of_random(model: nn.Module, encoder: nn.Module) -> None:
    if getattr(encoder, "origin", getattr(model, "origin", None)) == "random":
        log.warning(
            "LORA ON RANDOM WEIGHTS: the encoder's weights are random and stay frozen, so adapters of low rank have "
            "nothing to adapt, and the result will be poor. Give pretrained weights, or train without LoRA."
        )


def _separate_biases(encoder: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Attentions of DINOv3's qkvb kind whose `qkv` is a target, told to call it; the bias is then added after it."""
    found = []
    for name in names:
        parent, _, leaf = name.rpartition(".")
        attention = encoder.get_submodule(parent)
        has_bias = getattr(attention, "q_bias", None) is not None
        if leaf == "qkv" and has_bias and getattr(attention, "qkv_bias_separate", None) is False:
            found.append(attention)
    _set_separate(found, True)
    return found


def _set_separate(attentions: Sequence[Any], value: bool) -> None:
    for attention in attentions:
        attention.qkv_bias_separate = value


def _fresh(encoder: nn.Module) -> list[nn.Module]:
    """Parts that no pretrained weights know: the pyramids of plain ViTs."""
    return [module for name, module in encoder.named_modules() if name.rpartition(".")[2] == "pyramid"]


def _dead(encoder: nn.Module) -> list[str]:
    """Names of layers with adapters that were not called while the encoder ran once."""
    layers, called = adapters_of(encoder), set()
    hooks = [layer.register_forward_hook(lambda *_, n=name: called.add(n)) for name, layer in layers.items()]
    try:
        with _evaluating(encoder), torch.no_grad():
            _run_once(encoder)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in layers if name not in called]


def _refuse_dead(dead: Sequence[str]) -> None:
    raise ConfigError(
        f"LoRA on {', '.join(dead[:3])}{', ...' if len(dead) > 3 else ''} would have no effect: the encoder reads "
        f"the weights of {len(dead)} target layers without calling the layers. Choose other targets, e.g. "
        "['attn.proj', 'mlp.fc1', 'mlp.fc2'], or another encoder."
    )


def _run_once(encoder: Any) -> None:
    first = next(p for p in encoder.parameters() if p.ndim == 4)  # the first convolution: (outputs, channels, k, k)
    channels = getattr(encoder, "in_channels", first.shape[1])
    for side in PROBE_PX:
        try:
            encoder(torch.zeros(1, channels, side, side, device=first.device, dtype=first.dtype))
            return
        except (ConfigError, AssertionError, RuntimeError):
            if side == PROBE_PX[-1]:
                raise


@contextmanager
def _evaluating(encoder: nn.Module) -> Iterator[None]:
    """In evaluation mode, each module's own mode afterwards."""
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _remove(encoder: Any, merge: bool) -> None:
    """Puts the plain layers back, with their adapters added to the weights or dropped."""
    for name, layer in adapters_of(encoder).items():
        if merge:
            layer.merge(safe_merge=True)
        parent, _, leaf = name.rpartition(".")
        setattr(encoder.get_submodule(parent), leaf, layer.get_base_layer())
    del encoder.peft_config
