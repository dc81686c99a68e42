"""Checks that several losses' configs and builders share.

Raises `ConfigError` in each function: what a value is, why it cannot work, what to do.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segwright.errors import ConfigError


def check_factors(factors: Mapping[str, float]) -> None:
    """The factors of a sum's parts: none may be negative, one must be positive."""
    values = list(factors.values())
    if not (min(values) >= 0 and 0 < sum(values) < math.inf):
        listed = " and ".join(f"loss.{name} is {value}" for name, value in factors.items())
        raise ConfigError(f"{listed}; none may be negative and one must be positive, or nothing is learnt.")


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """A number from `low` to `high`, and finite."""
    if not (low <= value <= high and math.isfinite(value)):
        wanted = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
        raise ConfigError(f"loss.{name} is {value}, with which the loss has no meaning. Give {wanted}.")


def check_alpha(alpha: float | None) -> None:
    """The focal loss's factor, or none."""
    if alpha is not None and not 0 < alpha <= 1:
        raise ConfigError(f"loss.alpha is {alpha}; it is a share. Give a number above 0 up to 1, or none.")


def check_class_weights(value: Any) -> None:
    """Nothing, a list of numbers, or a text (the name of a method or of a file)."""
    if value is None or isinstance(value, str):
        return
    numbers = isinstance(value, list | tuple) and all(isinstance(x, int | float) for x in value)
    if not numbers or not all(0 <= x < math.inf for x in value) or not any(value):
        raise ConfigError(
            f"loss.class_weights is {value!r}; a weight is a number from 0 up and one must be positive. Give a list "
            "with one a class, the path of a JSON file, or a method: inverse_sqrt, inverse, effective_number."
        )


def weight_tensor(weights: Sequence[float] | None) -> Tensor | None:
    """Weights as a loss keeps them, (K,)."""
    return None if weights is None else torch.tensor([float(w) for w in weights])


def check_weight_count(weights: Tensor | None, num_classes: int) -> None:
    """As many weights as the logits have classes."""
    if weights is not None and (num_classes == 1 or len(weights) != num_classes):
        raise ConfigError(
            f"there are {len(weights)} class weights for {num_classes} class(es)"
            + ("; one class has nothing to be weighed against. Leave class_weights out." if num_classes == 1 else "; ")
            + ("" if num_classes == 1 else "each class needs one. Give them in the order of the data's classes.")
        )


def needs_several(name: str, num_classes: int) -> None:
    """For losses that compare classes with each other."""
    if num_classes < 2:
        raise ConfigError(
            f"loss.name is {name}, which is for several classes, but the data have {num_classes}, so there is nothing "
            "to tell it from. Use bce_dice, or leave loss.name out."
        )


def needs_one(name: str, num_classes: int) -> None:
    """For losses of one class against the rest."""
    if num_classes != 1:
        raise ConfigError(
            f"loss.name is {name}, which is for one class, but the data have {num_classes}, of which a pixel has one "
            "and not several. Use ce_dice, or leave loss.name out."
        )
