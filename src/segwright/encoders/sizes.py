"""Encoders with windows (MaxViT, Swin) for images of any size.

Such models are made for one size of image. What they need of others:

- MaxViT (Tu et al. 2022, https://arxiv.org/abs/2204.01697, section 3.2) attends within windows of P x P places and over
  a grid of P x P, P being the 32nd part of its image. Both sides of every map must be multiples of P, so the image is
  padded to a multiple of 32 P.
- Swin (Liu et al. 2021, https://arxiv.org/abs/2103.14030) completes the windows of every map by itself; the image is
  padded to whole patches of 4 x 4.

Zeros pad at the right and below; the maps are cut or resampled to cover the image (`vit.cover`). A model may be made
for another size than the published one: MaxViT's windows then have another P, and its tables of relative positions are
resized; Swin's windows stay, but shift in every map that is larger than one.
"""

import logging
from typing import Any

import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from segwright.errors import ConfigError

log = logging.getLogger("segwright")

ANY_SIZE = {"strict_img_size": False}
"""What makes timm's Swin take any image of whole patches."""
SWINS = tuple(f"timm.models.swin_transformer{version}" for version in ("", "_v2", "_v2_cr"))
LAST_STRIDE = 32
"""A model with windows is made for images of whole cells of its last map."""


def made_for(model: str, image_size: Any) -> dict[str, Any]:
    """The options by which timm makes `model` for `image_size`: a side, (height, width), or None: as published.

    Raises:
        ConfigError: no size in pixels, or a model that is not made for one.
    """
    options: dict[str, Any] = ANY_SIZE if timm.models.model_entrypoint(model).__module__ in SWINS else {}
    if image_size is None:
        return options
    sides = [image_size] * 2 if type(image_size) is int else image_size
    if not (isinstance(sides, list | tuple) and len(sides) == 2 and all(type(n) is int and n > 0 for n in sides)):
        raise ConfigError(f"encoder.image_size is {image_size!r}; give a number of pixels, or (height, width).")
    if not getattr(timm.get_pretrained_cfg(model), "fixed_input_size", False):
        raise ConfigError(
            f"encoder.image_size is {image_size!r}, but '{model}' has no windows or positions that are made for one "
            "size; it takes images as they are. Leave it out."
        )
    return {"img_size": tuple(-(-side // LAST_STRIDE) * LAST_STRIDE for side in sides), **options}


def whole_px(net: Any) -> tuple[int, int]:
    """What an image's height and width must be multiples of for timm's `net`; (1, 1): it takes any."""
    if window := window_of(net):
        stride = net.feature_info.reduction()[-1]
        return stride * window[0], stride * window[1]
    if any(type(module).__module__ in SWINS for module in net.modules()):
        return tuple(net.patch_embed.patch_size)
    return 1, 1


def window_of(net: Any) -> tuple[int, int] | None:
    """MaxViT's P, as (rows, columns); None: another model."""
    sizes = (module.partition_size for module in net.modules() if hasattr(module, "partition_size"))
    return next(((int(rows), int(columns)) for rows, columns in sizes), None)


def pad_to_whole(image: Tensor, whole: tuple[int, int]) -> Tensor:
    """(B, C, H, W) with zeros at the right and below, up to multiples of `whole`."""
    return F.pad(image, (0, -image.shape[-1] % whole[1], 0, -image.shape[-2] % whole[0]))


def say_padding(name: str, net: Any, image: Tensor, padded: Tensor) -> None:
    """One line for what the windows cost, where an image had to be padded for them."""
    window = window_of(net)
    if window is None or padded.shape == image.shape:
        return
    log.info(
        "%s: an image of %d x %d pixels is padded to %d x %d, %.1f times the area, which its windows of %d x %d need; "
        "encoder.image_size=[%d,%d] would fit the windows to the images",
        name,
        *image.shape[-2:],
        *padded.shape[-2:],
        padded.shape[-2:].numel() / image.shape[-2:].numel(),
        *window,
        *image.shape[-2:],
    )


def say_tables(model: str, net: Any, options: dict[str, Any]) -> None:
    """One line for the tables of positions that are not of the published size any more."""
    with torch.device("meta"):
        published: Any = timm.create_model(model, features_only=True)
    before = published.state_dict()
    changed = [
        (tuple(before[key].shape), tuple(tensor.shape))
        for key, tensor in net.state_dict().items()
        if key in before and before[key].shape != tensor.shape
    ]
    if changed:
        log.info(
            "%s is made for %d x %d pixels: %d tables of positions are resized, the first from %s to %s",
            model,
            *options["img_size"],
            len(changed),
            *changed[0],
        )
