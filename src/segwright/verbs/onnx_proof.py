"""Whether a file for ONNX is the model it was made of: onnxruntime runs it beside that model, in fp32 on the CPU.

Shapes: B batch, C channels of the image, K channels of the logits, H x W the image.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from math import log as ln
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segwright.model import Segmenter
from segwright.transforms import Size, normalise


class Different(Exception):
    """The file does not run at a size, or computes something else there."""


@dataclass(frozen=True)
class Reader:
    """The model, and how its logits are read."""

    model: Segmenter
    num_classes: int
    threshold: float | None
    tolerance: float

    def ids(self, logits: np.ndarray) -> np.ndarray:
        """(B, K, H, W) -> class ids (B, H, W); of a tree's nodes, whose leaves stand first, the best leaf."""
        if self.threshold is not None:
            return logits[:, 0] >= ln(self.threshold / (1 - self.threshold))
        return logits[:, : self.num_classes].argmax(1)

    def logits(self, image: Tensor) -> np.ndarray:
        """uint8 (B, C, H, W) -> (B, K, H, W), as `segwright infer` computes them."""
        encoder = self.model.encoder
        return self.model(normalise(image, encoder.mean, encoder.std)).numpy()


@torch.no_grad()
def compare(reader: Reader, path: Path, sizes: Iterable[Size], batches: Iterable[int]) -> dict[str, Any]:
    """Both on the same noise (each value from 0 to 255 equally likely, seed 0). Raises `Different`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails, we say
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Different(f"onnxruntime does not read the file: {error}") from error
    batches = tuple(batches)
    rows = [_row(reader, session, size, batch) for size in sizes for batch in batches]
    return {
        "compared": True,
        "peer": f"onnxruntime {version('onnxruntime')}",
        "tolerance": reader.tolerance,
        "sizes": rows,
        "equal": True,
    }


def _row(reader: Reader, session: Any, size: Size, batch: int) -> dict[str, Any]:
    shape = (batch, reader.model.encoder.in_channels, *size)
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    place = f"at {size[0]} x {size[1]}, batch {batch}"
    try:
        ours = reader.logits(image)
        (theirs,) = session.run(["logits"], {"image": image.float().numpy()})
    except Exception as error:  # onnxruntime's errors share no class
        raise Different(f"{place} it does not run: {str(error).strip().splitlines()[0][:300]}") from error
    if ours.shape != theirs.shape:
        raise Different(f"{place} it gives logits of shape {theirs.shape} instead of {ours.shape}")
    difference, largest = float(np.abs(ours - theirs).max()), float(np.abs(ours).max())
    if not difference <= reader.tolerance * max(1.0, largest):  # NaN is not either
        raise Different(f"{place} a logit differs by {difference:.1e}")
    return {
        "height": size[0],
        "width": size[1],
        "batch": batch,
        "max_abs_difference": difference,
        "max_abs_logit": largest,
        "equal_class_ids": float((reader.ids(ours) == reader.ids(theirs)).mean()),
    }


def summary(certificate: dict[str, Any]) -> str:
    """One line on what was compared, and what the file takes."""
    rows = certificate["sizes"]
    worst, ids = max(row["max_abs_difference"] for row in rows), min(row["equal_class_ids"] for row in rows)
    places = ", ".join(dict.fromkeys(f"{row['height']} x {row['width']}" for row in rows))
    free = certificate["free_axes"]
    taken = f"{', '.join(free)} are free" if len(free) > 1 else f"{free[0]} is free" if free else "no axis is free"
    line = f"logits differ from ours by at most {worst:.1e} at {places}, {100 * ids:.2f} % of the class ids are equal"
    return f"{line}; {taken}" + (f"; {certificate['fixed_because']}" if "fixed_because" in certificate else "")
