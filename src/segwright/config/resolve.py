"""From a plain mapping to checked dataclasses, and back. Every problem is collected before anything is raised."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segwright.errors import ConfigError, nearest
from segwright.registry import Catalogue

Schema = Mapping[str, type | Catalogue]
"""Section -> its dataclass, or the catalogue whose part the section's `name` chooses."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A part that a section names, with that part's checked `Config`."""

    name: str
    config: Any


def resolve(values: Mapping[str, Any], schema: Schema, defaults: Mapping[str, str]) -> dict[str, Any]:
    """Section -> checked dataclass, or `Choice` where the section names a part.

    `defaults` gives, for each catalogue's section, the part that stands where none is named.

    Raises:
        ConfigError: with all problems found, one a line.
    """
    problems = [f"no section is called '{key}'.{nearest(key, schema)}" for key in values if key not in schema]
    out: dict[str, Any] = {}
    for section, kind in schema.items():
        given = values.get(section)
        if given is not None and not isinstance(given, Mapping):
            problems.append(f"{section} is {given!r}; it must be a mapping of keys to values.")
            continue
        given = dict(given or {})
        if isinstance(kind, Catalogue):
            out[section] = _choice(section, kind, given, defaults[section], problems)
        else:
            out[section] = _dataclass(section, kind, given, problems)
    raise_all(problems)
    return out


def raise_all(problems: list[str]) -> None:
    """One `ConfigError` for all problems; nothing where there are none."""
    if problems:
        raise ConfigError("the configuration has problems:\n" + "\n".join(f"  - {problem}" for problem in problems))


def _choice(section: str, kind: Catalogue, given: dict[str, Any], default: str, problems: list[str]) -> Choice | None:
    name = str(given.pop("name", None) or default)
    if name not in kind:
        problems.append(f"{section}.name: no {section} is called '{name}'.{nearest(name, kind)}")
        return None
    return Choice(name, _dataclass(section, kind[name].Config, given, problems))


def _dataclass(section: str, cls: type, given: dict[str, Any], problems: list[str]) -> Any:
    """`cls` made from the given values; None, and lines in `problems`, where that fails."""
    known = {field.name: field for field in dataclasses.fields(cls)}
    before = len(problems)
    problems += [f"{section}.{key}: no such key.{nearest(key, known)}" for key in given if key not in known]
    values = {}
    for key in given.keys() & known.keys():
        try:
            values[key] = _convert(cls, known[key], given[key])
        except OmegaConfBaseException as error:
            problems.append(f"{section}.{key} is {given[key]!r}: {str(error).splitlines()[0]}.")
            continue
        if not _is_finite(values[key]):
            problems.append(f"{section}.{key} is {given[key]}, which is not a finite number. Give one that is.")
    missing = [name for name, field in known.items() if name not in given and _required(field)]
    problems += [f"{section}.{name} is not given, and has no default. Set {section}.{name}=..." for name in missing]
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as error:
        problems.append(str(error))
        return None


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(cls: type, field: dataclasses.Field, value: Any) -> Any:
    """The value in the field's type, as OmegaConf converts it ('1e-3' -> 0.001, 1 -> True)."""
    if value is None and _optional(field):
        return None
    node = OmegaConf.structured(cls)
    OmegaConf.set_readonly(node, False)
    OmegaConf.update(node, field.name, value)
    plain = OmegaConf.to_container(node)[field.name]  # type: ignore[index,call-overload]
    return tuple(plain) if isinstance(field.default, tuple) and isinstance(plain, list) else plain


def _is_finite(value: Any) -> bool:
    """Whether no number in a value, however deep in lists and mappings, is infinite or not a number."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return all(_is_finite(one) for one in value)
    return not isinstance(value, float) or math.isfinite(value)


def _optional(field: dataclasses.Field) -> bool:
    return field.default is None or field.type is Any or "None" in str(field.type)


def dump(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of resolved sections, as YAML holds them; `resolve` gives equal objects back."""
    out: dict[str, Any] = {}
    for section, value in sections.items():
        if isinstance(value, Choice):
            out[section] = {"name": value.name, **_plain(value.config)}
        else:
            out[section] = _plain(value)
    return out


def _plain(config: Any) -> dict[str, Any]:
    values = dataclasses.asdict(config)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
