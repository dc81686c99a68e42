"""Low-rank adapters (LoRA) in a model's encoder, by peft; the head stays as it is, and trainable.

Hu et al. 2021, "LoRA", https://arxiv.org/abs/2106.09685: beside a frozen weight W (m, n) a product B A of rank r,
scaled by alpha / r, is trained; B starts at zero, so the model starts unchanged. Trained weights: r * (m + n) a layer.
"""

from segwright.lora.config import Config
from segwright.lora.inject import apply, disable_lora, enable_lora
from segwright.lora.parts import adapters_of, encoder_of, is_adapter, print_trainable_parameters, trainable_parameters
from segwright.lora.saved import load_adapters, merged, save_adapters
from segwright.lora.targets import find_targets

__all__ = [
    "Config",
    "adapters_of",
    "apply",
    "disable_lora",
    "enable_lora",
    "encoder_of",
    "find_targets",
    "is_adapter",
    "load_adapters",
    "merged",
    "print_trainable_parameters",
    "save_adapters",
    "trainable_parameters",
]
