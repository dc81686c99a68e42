"""Whole models by name: what `model.name` says in the other sections of a configuration."""

from collections.abc import Mapping
from typing import Any

from segwright.config import merge
from segwright.encoders import resolve_name
from segwright.errors import ConfigError, nearest
from segwright.pretrained import WIDTHS

MODELS: dict[str, dict[str, Any]] = {
    "segformer_lite": {"head": {"name": "lite"}},
    **{
        f"segformer_{encoder[-2:]}": {
            "encoder": {"name": f"segformer_{encoder[-2:]}"},
            "head": {"name": "segformer", "width": width},
        }
        for encoder, width in WIDTHS.items()
    },
}
"""Whole models by name: what they say in the other sections. Names are fixed, other values can be changed."""


def preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The sections with what `model.name` says in them: names that are fixed, and defaults such as a head's width.

    Raises:
        ConfigError: no such whole model, or another encoder or head than it has.
    """
    values = {section: given for section, given in values.items() if given is not None}
    name = _given(values, "model")
    if not name:
        return values
    if name not in MODELS:
        raise ConfigError(f"no whole model is called '{name}'.{nearest(str(name), MODELS)}")
    own = MODELS[name]
    for section, keys in own.items():
        given = _given(values, section)
        if given and _canonical(section, given) != _canonical(section, keys["name"]):
            raise ConfigError(
                f"model.name is {name}, whose {section} is {keys['name']}, but {section}.name is {given}. "
                "Leave out one of them."
            )
    fixed = {section: {"name": keys["name"]} for section, keys in own.items()}
    return merge(merge(own, values), {key: value for key, value in fixed.items() if _is_section(values, key)})


def _is_section(values: Mapping[str, Any], section: str) -> bool:
    return isinstance(values.get(section, {}), Mapping)


def _given(values: Mapping[str, Any], section: str) -> Any:
    """The name that a section gives, if it gives one."""
    return values.get(section, {}).get("name") if _is_section(values, section) else None


def _canonical(section: str, name: str) -> str:
    return resolve_name(name) if section == "encoder" else name
