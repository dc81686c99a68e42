"""Low-rank adapters (LoRA) in a model's encoder, by peft; the head stays as it is, and trainable.

Hu et al. 2021, "LoRA", https://arxiv.org/abs/2106.09685: beside a frozen weight W (m, n) a product B A of rank r,
scaled by alpha / r, is trained; B starts at zero, so the model starts unchanged. Trained weights: r * (m + n) a layer.

An adapter can be dead without a word: some attentions read a layer's weight and never call the layer. So each adapter
is looked at while the encoder runs once on a small image.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from segwright.errors import ConfigError, MissingPackageError, WeightsError, nearest

log = logging.getLogger("segwright")

PROBE_PX = (64, 224, 384, 512)
"""Sides of the image that shows which adapters are used: the first that the encoder takes. Windows fix some sizes."""
LAYERS = (nn.Linear, nn.Conv2d)
"""What an adapter can stand beside."""
PARTS = ("encoder", "backbone")
"""What a model may call its pretrained part."""
MARK = "lora_"
"""In the name of every adapter's tensor."""


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
    encoder = _encoder_of(model)
    if _adapters(encoder):
        raise ConfigError(
            "the model has LoRA adapters already; a second set would stack. Call disable_lora(model) first."
        )
    if r < 1 or not 0 <= dropout < 1:
        raise ConfigError(f"lora: r is {r} and dropout {dropout}; r is 1 or more, dropout from 0 to below 1.")
    names = find_targets(encoder, targets)
    _warn_of_random(model, encoder)
    mended = _separate_biases(encoder, names)
    config = peft.LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, bias="none")
    peft.inject_adapter_in_model(config, encoder)
    for layer in _adapters(encoder).values():
        layer.train(layer.get_base_layer().training)  # peft leaves them in training mode, with dropout
    if dead := _dead(encoder):
        _remove(encoder, merge=False)
        _set_separate(mended, False)
        raise ConfigError(
            f"LoRA on {', '.join(dead[:3])}{', ...' if len(dead) > 3 else ''} would have no effect: the encoder reads "
            f"the weights of {len(dead)} target layers without calling the layers. Choose other targets, e.g. "
            "['attn.proj', 'mlp.fc1', 'mlp.fc2'], or another encoder."
        )
    if mended:
        log.info(
            "LoRA: the biases of %d attentions are now added apart, else adapters would have no effect", len(mended)
        )
    for part in _fresh(encoder):
        part.requires_grad_(True)


def disable_lora(model: nn.Module) -> None:
    """Adds the adapters to the weights and removes them; in evaluation the function is the same up to rounding.

    The encoder stays frozen; `model.requires_grad_(True)` would train it on.
    """
    encoder = _encoder_of(model)
    if not _adapters(encoder):
        log.info("LoRA is not enabled on this model; nothing to merge")
        return
    _remove(encoder, merge=True)
    log.info("LoRA: adapters merged into the encoder's weights")


def save_adapters(model: nn.Module, path: str | Path) -> None:
    """Writes the adapters alone as a `.safetensors` file, with what `load_adapters` needs to make them anew.

    Neither the encoder's frozen weights nor the head are in it.

    Raises:
        ConfigError: the model has none.
    """
    encoder = _encoder_of(model)
    if not (adapters := _adapters(encoder)):
        raise ConfigError("the model has no LoRA adapters to save. Call enable_lora(model) first.")
    config = encoder.peft_config["default"]
    settings = {"r": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout, "targets": list(adapters)}
    tensors = {k: v.detach().cpu().contiguous() for k, v in encoder.state_dict().items() if MARK in k}
    save_file(tensors, path, metadata={"lora": json.dumps(settings)})


def load_adapters(model: nn.Module, path: str | Path) -> None:
    """Puts saved adapters into `model`, which has none or some of the same layers and rank.

    Raises:
        ConfigError: as `enable_lora`.
        WeightsError: no such file, no adapters in it, or they are of another encoder or rank.
    """
    encoder = _encoder_of(model)
    tensors, settings = _read(Path(path))
    if not _adapters(encoder):
        known = {name for name, _ in encoder.named_modules()}
        if unknown := [name for name in settings["targets"] if name not in known]:
            raise WeightsError(
                f"the adapters in '{path}' are for layers that this encoder has not: {', '.join(unknown[:3])}. "
                "Load them into the encoder that they were trained in."
            )
        enable_lora(model, settings["r"], settings["alpha"], settings["dropout"], settings["targets"])
    own = {key: tensor for key, tensor in encoder.state_dict().items() if MARK in key}
    wrong = [key for key in own.keys() | tensors.keys() if _shape(own, key) != _shape(tensors, key)]
    if wrong:
        key = min(wrong)
        raise WeightsError(
            f"the adapters in '{path}' do not fit: {len(wrong)} tensors differ, first '{key}': "
            f"{_shape(tensors, key)} in the file, {_shape(own, key)} in the model. Use the encoder, rank and targets "
            "that they were trained with."
        )
    encoder.load_state_dict(tensors, strict=False)


def print_trainable_parameters(model: nn.Module, detailed: bool = False) -> None:
    """Prints how many parameters train, of how many; `detailed`: of each part of the model too."""
    trainable, total = _count(model)
    print(f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {_percent(trainable, total)}")
    if detailed:
        print("-" * 60)
        for name, part in model.named_children():
            trainable, total = _count(part)
            print(f"  {name + ':':<13} {trainable:>12,} / {total:>12,} ({_percent(trainable, total)})")


def find_targets(encoder: nn.Module, targets: Sequence[str]) -> list[str]:
    """Full names of the layers that the targets mean, in the encoder's order.

    A target that means linear layers as well as convolutions (`proj`: attention's and the patch embedding's) takes the
    linear ones, with a warning.

    Raises:
        ConfigError: a target means nothing (with the names that there are), or what no adapter fits.
    """
    modules = {name: module for name, module in encoder.named_modules() if name}
    chosen: set[str] = set()
    for target in targets:
        found = [name for name in modules if name == target or name.endswith(f".{target}")]
        linear = [name for name in found if isinstance(modules[name], nn.Linear)]
        others = [name for name in found if name not in linear]
        if not found:
            raise ConfigError(f"lora.target_modules: no layer's name ends with '{target}'.{_offer(target, modules)}")
        if unfit := [name for name in found if not isinstance(modules[name], LAYERS)]:
            kind = type(modules[unfit[0]]).__name__
            raise ConfigError(
                f"lora.target_modules: '{target}' means {unfit[0]}, a {kind}; an adapter fits a linear layer or a "
                f"convolution.{_offer(target, modules)}"
            )
        if linear and others:
            log.warning("LoRA: '%s' also means the convolution %s, which is left out", target, ", ".join(others[:3]))
        chosen |= set(linear or others)
    if not chosen:
        raise ConfigError(f"lora.target_modules is empty.{_offer('', modules)}")
    return [name for name in modules if name in chosen]


def _offer(target: str, modules: Mapping[str, nn.Module]) -> str:
    """The nearest, and all, short names of layers that an adapter fits."""
    layers = (name.split(".") for name, module in modules.items() if isinstance(module, LAYERS))
    short = {".".join(part for part in parts[-2:] if not part.isdigit()) for parts in layers} - {""}
    leaves = {name.rpartition(".")[2] for name in short}
    offered = nearest(target, short | leaves)
    return offered if offered.startswith(" There are") else f"{offered} There are: {', '.join(sorted(short))}."


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingPackageError("peft", "LoRA", "lora") from error
    return peft


def _encoder_of(model: nn.Module) -> Any:
    for part in PARTS:
        if isinstance(getattr(model, part, None), nn.Module):
            return getattr(model, part)
    raise ConfigError(f"a {type(model).__name__} has no part 'encoder' or 'backbone'. Give a whole segmentation model.")


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


def _adapters(encoder: nn.Module) -> dict[str, Any]:
    """Name -> layer with an adapter. Without importing peft: these layers alone have the attribute `lora_A`."""
    return {name: module for name, module in encoder.named_modules() if hasattr(module, "lora_A")}


def _fresh(encoder: nn.Module) -> list[nn.Module]:
    """Parts that no pretrained weights know: the pyramids of plain ViTs."""
    return [module for name, module in encoder.named_modules() if name.rpartition(".")[2] == "pyramid"]


def _dead(encoder: nn.Module) -> list[str]:
    """Names of layers with adapters that were not called while the encoder ran once."""
    layers, called = _adapters(encoder), set()
    hooks = [layer.register_forward_hook(lambda *_, n=name: called.add(n)) for name, layer in layers.items()]
    try:
        with _evaluating(encoder), torch.no_grad():
            _run_once(encoder)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in layers if name not in called]


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
    for name, layer in _adapters(encoder).items():
        if merge:
            layer.merge(safe_merge=True)
        parent, _, leaf = name.rpartition(".")
        setattr(encoder.get_submodule(parent), leaf, layer.get_base_layer())
    del encoder.peft_config


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The file's tensors and settings."""
    if not path.is_file():
        raise WeightsError(f"There is no adapter file '{path}'. Check the path.")
    try:
        with safe_open(path, "pt") as file:
            settings = (file.metadata() or {}).get("lora")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(f"'{path}' cannot be read as adapters: {error}. Write it with save_adapters.") from error
    if settings is None:
        raise WeightsError(f"'{path}' holds no LoRA adapters of ours, but other tensors. Write it with save_adapters.")
    return tensors, json.loads(settings)


def _shape(tensors: Mapping[str, Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(tensors[key].shape) if key in tensors else None


def _count(module: nn.Module) -> tuple[int, int]:
    """Trainable and all parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 0:.2f}%"
