"""From YAML files, flags and `key=value` words to one plain nested mapping. No value is checked here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segwright.config.dialects import COMMAND_LINE, translate
from segwright.errors import ConfigError


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
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; a configuration is a mapping of keys to values.")
    return {str(key): value for key, value in values.items()}


def as_mapping(config: str | Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """A file's or a mapping's values in our own keys; nothing for None. Raises `ConfigError`."""
    if config is None:
        return {}
    return translate(config, where="the config") if isinstance(config, Mapping) else read_yaml(config)


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`["train.epochs=3", "LR=1e-3"]` -> a nested mapping; values are read as YAML.

    Raises:
        ConfigError: a word without `=`.
    """
    bad = [word for word in words if "=" not in word or word.startswith("=")]
    if bad:
        raise ConfigError(
            f"'{bad[0]}' is neither a flag nor key=value. Write an override as section.key=value, e.g. train.epochs=20."
        )
    values: dict[str, Any] = {}
    for word in words:
        key, text = word.split("=", 1)
        values = merge(values, translate(_nest(key, _value(text, key)), where=COMMAND_LINE))
    return values


def _value(text: str, key: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)["value"]  # type: ignore[index,call-overload]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"the value of {key} cannot be read: {error}") from None


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings in one, `over` winning; nested mappings are merged key by key."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out
