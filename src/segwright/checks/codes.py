"""All that looking at the images and masks can find: code -> (level, what it is and why it matters, what to do)."""

from segwright.checks import advice, classes, duplicates, kinds, masks, sizes
from segwright.datasets.base import Level

FAMILIES = (kinds, sizes, masks, classes, advice)
"""Each looks at a survey by itself; duplicates gives pairs as well."""
CODES: dict[str, tuple[Level, str, str]] = {
    code: what for family in (*FAMILIES, duplicates) for code, what in family.CODES.items()
}
