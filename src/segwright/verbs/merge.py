"""A trained model with LoRA adapters as a checkpoint without: the adapters are added to the encoder's weights."""

import logging
from pathlib import Path
from typing import Any

import torch

from segwright import checkpoint, lora
from segwright.errors import ConfigError, SegwrightError
from segwright.model import Segmenter, build_model
from segwright.verbs.loading import remember, restore
from segwright.verbs.settings import Settings, gather
from segwright.verbs.trees import channels

log = logging.getLogger("segwright")

MERGED = "merged.pth"
OF_TRAINING = {"model", "optimizer", "schedule", "engine", "rows", "stale"}
"""What a checkpoint holds for a resume; the weights are written anew."""


def write_merged(
    payload: dict[str, Any],
    settings: Settings,
    weights: str | Path,
    folder: Path,
    sizes: tuple[tuple[int, int], ...],
    tolerance: float,
) -> dict[str, Any]:
    """Writes `merged.pth` into `folder`, reads it back, and compares it with the model that has its adapters beside.

    Gives what `certificate.json` says of the comparison: one random image of each size in `sizes`, (height, width).

    Raises:
        ConfigError: the checkpoint has no adapters.
        SegwrightError: the two compute different functions.
    """
    if not any(lora.is_adapter(key) for key in payload["model"]):
        raise ConfigError(f"{weights} has no LoRA adapters, so there is nothing to merge. Use it as it is.")
    plain = payload["config"] | {"lora": payload["config"]["lora"] | {"enabled": False}}
    kept = {key: value for key, value in payload.items() if key not in OF_TRAINING}
    state = restore(payload, settings, weights).state_dict()
    checkpoint.save(folder / MERGED, kept | {"config": plain, "model": state})
    written = checkpoint.load(folder / MERGED)
    merged, beside = restore(written, gather(plain), folder / MERGED), with_adapters(payload, settings, weights)
    rows = [{"height": size[0], "width": size[1], **difference(beside, merged, size)} for size in sizes]
    judge(rows, tolerance)
    return {
        "compared": True,
        "peer": "the model with its adapters beside the weights",
        "tolerance": tolerance,
        "sizes": rows,
        "equal": True,
    }


def judge(rows: list[dict[str, Any]], tolerance: float) -> None:
    """Says what the comparison showed. Raises `SegwrightError` where it is more than rounding."""
    worst = max(row["max_abs_difference"] for row in rows)
    if any(row["max_abs_difference"] > tolerance * max(1.0, row["max_abs_logit"]) for row in rows):
        raise SegwrightError(
            f"{MERGED} would compute something else than the model with its adapters: a logit differs by {worst:.1e}. "
            "Nothing was exported; report this with the size and the encoder."
        )
    log.info("%s: logits differ from those with adapters by at most %.1e", MERGED, worst)


def with_adapters(payload: dict[str, Any], settings: Settings, weights: str | Path) -> Segmenter:
    """The model as it was trained, in evaluation mode on the CPU."""
    names = channels(settings, payload["classes"])
    model = build_model(settings.model, settings.encoder, settings.head, len(names), pretrained=False)
    remember(model, payload)
    lora.apply(model, settings.lora)
    checkpoint.load_weights(model, payload, weights)
    return model.eval()


@torch.no_grad()
def difference(one: Segmenter, other: Segmenter, size: tuple[int, int]) -> dict[str, float]:
    """Largest difference of a logit, and the largest logit, on one random image (normal values, seed 0)."""
    image = torch.randn(1, one.encoder.in_channels, *size, generator=torch.Generator().manual_seed(0))
    a, b = one(image), other(image)
    return {"max_abs_difference": float((a - b).abs().max()), "max_abs_logit": float(a.abs().max())}
