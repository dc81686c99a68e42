"""Segwright: semantic segmentation of your own images, from the check of the data to masks.

The names below load when they are touched, so that `import segwright` is light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segwright.factories import create_backbone, create_head, get_backbone_channels
    from segwright.losses.dice_focal import DiceFocalLoss
    from segwright.model import SegFormerLite, Segmenter
    from segwright.verbs.bench import bench
    from segwright.verbs.check import check
    from segwright.verbs.compare import compare
    from segwright.verbs.convert import convert
    from segwright.verbs.demo import demo
    from segwright.verbs.evaluate import evaluate
    from segwright.verbs.export import export
    from segwright.verbs.infer import infer
    from segwright.verbs.loading import load
    from segwright.verbs.submission import submission
    from segwright.verbs.train import Run, train

__version__ = "0.1.0"

_HOMES = {
    "DiceFocalLoss": "segwright.losses.dice_focal",
    "SegFormerLite": "segwright.model",
    "Segmenter": "segwright.model",
    "Run": "segwright.verbs.train",
    "bench": "segwright.verbs.bench",
    "check": "segwright.verbs.check",
    "compare": "segwright.verbs.compare",
    "convert": "segwright.verbs.convert",
    "create_backbone": "segwright.factories",
    "create_head": "segwright.factories",
    "demo": "segwright.verbs.demo",
    "evaluate": "segwright.verbs.evaluate",
    "export": "segwright.verbs.export",
    "get_backbone_channels": "segwright.factories",
    "infer": "segwright.verbs.infer",
    "load": "segwright.verbs.loading",
    "submission": "segwright.verbs.submission",
    "train": "segwright.verbs.train",
}

__all__ = [
    "DiceFocalLoss",
    "Run",
    "SegFormerLite",
    "Segmenter",
    "bench",
    "check",
    "compare",
    "convert",
    "create_backbone",
    "create_head",
    "demo",
    "evaluate",
    "export",
    "get_backbone_channels",
    "infer",
    "load",
    "submission",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segwright' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
