"""Dataset readers.

A reader is a module with `Config`, `build(config) -> Source`, which raises `DataError` on anything that makes the data
unusable, and `scan(config) -> Source`, which notes it as a finding instead.
"""

from segwright.datasets import artefact, coco, folder, nnunet, seghiero, spark
from segwright.registry import Catalogue

READERS = Catalogue(
    "datasets",
    {
        "coco": coco,
        "nnunet": nnunet,
        "spark": spark,
        "seghiero": seghiero,
        "artefact": artefact,
        "folder": folder,
    },
)

__all__ = ["READERS"]
