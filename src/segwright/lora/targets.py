"""Which layers an adapter goes beside, by the ends of their names."""

import logging
from collections.abc import Mapping, Sequence

from torch import nn

from segwright.errors import ConfigError, nearest

log = logging.getLogger("segwright")

LAYERS = (nn.Linear, nn.Conv2d)


def find_targets(encoder: nn.Module, targets: Sequence[str]) -> list[str]:
    """Full names of the layers that the targets mean, in the encoder's order.

    A target that means linear layers as well as convolutions (`proj`: attention's and the patch embedding's) takes the
    linear ones, with a warning; as do those that no adapter fits, beside some that it does.

    Raises:
        ConfigError: a target means nothing (with the names that there are), or what no adapter fits.
    """
    modules = {name: module for name, module in encoder.named_modules() if name}
    chosen: set[str] = set()
    for target in targets:
        chosen |= set(_meant(target, modules))
    if not chosen:
        raise ConfigError(f"lora.target_modules is empty.{_offer('', modules)}")
    return [name for name in modules if name in chosen]


def _meant(target: str, modules: Mapping[str, nn.Module]) -> list[str]:
    """The layers that one target means."""
    found = [name for name in modules if name == target or name.endswith(f".{target}")]
    if not found:
        raise ConfigError(f"lora.target_modules: no layer's name ends with '{target}'.{_offer(target, modules)}")
    layers = [name for name in found if isinstance(modules[name], LAYERS)]
    fitting = [name for name in layers if fits(modules[name])]
    if not fitting:
        first = (layers or found)[0]
        raise ConfigError(
            f"lora.target_modules: '{target}' means {first}, a {_kind(modules[first])}; an adapter fits a linear "
            f"layer, or a plain convolution that is not in groups.{_offer(target, modules)}"
        )
    meant = [name for name in fitting if isinstance(modules[name], nn.Linear)] or fitting
    if left := [name for name in layers if name not in meant]:
        log.warning("LoRA: '%s' also means the convolution %s, which is left out", target, ", ".join(left[:3]))
    return meant


def fits(module: nn.Module) -> bool:
    """Whether an adapter can stand beside this layer and be merged into it.

    peft makes a convolution's adapter of the same class, which fits no class of its own kind, and merges into none that
    is in groups.
    """
    return isinstance(module, nn.Linear) or (type(module) is nn.Conv2d and module.groups == 1)


def _kind(module: nn.Module) -> str:
    groups = getattr(module, "groups", 1)
    return type(module).__name__ + (f" in {groups} groups" if groups > 1 else "")


def _offer(target: str, modules: Mapping[str, nn.Module]) -> str:
    """The nearest, and all, short names of layers that an adapter fits."""
    layers = (name.split(".") for name, module in modules.items() if fits(module))
    short = {".".join(part for part in parts[-2:] if not part.isdigit()) for parts in layers} - {""}
    leaves = {name.rpartition(".")[2] for name in short}
    offered = nearest(target, short | leaves)
    return offered if offered.startswith(" There are") else f"{offered} There are: {', '.join(sorted(short))}."
