"""The Mix Transformers b0 to b5, registered in timm as `mit_b0` ... `mit_b5` when this is imported.

Xie et al. 2021, "SegFormer", table 6, https://arxiv.org/abs/2105.15203
The published weights (ImageNet-1k, https://huggingface.co/nvidia) are NVIDIA's, for research and evaluation only.
"""

from collections.abc import Callable
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from segwright.encoders.mit import MixTransformer
from segwright.encoders.weights import to_mit

__all__ = ["VARIANTS"]

VARIANTS: dict[str, dict[str, Any]] = {
    "mit_b0": {"widths": (32, 64, 160, 256), "depths": (2, 2, 2, 2)},
    "mit_b1": {"widths": (64, 128, 320, 512), "depths": (2, 2, 2, 2)},
    "mit_b2": {"widths": (64, 128, 320, 512), "depths": (3, 4, 6, 3)},
    "mit_b3": {"widths": (64, 128, 320, 512), "depths": (3, 4, 18, 3)},
    "mit_b4": {"widths": (64, 128, 320, 512), "depths": (3, 8, 27, 3)},
    "mit_b5": {"widths": (64, 128, 320, 512), "depths": (3, 6, 40, 3)},
}
"""Channels and number of blocks of the four stages."""

default_cfgs = generate_default_cfgs(
    {
        # without `classifier`: with it timm stops being strict whenever the number of classes differs
        f"{variant}.in1k": {
            "hf_hub_id": f"nvidia/{variant.replace('_', '-')}",
            "license": "NVIDIA Source Code License for SegFormer (non-commercial)",
            "origin_url": "https://github.com/NVlabs/SegFormer",
            "paper_ids": "arXiv:2105.15203",
            "first_conv": "patch_embed1.proj",
        }
        for variant in VARIANTS
    }
)


def _entry(variant: str) -> Callable[..., nn.Module]:
    """The function that timm calls to make this variant."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if kwargs.get("features_only"):
            kwargs["num_classes"] = 0
        return build_model_with_cfg(
            MixTransformer,
            variant,
            pretrained,
            pretrained_filter_fn=to_mit,
            feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
            **VARIANTS[variant],
            **kwargs,
        )

    create.__name__ = variant
    return create


for _variant in VARIANTS:
    register_model(_entry(_variant))
