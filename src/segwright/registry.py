"""A catalogue of parts of one kind: heads, losses, dataset readers. Floor 1.

A part is a module with a frozen dataclass `Config` and a function `build`. A package outside adds one through an entry
point of the group `segwright.<kind>` whose value is such a module.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from segwright.errors import ConfigError, SegwrightError, nearest


class Catalogue(Mapping[str, ModuleType]):
    """Name -> module with `Config` and `build`. Outside parts are found when first asked for."""

    def __init__(self, kind: str, parts: Mapping[str, ModuleType]) -> None:
        self.kind = kind
        self._parts = dict(parts)
        self._complete = False

    def _all(self) -> dict[str, ModuleType]:
        if not self._complete:
            for point in entry_points(group=f"segwright.{self.kind}"):
                if point.name not in self._parts:
                    self._parts[point.name] = _part(point, self.kind)
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


def load_outside(point: EntryPoint) -> Any:
    """What an outside package's entry point names. `SegwrightError`: it cannot be imported."""
    try:
        return point.load()
    except Exception as error:
        package = point.dist.name if point.dist else "unknown"
        raise SegwrightError(
            f"the package '{package}' offers {point.group}: {point.name} = {point.value}, which cannot be imported "
            f"({type(error).__name__}: {error}). Mend the package, or uninstall it."
        ) from error


def _part(point: EntryPoint, kind: str) -> ModuleType:
    module = load_outside(point)
    if lacks := [name for name in ("Config", "build") if not hasattr(module, name)]:
        raise SegwrightError(
            f"{point.value}, which an outside package offers as {kind} part '{point.name}', has no "
            f"{' and no '.join(lacks)}. A part is a module with a dataclass `Config` and a function `build`; see "
            "docs/adding-parts.md."
        )
    return module
