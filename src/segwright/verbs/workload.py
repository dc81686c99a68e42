"""The work that `segwright bench` times: one forward pass, or one training step, alike for every contender."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.flop_counter import FlopCounterMode

from segwright.encoders.fused import FUSED_FLOPS
from segwright.engine.precision import keep_memory, precision
from segwright.engine.rounding import HALVES, round_weights
from segwright.errors import ConfigError
from segwright.inference.argmax import argmax_resized
from segwright.losses import LOSSES
from segwright.model import Segmenter
from segwright.verbs.peers import OURS, Design

LEAST_PX = 32
MODES = ("infer", "masks", "train")


@dataclass(frozen=True)
class Load:
    """What every contender does, and under which settings."""

    design: Design
    size: int = 512
    """Side of the square image in pixels."""
    batch: int = 1
    mode: str = "infer"
    """infer (to logits at the image's size), masks (to class ids there) or train."""
    amp: bool = False
    """Mixed precision where the device gains by it."""
    device: str | None = None
    """`cpu`; none: the GPU where there is one."""
    keep_memory: bool = True
    """On a CPU: glibc keeps freed memory, for every contender, as a run of ours does."""
    channels_last: bool = False
    """The peers' models are channels-last too, as ours always is."""
    own_defaults: bool = False
    """Each library as its users get it: `amp` and `keep_memory` hold for ours, whose loss takes the head's logits."""
    compile: bool = False
    """Every contender a second time, by `torch.compile`."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"--mode is '{self.mode}'; there are: {', '.join(MODES)}.")
        if self.size < LEAST_PX or self.batch < 1:
            raise ConfigError(
                f"--size is {self.size} and --batch {self.batch}; give at least {LEAST_PX} pixels and 1 image."
            )
        if self.mode == "masks" and self.design.classes < 2:
            raise ConfigError("--mode masks takes the best of several classes, and --classes is 1. Give 2 or more.")
        if self.compile and self.own_defaults:
            raise ConfigError(
                "--compile and --own-defaults exclude each other: no library compiles by default. Leave out one."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Load":
        """The opposite of `dataclasses.asdict`."""
        return cls(**{**values, "design": Design(**values["design"])})


def as_run_by(name: str, load: Load) -> Load:
    """The settings of one contender; under `own_defaults` a peer's are fp32, its own layout, the allocator as it is."""
    if name == OURS or not load.own_defaults:
        return load
    return replace(load, amp=False, keep_memory=False, channels_last=False, own_defaults=False)


def device_of(load: Load) -> torch.device:
    """Where the work is done."""
    return torch.device("cpu" if load.device == "cpu" or not torch.cuda.is_available() else "cuda")


def precision_of(load: Load) -> str:
    """`fp32`, `bf16` or `fp16`."""
    word = precision(load.amp, device_of(load).type == "cpu")
    return "fp32" if word == "no" else word


def settle(load: Load) -> None:
    """The process's own settings; before anything large is made."""
    if load.keep_memory and device_of(load).type == "cpu":
        keep_memory()


def prepare(model: nn.Module, load: Load) -> Callable[[], None]:
    """A function that does the work once. Images are normal values; labels are random classes."""
    device = device_of(load)
    generator = torch.Generator().manual_seed(0)
    shape = (load.batch, load.size, load.size)
    image = torch.randn(load.batch, 3, *shape[1:], generator=generator).to(device)
    labels = torch.randint(0, max(load.design.classes, 2), shape, generator=generator).to(device)
    model = model.to(device).train(load.mode == "train")
    if load.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if load.mode != "train":
        if load.own_defaults:  # as `load_model` does
            round_weights(model, precision_of(load))
        return lambda: _infer(model, image, load)
    optimizer = AdamW(model.parameters(), lr=6e-5, fused=load.own_defaults or None)
    return lambda: _train(model, image, labels, optimizer, load)


def autocast(load: Load) -> AbstractContextManager[object]:
    """The precision of the forward pass."""
    word = precision_of(load)
    return torch.autocast(device_of(load).type, HALVES[word]) if word in HALVES else nullcontext()


def _infer(model: nn.Module, image: Tensor, load: Load) -> None:
    with torch.inference_mode(), autocast(load):
        if load.mode == "infer":
            model(image)
        elif isinstance(getattr(model, "_orig_mod", model), Segmenter):  # compiled or not
            for logits in model(image, resize=False).float():
                argmax_resized(logits, (load.size, load.size))
        else:
            model(image).argmax(1)


def _train(model: nn.Module, image: Tensor, labels: Tensor, optimizer: AdamW, load: Load) -> None:
    """Forward, cross-entropy at the image's size, backward, AdamW."""
    optimizer.zero_grad()
    with autocast(load):
        if load.own_defaults:
            LOSSES.build("ce", LOSSES.part("ce").Config(), load.design.classes)(
                model(image, resize=False), labels
            ).backward()
            optimizer.step()
            return
        logits = model(image).float()
        if logits.shape[1] == 1:
            loss = F.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
        else:
            loss = F.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()


FLASH_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""Fused attention on a CPU, which `torch.utils.flop_counter` of torch 2.14 does not count."""


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Of two products, scores and what is mixed by them: shapes (B, heads, N, d), (B, heads, M, d) twice."""
    return 2 * math.prod(query[:3]) * key[2] * (query[3] + value[3])


@torch.no_grad()
def count_macs(model: nn.Module, load: Load) -> int:
    """Multiplications of a forward pass of one image: matrix products, convolutions, attention; no resizes, no norms.

    Counted as the model does it on the load's device and in its precision.
    """
    device, trains = device_of(load), model.training
    with (
        autocast(load),
        FlopCounterMode(display=False, custom_mapping={**FUSED_FLOPS, FLASH_ON_CPU: _attention_flops}) as counter,
    ):
        model.to(device).eval()(torch.zeros(1, 3, load.size, load.size, device=device))
    model.train(trains)
    return counter.get_total_flops() // 2
