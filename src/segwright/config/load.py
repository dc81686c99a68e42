"""From YAML files, flags and `key=value` words to one plain nested mapping. No value is checked here."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segwright.config.dialects import COMMAND_LINE, translate
from segwright.errors import ConfigError

PLACEHOLDER = re.compile(r"\{\w+\}\S")
"""How a pattern like {split}/photos/* begins, which no mapping of YAML does."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, in our own keys whatever dialect it was written in. Raises as `load_yaml`."""
    return translate(load_yaml(path), where=str(path))


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file as it stands there.

    Raises:
        ConfigError: no such file, not YAML, or no mapping at its top.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no configuration file {path}. Give --config an existing YAML file.")
    try:
        top = yaml.compose(path.read_text(encoding="utf-8"))
        if top is not None and not isinstance(top, yaml.MappingNode):  # of a plain text OmegaConf makes a key
            raise ConfigError(
                f"{path} holds {_kind(top)}; a configuration is a mapping of keys to values. Write sections with their "
                "keys, e.g. train: {epochs: 20}."
            )
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {_in_a_line(error)}") from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _kind(top: yaml.Node) -> str:
    """What stands at the top of a YAML file, where it is no mapping."""
    if isinstance(top, yaml.SequenceNode):
        return "a list"
    value = str(top.value)
    return f"the {'number' if top.tag.endswith((':int', ':float')) else 'text'} {value[:40]!r}"


def _in_a_line(error: Exception) -> str:
    """What a reader of YAML says, in a line, with the file's line, and with advice where we know any."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error).splitlines()[0]
    problem = str(getattr(error, "problem", error)).rstrip(".")
    if "'\\t'" in problem:
        problem = "there is a tab, but YAML indents by spaces. Put spaces in the place of the tabs"
    elif "mapping values are not allowed" in problem:
        problem = "there is a second colon, or another indentation than above. Indent keys of one section alike"
    else:
        problem += ". Look at the brackets, quotes and indentation there and in the line above"
    return f"line {mark.line + 1}: {problem}."


def as_mapping(config: str | Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """A file's or a mapping's values in our own keys; nothing for None. Raises `ConfigError`."""
    if config is None:
        return {}
    return translate(config, where="the config") if isinstance(config, Mapping) else read_yaml(config)


def parse_overrides(words: Sequence[str], base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`["train.epochs=3", "LR=1e-3"]` -> a nested mapping, over `base` if given; values are read as YAML.

    A mapping as a value takes the place of one in `base`; `classes.merge.damage=[a, b]` sets one key of it.

    Raises:
        ConfigError: a word without `=`.
    """
    bad = [word for word in words if "=" not in word or word.startswith("=")]
    if bad:
        raise ConfigError(
            f"'{bad[0]}' is neither a flag nor key=value. Write an override as section.key=value, e.g. train.epochs=20."
        )
    values = dict(base or {})
    for word in words:
        key, text = word.split("=", 1)
        value = _value(text, key)
        own = translate(_nest(key, value), where=COMMAND_LINE)
        values = merge(values, own, levels=max(_keys_above(value, own), default=2) - 1 or 1)
    return values


def _keys_above(value: Any, nested: Any) -> Iterator[int]:
    """How many keys lead to each place of a value: 3 for `{"classes": {"merge": {"damage": value}}}`."""
    if nested == value:
        yield 0
    elif isinstance(nested, Mapping):
        yield from (1 + keys for one in nested.values() for keys in _keys_above(value, one))


def _value(text: str, key: str) -> Any:
    """A word's value. Raises `ConfigError`."""
    try:
        return _parsed(text)
    except yaml.YAMLError:
        if PLACEHOLDER.match(text):
            return text
        raise ConfigError(f"the value of {key} is {text}, which is no YAML. {_advice(text, key)}") from None
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"the value of {key} is {text}, which cannot be read ({str(error).splitlines()[0]}). Give the value "
            "itself, without ${...}."
        ) from None


def _parsed(text: str) -> Any:
    return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)["value"]  # type: ignore[index,call-overload]


def _advice(text: str, key: str) -> str:
    """How a value that is no YAML is to be written."""
    spaced = re.sub(r"[:,](?=\S)", r"\g<0> ", text)
    try:
        if spaced != text and isinstance(_parsed(spaced), dict | list):
            return f"Put a space behind each colon, and all of it in quotes: '{key}={spaced}'"
    except (yaml.YAMLError, OmegaConfBaseException):
        pass
    return (
        f"Close every bracket and quote, with a space behind each colon, and all of it in quotes: '{key}=[a, b]' or "
        f"'{key}={{a: 1, b: [c, d]}}' for several values, '{key}=\"a: b\"' for text with such signs in it."
    )


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any], levels: int = 1) -> dict[str, Any]:
    """Both mappings in one, `over` winning; down to `levels` below, mappings are merged key by key.

    One level is the sections: a mapping that is a value, such as a table of classes, is replaced as a whole.
    """
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        both = levels > 0 and isinstance(old, Mapping) and isinstance(value, Mapping)
        out[key] = merge(old, value, levels - 1) if both else value  # type: ignore[arg-type]
    return out
