"""Reading, merging and resolving configurations. Floor 2: is handed the parts' dataclasses, imports none of them."""

from segwright.config.load import as_mapping, load_yaml, merge, parse_overrides, read_yaml
from segwright.config.resolve import Choice, dump, resolve

__all__ = ["Choice", "as_mapping", "dump", "load_yaml", "merge", "parse_overrides", "read_yaml", "resolve"]
