"""Looking at a model: its pretrained part, the adapters in it, and what of it trains."""

from typing import Any

from torch import nn

from segwright.errors import ConfigError

PARTS = ("encoder", "backbone")
"""What a model may call its pretrained part."""
MARK = "lora_"
"""In the name of every adapter's tensor."""


def encoder_of(model: nn.Module) -> Any:
    """The model's pretrained part. `ConfigError`: it has none."""
    for part in PARTS:
        if isinstance(getattr(model, part, None), nn.Module):
            return getattr(model, part)
    raise ConfigError(f"a {type(model).__name__} has no part 'encoder' or 'backbone'. Give a whole segmentation model.")


def adapters_of(encoder: nn.Module) -> dict[str, Any]:
    """Name -> layer with an adapter. Without importing peft: these layers alone have the attribute `lora_A`."""
    return {name: module for name, module in encoder.named_modules() if hasattr(module, "lora_A")}


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name belongs to an adapter."""
    return MARK in name


def trainable_parameters(model: nn.Module, detailed: bool = False) -> str:
    """How many parameters train, of how many; `detailed`: of each part of the model too, a line each."""
    trainable, total = _count(model)
    lines = [f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {_percent(trainable, total)}"]
    if detailed:
        lines.append("-" * 60)
        for name, part in model.named_children():
            trainable, total = _count(part)
            lines.append(f"  {name + ':':<13} {trainable:>12,} / {total:>12,} ({_percent(trainable, total)})")
    return "\n".join(lines)


def print_trainable_parameters(model: nn.Module, detailed: bool = False) -> None:
    """Prints `trainable_parameters`."""
    print(trainable_parameters(model, detailed))


def _count(module: nn.Module) -> tuple[int, int]:
    """Trainable and all parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 0:.2f}%"
