"""The optimizer: AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101) or SGD, over named groups.

`head` comes first, then `encoder`. With `layer_decay` (Clark et al. 2020, "ELECTRA", https://arxiv.org/abs/2003.10555,
appendix B; Bao et al. 2022, "BEiT", https://arxiv.org/abs/2106.08254) the encoder's groups are one a block, the last
block first: `encoder`, `encoder.11`, ... down to `encoder.0`, what lies before the first block.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from segwright.errors import ConfigError
from segwright.model import is_encoder
from segwright.training.freeze import may_train

log = logging.getLogger("segwright")

BARE = ".no_decay"
"""Behind the name of a group without weight decay."""


@dataclass(frozen=True, kw_only=True)
class Config:
    name: Literal["adamw", "sgd"] = "adamw"
    """The optimizer."""
    lr: float = 1e-3
    """Learning rate; the head's unless `lr_head` is given."""
    lr_head: float | None = None
    """The head's; none: `lr`."""
    lr_encoder: float | None = None
    """The encoder's; none: a tenth of `lr`, since its weights are usually pretrained."""
    weight_decay: float = 0.01
    """On all parameters."""
    no_decay: bool = False
    """No weight decay on biases, scales and shifts of norms, and tables of positions and tokens."""
    momentum: float | None = None
    """Of SGD; none: 0.9."""
    nesterov: bool = False
    """Of SGD: look ahead along the momentum."""
    layer_decay: float | None = None
    """Each block of the encoder learns by this factor slower than the one behind it, e.g. 0.75; the last at
    `lr_encoder`. None: all alike."""
    scale_lr: int | None = None
    """Images a step for which the learning rates are meant, e.g. 16: with others they are scaled in proportion. None:
    they hold as they are."""

    def __post_init__(self) -> None:
        problems = []
        for name in ("lr", "lr_head", "lr_encoder"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 10:
                problems.append(f"optim.{name} is {value}; a learning rate is positive and small, e.g. 0.001.")
        if not 0 <= self.weight_decay < 1:
            problems.append(f"optim.weight_decay is {self.weight_decay}; give a number from 0 to 1, e.g. 0.01.")
        if self.name != "sgd" and (self.momentum is not None or self.nesterov):
            problems.append(
                f"optim.momentum and optim.nesterov are SGD's, but optim.name is {self.name}, which has moments of its "
                "own. Leave them out, or set optim.name=sgd."
            )
        if self.momentum is not None and not 0 <= self.momentum < 1:
            problems.append(f"optim.momentum is {self.momentum}; give a number from 0 to below 1, e.g. 0.9.")
        if self.nesterov and self.momentum == 0:
            problems.append("optim.nesterov looks ahead along the momentum, but optim.momentum is 0. Give e.g. 0.9.")
        if self.layer_decay is not None and not 0 < self.layer_decay < 1:
            problems.append(
                f"optim.layer_decay is {self.layer_decay}; a factor between 0 and 1 slows the lower blocks. Give e.g. "
                "0.75, or leave it out."
            )
        if self.scale_lr is not None and self.scale_lr < 1:
            problems.append(f"optim.scale_lr is {self.scale_lr}; it is a number of images, 1 or more.")
        if problems:
            raise ConfigError("\n  - ".join(problems))

    def rates(self) -> tuple[float, float]:
        """(head, encoder)."""
        head = self.lr if self.lr_head is None else self.lr_head
        encoder = self.lr * 0.1 if self.lr_encoder is None else self.lr_encoder
        return head, encoder


def build_optimizer(model: nn.Module, config: Config, images_per_step: int | None = None) -> Optimizer:
    """The optimizer over the groups `head` and `encoder`, in this order. What may thaw later is in it; of an encoder
    with LoRA adapters, the adapters alone. `images_per_step` is what `scale_lr` compares with.

    Raises:
        ConfigError: `layer_decay` for an encoder that has no blocks.
    """
    head_rate, encoder_rate = (rate * scale(config, images_per_step) for rate in config.rates())
    own = {name: p for name, p in model.named_parameters() if not is_encoder(name)}
    groups = [{"name": "head", "lr": head_rate, "params": own}, *encoder_groups(model, config, encoder_rate)]
    return make(config, [part for group in groups for part in by_decay(group, config)])


def make(config: Config, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimizer itself."""
    if config.name == "adamw":
        return AdamW(groups, weight_decay=config.weight_decay, fused=True)
    momentum = 0.9 if config.momentum is None else config.momentum
    return SGD(groups, momentum=momentum, nesterov=config.nesterov, weight_decay=config.weight_decay, fused=True)


def scale(config: Config, images_per_step: int | None) -> float:
    """What the learning rates are multiplied by; logged where it is not 1."""
    if config.scale_lr is None or images_per_step is None:
        return 1.0
    factor = images_per_step / config.scale_lr
    log.info(
        "learning rates x %.4g: they are meant for %d images a step, and a step has %d",
        factor,
        config.scale_lr,
        images_per_step,
    )
    return factor


def encoder_groups(model: nn.Module, config: Config, rate: float) -> list[dict[str, Any]]:
    """`encoder`, or with `layer_decay` one group a block, the last block first."""
    trained = {id(parameter) for parameter in may_train(model)}
    every = [name for name, _ in model.named_parameters() if is_encoder(name)]
    own = {name: p for name, p in model.named_parameters() if is_encoder(name) and id(p) in trained}
    if config.layer_decay is None:
        return [{"name": "encoder", "lr": rate, "params": own}]
    depth = depths(every)
    top = max(depth.values())
    if top == 0:
        raise ConfigError(
            "optim.layer_decay is set, but the names of the encoder's weights tell no blocks, so it is not known what "
            "lies above what. Leave it out."
        )
    groups = []
    for level in range(top, -1, -1):
        params = {name: p for name, p in own.items() if depth[name] == level}
        name = "encoder" if level == top else f"encoder.{level}"
        groups += [{"name": name, "lr": rate * config.layer_decay ** (top - level), "params": params}] if params else []
    return groups


BLOCK = re.compile(r"(?:^|\.)((?:stages?|layers?|blocks?)[._]?\d+(?:\.(?:blocks?\.)?\d+)?)\.")
"""A numbered block, perhaps in a numbered stage: `blocks.3`, `stages_1.blocks.0`, `layer2.1`, `layers_0.blocks.1`."""


def depths(names: Sequence[str]) -> dict[str, int]:
    """Name of a weight -> its block, counted from 1 in the order of the names; 0: before the first block. What stands
    between two blocks (a downsampling, a norm) counts to the one before it."""
    keys = {name: found[1] for name in names if (found := BLOCK.search(name))}
    stages = {key for key in keys.values() if any(other.startswith(key + ".") for other in keys.values())}
    seen: dict[str, int] = {}
    out, current = {}, 0
    for name in names:
        if name in keys and keys[name] not in stages:
            current = seen.setdefault(keys[name], len(seen) + 1)
        out[name] = current
    return out


def by_decay(group: dict[str, Any], config: Config) -> list[dict[str, Any]]:
    """The group, its parameters as a list; with `no_decay` those without weight decay in a group of their own."""
    named: dict[str, Tensor] = group["params"]
    bare = {name for name, p in named.items() if config.no_decay and is_bare(name, p)}
    kept = [p for name, p in named.items() if name not in bare]
    parts = [{**group, "params": kept}] if kept or not bare else []
    if bare:
        of_bare = [named[name] for name in named if name in bare]
        parts.append({**group, "name": group["name"] + BARE, "weight_decay": 0.0, "params": of_bare})
    return parts


def is_bare(name: str, parameter: Tensor) -> bool:
    """Vectors (biases, norms' scales and shifts), and tables that are added to features."""
    return parameter.ndim <= 1 or any(word in name for word in ("pos_embed", "cls_token", "reg_token", "position_bias"))


def rates_now(optimizer: Optimizer) -> dict[str, float]:
    """`head`, `encoder` and, with `layer_decay`, `encoder_lowest` -> its learning rate."""
    rates = {group["name"].removesuffix(BARE): float(group["lr"]) for group in optimizer.param_groups}
    out = {name: rate for name, rate in rates.items() if "." not in name}
    below = [rate for name, rate in rates.items() if name.startswith("encoder.")]
    return out | ({"encoder_lowest": min(below)} if below else {})
