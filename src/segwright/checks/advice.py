"""What to set: the input's or the crop's size, whether the images fit into memory."""

from pathlib import Path
from statistics import median

from segwright.checks.survey import Survey
from segwright.datasets.base import Level, Notes

USUAL_PX = 512
"""Side of the square that most models are trained at."""
STRIDE_PX = 32
"""Sides that are multiples of it lose nothing at an encoder's borders."""
CODES: dict[str, tuple[Level, str, str]] = {
    "suggested-size": ("info", "input size (height x width)", ""),
    "preload": ("info", "memory that the training images and masks fill, decoded, at their own size", ""),
}


def look(survey: Survey, notes: Notes) -> None:
    """Notes suggestions for the training split."""
    facts = survey.by_split.get("train", [])
    sizes = [one.size for one in facts if one.size is not None]
    if sizes:
        notes.see("suggested-size", "", _size(sizes))
        needed = 4 * sum(height * width for height, width in sizes)
        notes.see("preload", "", f"{_gigabytes(needed)}{_beside_memory(needed)}")


def _size(sizes: list[tuple[int, int]]) -> str:
    """The middle image's size where it is moderate, else a crop of it at its own scale."""
    height, width = (_rounded(median(size[side] for size in sizes)) for side in (0, 1))
    if height * width <= 2 * USUAL_PX**2:
        return f"{height} x {width}, the middle of the training images' sizes in multiples of {STRIDE_PX}"
    side = min(USUAL_PX, height, width)
    return (
        f"crops of {side} x {side} (augment.crop) if details matter, for the images are {height} x {width} in the "
        "middle; all of each image shrunk if only large things do"
    )


def _rounded(side: float) -> int:
    return max(STRIDE_PX, round(side / STRIDE_PX) * STRIDE_PX)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2g} GB"


def _beside_memory(needed: int) -> str:
    """Compared with what this machine has free, where it says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return ""
    free = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 0)
    if not free:
        return ""
    enough = "which suffices" if needed < free / 2 else "too little: shrink them first, or read them each time"
    return f"; {_gigabytes(free)} are free here, {enough}"
