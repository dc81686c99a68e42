"""Reading, merging and resolving configurations. Floor 2: is handed the parts' dataclasses, imports none of them."""

from segwright.config.load import merge, parse_overrides, read_yaml
from segwright.config.resolve import Choice, dump, resolve

__all__ = ["Choice", "dump", "merge", "parse_overrides", "read_yaml", "resolve"]
