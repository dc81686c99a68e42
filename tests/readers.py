"""What the tests of dataset readers share."""

from pathlib import Path

import numpy as np

from segwright.datasets.base import Finding, Source


def masks(source: Source) -> dict[str, np.ndarray]:
    """`split/name without ending` -> (H, W) class ids."""
    return {
        f"{name}/{split.path(index).stem}": split.mask(index)
        for name, split in source.splits.items()
        for index in range(len(split))
    }


def images(source: Source) -> dict[str, np.ndarray]:
    """`split/name without ending` -> (H, W, 3)."""
    return {
        f"{name}/{split.path(index).stem}": split.image(index)
        for name, split in source.splits.items()
        for index in range(len(split))
    }


def found(source: Source, code: str) -> Finding:
    """The one finding with that code."""
    findings = [finding for finding in source.findings if finding.code == code]
    assert len(findings) == 1, f"{code}: {source.findings}"
    return findings[0]


def codes(source: Source) -> set[str]:
    return {finding.code for finding in source.findings}


def errors(source: Source) -> set[str]:
    return {finding.code for finding in source.findings if finding.level == "error"}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Fails unless both hold the same arrays under the same names."""
    assert one.keys() == other.keys()
    for key, array in one.items():
        np.testing.assert_array_equal(array, other[key], err_msg=key)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
