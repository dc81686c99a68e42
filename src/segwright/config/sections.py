"""The dialects whose keys are single values in sections: SPARK's and ARTeFACT's. Both are read by one walk over tables.

A key of theirs becomes one or several of ours wherever it stands, in a file or on the command line; ours win where a
file has both.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from segwright.config import artefact, seghiero, spark
from segwright.errors import ConfigError, nearest

KEYS: dict[str, tuple[str, ...]] = artefact.KEYS | spark.KEYS
REST = artefact.REST | spark.REST
SHARED = "training"
"""The section that SegHiero's dialect has, too: no key of it is ours."""
KNOWN = {*KEYS, *seghiero.KEYS, *seghiero.UNUSED, seghiero.SUBSECTION}


def translate_keys(values: Mapping[str, Any], where: str, whole: bool) -> dict[str, Any]:
    """Our keys for theirs; all others stay. `whole`: the values are a config, not single keys of one.

    Raises:
        ConfigError: a key of `training` that no dialect knows, or a value that a table does not hold.
    """
    given = dict(_leaves(values))
    out: dict[str, Any] = {}
    for key, targets in KEYS.items():
        if key in given:
            value = _value(key, given[key], where)
            for target in targets:
                _put(out, target, value)
    for prefix, section in REST.items():
        for key in (key for key in given if key.startswith(prefix + ".") and key not in KEYS):
            _put(out, f"{section}.{key.removeprefix(prefix + '.')}", given[key])
    if whole and "model.variant" in given:
        for key, text in spark.PLACE.items():
            out.setdefault("run", {}).setdefault(key, text)
    rest = _without(values)
    _refuse_unknown(rest, where)
    return _joined(out, rest, where)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`a.b.c` and its value, for what is no mapping."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in KEYS:
            yield from _leaves(value, name + ".")
        else:
            yield name, value


def _value(key: str, value: Any, where: str) -> Any:
    """Our word for one of their values, where we have another. Raises `ConfigError` for one that is not known."""
    table = spark.VALUES.get(key)
    if table is None:
        return value
    if not isinstance(value, str | int) or value not in table:
        known = [str(one) for one in table]
        raise ConfigError(f"{where}: {key} is {value!r}, which is not known.{nearest(str(value), known)}")
    return table[value]


def _put(out: dict[str, Any], target: str, value: Any) -> None:
    section, name = target.split(".", 1)
    out.setdefault(section, {})[name] = value


def _without(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values without keys of theirs, and without sections that held nothing else."""
    rest: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in KEYS or name.rpartition(".")[0] in REST:
            continue
        if isinstance(value, Mapping) and value:
            inside = _without(value, name + ".")
            rest |= {key: inside} if inside else {}
        else:
            rest[key] = value
    return rest


def _refuse_unknown(rest: Mapping[str, Any], where: str) -> None:
    section = rest.get(SHARED)
    for key in section if isinstance(section, Mapping) else ():
        if f"{SHARED}.{key}" not in KNOWN:
            raise ConfigError(f"{where}: no key is called {SHARED}.{key}.{nearest(f'{SHARED}.{key}', KNOWN)}")


def _joined(ours: Mapping[str, Mapping[str, Any]], rest: dict[str, Any], where: str) -> dict[str, Any]:
    """Both, what stood there under our names winning."""
    for section, keys in ours.items():
        there = rest.get(section) or {}
        if not isinstance(there, Mapping):
            raise ConfigError(f"{where}: {section} is {there!r}; it must be a mapping of keys to values.")
        rest[section] = {**keys, **there}
    return rest
