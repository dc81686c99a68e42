"""Encoders of other packages: modules that register models with timm when they are imported.

Entry points of the group `segwright.encoders` name such modules. They are imported when a name is asked for that timm
does not know, so that a run without them does not pay for them.
"""

from functools import cache
from importlib.metadata import entry_points

from segwright.registry import load_outside

GROUP = "segwright.encoders"


@cache
def import_outside() -> None:
    """Imports them all, once. `SegwrightError`: one cannot be imported."""
    for point in entry_points(group=GROUP):
        load_outside(point)
