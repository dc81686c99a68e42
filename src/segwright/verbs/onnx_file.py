"""`model.onnx`: a trained model as one file that runs without us and without PyTorch, and its `certificate.json`.

The file takes what an image file holds, RGB from 0 to 255, and normalises inside; it gives logits at the image's size.
It is recorded for any batch, height and width. Where a model cannot be recorded so, or the file then computes something
else at another size than the recorded one, it is recorded anew for the training size alone, and both say so.

Shapes: B batch, C channels of the image, K channels of the logits, H x W the image.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segwright.errors import MissingPackageError, SegwrightError
from segwright.model import Segmenter
from segwright.transforms import Size
from segwright.verbs.onnx_proof import Different, Reader, compare, summary

log = logging.getLogger("segwright")

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FILE, DATA = "model.onnx", "model.onnx.data"
MOST_BYTES = 2**31 - 2**24
"""Of the weights in one file; protobuf ends at 2 GiB. Larger ones lie in `DATA`, which then belongs to the file."""
OPSET = 20
"""The newest that PyTorch 2.10 to 2.14 record by themselves; onnxruntime reads it from 1.17 on."""
OWN_SIZE = (512, 512)
"""Stands for the training size of a model that had none."""
RECORDED_AT = (224, 448)
"""Height and width of the image that a file for any size is recorded with: unlike, and whole patches of 14, 16, 32."""
WINDOWS = "height, width not free: the encoder has windows, and the exporter cannot cut a map of any size into them"
"""Said without trying: MaxViT is refused for its padding, Swin is recorded for more than six minutes without an end."""
AXES = {0: "batch", 2: "height", 3: "width"}
NOISY = ("onnxscript", "onnx_ir", "torch.onnx", "torch.export")
"""Loggers that tell of steps of their own that they leave out."""


class Portable(nn.Module):
    """image (B, C, H, W) float, RGB from 0 to 255 -> logits (B, K, H, W)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("scale", (1 / (255 * torch.tensor(model.encoder.std))).view(1, -1, 1, 1))
        self.register_buffer("shift", (255 * torch.tensor(model.encoder.mean)).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.model((image - self.shift) * self.scale)


@dataclass(frozen=True)
class Form:
    """How a file is recorded: which axes of the image are free, and at which size."""

    axes: tuple[int, ...]
    size: Size
    compared: tuple[Size, ...]
    """At these sizes the file is compared."""
    why: str | None = None
    """What spoke against a freer form."""
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", [AXES[axis] for axis in self.axes])


class CannotRecord(Exception):
    """The exporter gave up, for the reason in it."""


def write_onnx(
    model: Segmenter, folder: Path, size: Size | None, others: tuple[Size, ...], about: dict[str, Any], tolerance: float
) -> dict[str, Any]:
    """Writes `model.onnx` into `folder`; gives what the certificate says of it.

    `size` is the training size, None where each image was taken at its own; `others` is what is compared beside it,
    `about` what the certificate begins with and the file's metadata are taken from; `tolerance` the largest difference
    of a logit, in units of the largest logit where that is above 1.

    Raises:
        MissingPackageError: no onnx, onnxscript or onnxruntime.
        SegwrightError: the model cannot be recorded; what was recorded computes something else.
    """
    need_packages()
    portable = Portable(model).eval()
    reader = Reader(model, len(about["classes"]), about["threshold"], tolerance)
    facts = metadata(about, model, size)
    form, found = record_freely(portable, folder / FILE, size or OWN_SIZE, others, facts, reader)
    certificate = contents(form, model, size, folder) | found
    log.log(logging.INFO if form.why is None else logging.WARNING, "%s: %s", FILE, summary(certificate))
    return certificate


def need_packages() -> None:
    """Raises `MissingPackageError` for the first of `PACKAGES` that is absent."""
    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingPackageError(package, "an export to ONNX", "export")


def record_freely(
    portable: Portable, path: Path, size: Size, others: tuple[Size, ...], facts: dict[str, str], reader: Reader
) -> tuple[Form, dict[str, Any]]:
    """Writes the file in the freest form in which it is the model; gives that form and what was compared.

    Raises:
        SegwrightError: there is none.
    """
    form, less = Form((0, 2, 3), RECORDED_AT, (size, *others)), [(0,), ()]
    if portable.model.encoder.whole_px != (1, 1):
        form = Form(less.pop(0), size, (size,), WINDOWS)
    for axes in less:
        try:
            record(portable, form, path, facts)
            return form, compare(reader, path, form.compared, (1, 2) if 0 in form.axes else (1,))
        except (CannotRecord, Different) as error:
            log.info("not for any %s: %s", ", ".join(form.names), error)
            form = Form(axes, size, (size,), f"{', '.join(form.names)} not free: {error}")
    try:
        record(portable, form, path, facts)
        return form, compare(reader, path, form.compared, (1,))
    except (CannotRecord, Different) as error:
        raise SegwrightError(
            f"the model cannot become a file for ONNX, not for images of {size[0]} x {size[1]} alone either: {error}. "
            "Nothing was written. Another version of torch or onnxscript may do it; else report this with the encoder "
            "and the head."
        ) from error


@torch.no_grad()
def record(portable: Portable, form: Form, path: Path, facts: dict[str, str]) -> None:
    """Writes the model's graph and weights. Raises `CannotRecord`."""
    image = torch.zeros(2 if 0 in form.axes else 1, portable.model.encoder.in_channels, *form.size)
    free = dict.fromkeys(form.axes, torch.export.Dim.DYNAMIC)
    large = sum(t.numel() * t.element_size() for t in portable.state_dict().values()) > MOST_BYTES
    try:
        with quiet():
            program = torch.export.export(portable, (image,), dynamic_shapes=(free,), strict=False)
            made = torch.onnx.export(
                program,
                input_names=["image"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            assert made is not None
            name_axes(made.model, form)
            forget_traces(made.model)
            made.model.metadata_props.update(facts)
            if 2 not in form.axes:
                made.model.metadata_props["input_size"] = json.dumps(form.size)
            made.save(path, external_data=large)
    except Exception as error:  # torch, onnxscript and timm raise whatever they like
        raise CannotRecord(f"{type(error).__name__}: {first_line(error)}") from error


def name_axes(graph_model: Any, form: Form) -> None:
    """Free axes of the file's input and output get our names; the exporter's are numbered."""
    for value in (graph_model.graph.inputs[0], graph_model.graph.outputs[0]):
        sides = list(value.shape)
        for axis, name in AXES.items():
            if axis in form.axes:
                sides[axis] = name
        value.shape = type(value.shape)(sides)


def forget_traces(graph_model: Any) -> None:
    """Takes out what the exporter notes beside every node: lines of source code with their files on this machine."""
    for node in graph_model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph_model.graph.inputs, *graph_model.graph.initializers.values()):
        value.metadata_props.clear()


def metadata(about: dict[str, Any], model: Segmenter, size: Size | None) -> dict[str, str]:
    """What the file says of itself, as text; whatever is no text is JSON."""
    first = about["first_weights"] or {}
    facts = {
        "classes": about["classes"],
        "channels": about.get("channels"),
        "tree": about.get("tree"),
        "threshold": about["threshold"],
        "input": "float32 (batch, channels, height, width), RGB from 0 to 255; normalised inside the file",
        "input_size": size and list(size),
        "mean": list(model.encoder.mean),
        "std": list(model.encoder.std),
        "model": about["model"],
        "first_weights_origin": first.get("origin"),
        "first_weights_licence": first.get("licence"),
        "segwright": about["versions"]["segwright"],
    }
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items() if value is not None
    }


def contents(form: Form, model: Segmenter, size: Size | None, draft: Path) -> dict[str, Any]:
    """The certificate's words on the file itself."""
    return {
        "files": {path.name: path.stat().st_size for path in sorted(draft.iterdir())},
        "opset": OPSET,
        "input": {"name": "image", "type": "float32", "values": "RGB, 0 to 255", "size": size and list(size)},
        "output": {"name": "logits", "type": "float32", "size": "the image's"},
        "inside": {"mean": list(model.encoder.mean), "std": list(model.encoder.std)},
        "free_axes": form.names,
        **({"fixed_because": form.why} if form.why else {}),
    }


def first_line(error: Exception) -> str:
    """What an exception says, in one line of readable length. The exporter's own is about where it wrote what."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or ["no reason given"])[0][:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, the exporter's warnings and lines about its own insides are not shown."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(torch|onnx|onnxscript|onnx_ir)\b")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
