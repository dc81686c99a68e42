"""Plain ViTs that are published as files only: RETFound and VisionFM, for images of the eye.

They are timm's architectures with weights, normalisation and licence of their own; timm cannot fetch them.

- RETFound: Zhou et al. 2023, https://doi.org/10.1038/s41586-023-06555-x, https://github.com/rmaphoh/RETFound;
  ImageNet's mean and std.
- VisionFM: Qiu et al. 2024, https://doi.org/10.1056/AIoa2300221, https://github.com/ABILab-CUHK/VisionFM; mean and std
  of each modality from there.
"""

import re
from dataclasses import dataclass

from segwright.errors import WeightsError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NON_COMMERCIAL = "CC BY-NC 4.0"

FROM_HUB = "are gated on https://huggingface.co/YukunZhou (ask there, then download the .pth)"
FROM_DRIVE = "are linked from https://github.com/ABILab-CUHK/VisionFM (download the .pth of your modality)"

GREY_MODALITIES = {
    "ffa": (0.20205, 0.17405),
    "mri": (0.17369, 0.16199),
    "oct": (0.21091926, 0.17598893),
    "ubm": (0.09611, 0.20978),
}
"""VisionFM's mean and std, equal for the three channels."""
COLOUR_MODALITIES = {
    "external": ((0.49363, 0.36325, 0.25957), (0.32001, 0.27109, 0.21992)),
    "fundus": ((0.42374, 0.26095, 0.12840), (0.29483, 0.20167, 0.13668)),
    "slitlamp": ((0.55567, 0.40289, 0.38858), (0.26517, 0.23312, 0.23904)),
    "ultrasound": ((0.05989, 0.05979, 0.05669), (0.15428, 0.15505, 0.14465)),
}
"""VisionFM's mean and std."""


@dataclass(frozen=True)
class Family:
    """What its weights need that timm's model of the same architecture does not say."""

    title: str
    model: str
    """timm's name, with `{size}` in it."""
    size: str
    """small, base or large: what is published; others fit files that somebody trained alike."""
    where: str
    """Where the weights are to be had."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    image_px: int = 224
    """Side of the images that it was trained on, and so the size of its position table."""
    licence: str = NON_COMMERCIAL


def _visionfm(mean: tuple[float, ...], std: tuple[float, ...]) -> Family:
    return Family("VisionFM", "vit_{size}_patch16_224", "base", FROM_DRIVE, mean, std)


FAMILIES = {
    "retfound": Family("RETFound (MAE)", "vit_{size}_patch16_224", "large", FROM_HUB),
    "retfound_dinov2": Family("RETFound (DINOv2)", "vit_{size}_patch14_dinov2", "large", FROM_HUB),
    "visionfm": _visionfm(*COLOUR_MODALITIES["fundus"]),
    **{f"visionfm_{name}": _visionfm(mean, std) for name, (mean, std) in COLOUR_MODALITIES.items()},
    **{f"visionfm_{name}": _visionfm((mean,) * 3, (std,) * 3) for name, (mean, std) in GREY_MODALITIES.items()},
}
"""By name; `visionfm` is `visionfm_fundus`. Another size is appended: `retfound_base`."""


def find_family(name: str) -> tuple[Family, str] | None:
    """The family of that name and timm's name of its architecture; None: `name` is none of these."""
    match = re.fullmatch(r"(.+?)(?:_(small|base|large))?", name)
    family = FAMILIES.get(match[1]) if match else None
    if match is None or family is None:
        return None
    return family, family.model.format(size=match[2] or family.size)


def refuse_published(name: str, family: Family, wanted: object) -> None:
    """Raises `WeightsError` where published weights are asked for by anything but a path."""
    raise WeightsError(
        f"pretrained is {wanted!r}, but the weights of {family.title} cannot be fetched by a program: they "
        f"{family.where}, under {family.licence}. Give the file's path as `pretrained` (checkpoint_path) of '{name}', "
        "or pretrained=0 for random weights."
    )
