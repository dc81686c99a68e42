"""A catalogue of parts of one kind: heads, losses, dataset readers. Floor 1.

A part is a module with a frozen dataclass `Config` and a function `build`. A package outside adds one through an entry
point of the group `segwright.<kind>` whose value is such a module.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from segwright.errors import ConfigError, nearest


class Catalogue(Mapping[str, ModuleType]):
    """Name -> module with `Config` and `build`. Outside parts are found when first asked for."""

    def __init__(self, kind: str, parts: Mapping[str, ModuleType]) -> None:
        self.kind = kind
        self._parts = dict(parts)
        self._complete = False

    def _all(self) -> dict[str, ModuleType]:
        if not self._complete:
            for point in entry_points(group=f"segwright.{self.kind}"):
                self._parts.setdefault(point.name, point.load())
            self._complete = True
        return self._parts

    def __getitem__(self, name: str) -> ModuleType:
        part = self._parts.get(name) or self._all().get(name)
        if part is None:
            raise KeyError(name)
        return part

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def part(self, name: str) -> ModuleType:
        """The part of that name; `ConfigError` with the nearest name if there is none."""
        try:
            return self[name]
        except KeyError:
            raise ConfigError(f"no {self.kind} part is called '{name}'.{nearest(name, self)}") from None

    def build(self, name: str, config: Any, *args: Any, **kwargs: Any) -> Any:
        """What the part's `build(config, ...)` makes."""
        return self.part(name).build(config, *args, **kwargs)
