"""Adapters in a file of their own, and added to the weights of a checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from segwright.errors import ConfigError, WeightsError
from segwright.files import write_bytes
from segwright.lora.inject import enable_lora
from segwright.lora.parts import MARK, adapters_of, encoder_of

BASE = ".base_layer."
"""In the names of what an adapter stands beside."""


def save_adapters(model: nn.Module, path: str | Path) -> None:
    """Writes the adapters alone as a `.safetensors` file, with what `load_adapters` needs to make them anew.

    Neither the encoder's frozen weights nor the head are in it.

    Raises:
        ConfigError: the model has none.
    """
    encoder = encoder_of(model)
    if not (adapters := adapters_of(encoder)):
        raise ConfigError("the model has no LoRA adapters to save. Call enable_lora(model) first.")
    config = encoder.peft_config["default"]
    settings = {"r": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout, "targets": list(adapters)}
    tensors = {k: v.detach().cpu().contiguous() for k, v in encoder.state_dict().items() if MARK in k}
    write_bytes(path, save(tensors, metadata={"lora": json.dumps(settings)}))


def load_adapters(model: nn.Module, path: str | Path) -> None:
    """Puts saved adapters into `model`, which has none or some of the same layers and rank.

    Raises:
        ConfigError: as `enable_lora`.
        WeightsError: no such file, no adapters in it, or they are of another encoder or rank.
    """
    encoder = encoder_of(model)
    tensors, settings = _read(Path(path))
    if not adapters_of(encoder):
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


def merged(tensors: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The state dict of a model with adapters -> that of the plain model that computes the same.

    W + alpha / r * B A beside each layer; without adapters, the same tensors. Needs no peft.
    """
    out = {}
    for key, tensor in tensors.items():
        if MARK in key:
            continue
        layer, _, leaf = key.rpartition(BASE)
        if layer and leaf == "weight":
            tensor = tensor + _product(tensors, layer, alpha)
        out[key.replace(BASE, ".")] = tensor
    return out


def _product(tensors: Mapping[str, Tensor], layer: str, alpha: float) -> Tensor:
    """alpha / r * B A in the shape of the layer's weight: (m, n), or (m, n, k, k) of a convolution."""
    down, up = (tensors[f"{layer}.lora_{side}.default.weight"] for side in "AB")
    product = torch.tensordot(up.flatten(1), down, dims=1)  # a convolution's B is (m, r, 1, 1)
    return product * (alpha / len(down))
