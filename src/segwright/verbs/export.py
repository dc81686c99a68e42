"""`segwright export`: trained weights in a form that runs elsewhere, with a certificate of what was compared.

The exported files are read back by the library that they are for, and run beside our model at three sizes; the
differences stand in `certificate.json` beside them.
"""

import json
import logging
import re
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segwright import checkpoint
from segwright.errors import ConfigError, SegwrightError
from segwright.files import draft_folder, refuse_file, write_text
from segwright.model import Segmenter
from segwright.pretrained.folder import CONFIG, PREPROCESSOR, WEIGHTS
from segwright.verbs.loading import restore, weights_file
from segwright.verbs.merge import MERGED, write_merged
from segwright.verbs.onnx_file import DATA, FILE, write_onnx
from segwright.verbs.settings import Settings, gather
from segwright.verbs.trees import channels, tree_for_loss

log = logging.getLogger("segwright")

CERTIFICATE = "certificate.json"
FORMATS = {
    "hf": (CONFIG, PREPROCESSOR, WEIGHTS, CERTIFICATE),
    "merged": (MERGED, CERTIFICATE),
    "onnx": (FILE, DATA, CERTIFICATE),
}
"""What each writes."""
TOLERANCE = 1e-4
"""Largest difference of a logit that counts as equal, in fp32."""
SIZES = ((224, 160), (125, 83))
"""Height and width in pixels of what is compared beside the training size; one of them odd."""
BLOCK_NORMS = re.compile(r"layernorm_(before|after)$|stages\.\d\.layer_norm$")
"""Layer norms that the published SegFormer computes with eps 1e-6 and transformers with 1e-5."""


UNFINISHED = {"compared": False, "reason": "the export that was to replace this one was cut off; export again"}


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    folder: Path
    certificate: dict[str, Any]


def export(weights: str | Path, output: str | Path, format: str = "hf") -> Exported:
    """Writes trained weights for another library into the folder `output`.

    `hf`: a folder for transformers' `SegformerForSemanticSegmentation.from_pretrained`; of a model of a tree its labels
    are the tree's nodes, and the certificate holds the tree. `merged`: `merged.pth`, a checkpoint of ours whose LoRA
    adapters are added to the weights. `onnx`: `model.onnx`, any model of ours in one file for onnxruntime and its kin.
    An earlier export in that folder is replaced when this one has been compared.

    Raises:
        ConfigError: no such format, a model that it cannot hold, or files of others in their places.
        MissingPackageError: `onnx` without the packages of `segwright[export]`.
        WeightsError: `weights` is no checkpoint of ours.
        SegwrightError: what would be written computes something else; `output` is as it was.
    """
    if format not in FORMATS:
        raise ConfigError(f"there is no export format '{format}'. There are: {', '.join(FORMATS)}.")
    folder = Path(output)
    refuse_file(output, "--output")
    weights = weights_file(weights)
    stop_on_others(folder, format)
    payload = checkpoint.load(weights)
    settings = gather(payload["config"])
    model = restore(payload, settings, weights)
    size = settings.input.pixels() or (512, 512)
    facts = {"format": format} | about(weights, payload, settings)
    with draft_folder(folder, last=CERTIFICATE) as draft:
        if format == "merged":
            compared = write_merged(payload, settings, weights, draft, (size, *SIZES), TOLERANCE)
        elif format == "onnx":
            compared = write_onnx(model, draft, settings.input.pixels(), SIZES, facts, TOLERANCE)
        else:
            compared = compare(model, model.save_pretrained(draft, size), (size, *SIZES))
        certificate = facts | compared
        write_text(draft / CERTIFICATE, json.dumps(certificate, indent=2))
        if format == "hf":
            judge(certificate, folder)
        if (folder / CERTIFICATE).exists():
            write_text(folder / CERTIFICATE, json.dumps({"format": format, **UNFINISHED}))
        gone = [folder / name for name in FORMATS[format] if not (draft / name).exists()]
    for stale in gone:  # of an earlier export
        stale.unlink(missing_ok=True)
    return Exported(folder, certificate)


def stop_on_others(folder: Path, format: str) -> None:
    """Raises `ConfigError` where files would be overwritten that no earlier export of this format wrote."""
    standing = [name for name in FORMATS[format] if (folder / name).exists()]
    if standing and certified_format(folder) != format:
        raise ConfigError(
            f"{folder} holds {', '.join(standing)}, and no {CERTIFICATE} of an earlier '{format}' export beside them, "
            "so another's files would be overwritten. Choose another --output, or move them away."
        )


def certified_format(folder: Path) -> str | None:
    """As what the folder was exported, by its certificate; None without one of ours."""
    try:
        found = json.loads((folder / CERTIFICATE).read_text(encoding="utf-8"))
        return str(found["format"]) if found["format"] in FORMATS and "compared" in found else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def about(weights: str | Path, payload: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """What was exported: file, classes, where the first weights came from and under which licence."""
    classes = list(payload["classes"])
    tree = tree_for_loss(settings, classes)
    return {
        "weights": str(weights),
        "model": settings.name,
        "classes": classes,
        "threshold": settings.predict.threshold if len(classes) == 1 else None,
        **({"channels": list(channels(settings, classes)), "tree": tree.nested()} if tree else {}),
        "first_weights": payload.get("weights"),
        "versions": {name: version(name) for name in ("segwright", "torch")},
    }


def compare(model: Segmenter, folder: Path, sizes: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """Both models' logits at stride 4 on the same random images (normal values, seed 0), in fp32 on the CPU."""
    if find_spec("transformers") is None:
        return {
            "compared": False,
            "reason": "transformers is not installed, so nothing was compared; pip install transformers, export again",
        }
    from transformers import SegformerForSemanticSegmentation

    theirs = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    rows = [{"height": size[0], "width": size[1], **difference(model, theirs, size)} for size in sizes]
    with_published_epsilons(theirs)
    for row, size in zip(rows, sizes, strict=True):
        row["max_abs_difference_with_equal_epsilons"] = difference(model, theirs, size)["max_abs_difference"]
    return {
        "compared": True,
        "peer": f"transformers {version('transformers')}",
        "tolerance": TOLERANCE,
        "sizes": rows,
        "equal": all(row["max_abs_difference"] <= TOLERANCE for row in rows),
        "note": "transformers computes every layer norm with eps 1e-5; the published SegFormer, as this model, has "
        "1e-6 in its blocks and behind its stages. What remains with equal epsilons is rounding.",
    }


@torch.no_grad()
def difference(model: Segmenter, theirs: Any, size: tuple[int, int]) -> dict[str, float]:
    """Largest difference of a logit, and the largest logit, on one image of `size`."""
    channels = model.encoder.in_channels
    image = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    ours = model.head(model.encoder(image))
    other = theirs(image).logits
    return {"max_abs_difference": float((ours - other).abs().max()), "max_abs_logit": float(ours.abs().max())}


def with_published_epsilons(theirs: nn.Module) -> None:
    """Gives transformers' model the epsilons of the published SegFormer."""
    for name, module in theirs.named_modules():
        if isinstance(module, nn.LayerNorm) and BLOCK_NORMS.search(name):
            module.eps = 1e-6


def judge(certificate: dict[str, Any], folder: Path) -> None:
    """Says what the comparison showed. Raises `SegwrightError` where the two compute different functions."""
    if not certificate["compared"]:
        log.warning("%s: %s", folder, certificate["reason"])
        return
    worst = max(row["max_abs_difference"] for row in certificate["sizes"])
    for row in certificate["sizes"]:
        if row["max_abs_difference_with_equal_epsilons"] > TOLERANCE * max(1.0, row["max_abs_logit"]):
            raise SegwrightError(
                f"what {folder} would hold is another function in transformers: at {row['height']} x {row['width']} a "
                f"logit differs by {worst:.1e}, with equal epsilons too. Nothing was exported; install another version "
                f"than {certificate['peer']} and export again, or report this with that version and the encoder."
            )
    level = logging.INFO if certificate["equal"] else logging.WARNING
    log.log(level, "%s: logits differ from transformers' by at most %.1e", folder, worst)
    if "tree" in certificate:
        log.info(
            "the labels are nodes of a tree: the first %d are the classes, the others groups, so the largest of all "
            "means nothing. Take the largest of the first ones, or the best path in the tree in certificate.json",
            len(certificate["classes"]),
        )
    if len(certificate["classes"]) == 1:
        log.info(
            "one class: take a sigmoid of the logits and the threshold %.3f; transformers' own post-processing takes "
            "the largest of several",
            certificate["threshold"],
        )
