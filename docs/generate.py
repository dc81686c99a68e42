"""Writes docs/configuration.md from the parts' dataclasses, so that it cannot say what the code does not do."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from pathlib import Path

from segwright.registry import Catalogue
from segwright.verbs.settings import BASE, DEFAULTS, SCHEMA

PAGE = Path(__file__).parent / "configuration.md"
HEAD = """# Configuration

Made by `make docs` from the code. A YAML file holds these sections; on the command line a key is written
`section.key=value`. Flags win over overrides, overrides over the file, the file over the defaults. A mapping that
is a value, such as a table of classes, takes the place of the one below it; `classes.merge.damage=[scratch, hole]` sets
one key of it. The flat capital keys of the crack recipe (`LR`, `IMG_SIZE`, ...) are read too.
"""


def docs_of(cls: type) -> dict[str, str]:
    """Field -> the string under it."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    out = {}
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            out[node.target.id] = " ".join(str(after.value.value).split())  # type: ignore[union-attr]
    return out


def choices(hint: object) -> list[str]:
    """The values that a type of literals takes, however deep they lie in it."""
    if typing.get_origin(hint) is typing.Literal:
        return [str(value) for value in typing.get_args(hint)]
    return [value for one in typing.get_args(hint) for value in choices(one)]


def rows(cls: type, section: str) -> list[str]:
    """A table row a field. Raises `KeyError` for a field without its string."""
    hints, texts = typing.get_type_hints(cls), docs_of(cls)
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for field in dataclasses.fields(cls):
        own = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        default = BASE.get(section, {}).get(field.name, own)
        shown = "required" if default is dataclasses.MISSING else f"`{default}`"
        known = choices(hints[field.name])
        among = f" One of {', '.join(f'`{value}`' for value in known)}." if known else ""
        lines.append(f"| `{section}.{field.name}` | {shown} | {texts[field.name]}{among} |")
    return lines


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for section, kind in SCHEMA.items():
        if not isinstance(kind, Catalogue):
            lines += [f"## {section}", "", *rows(kind, section), ""]
            continue
        default = f"`{DEFAULTS[section]}` by default"
        if section == "data":
            default = "by default the one that knows the folder"
        lines += [f"## {section}", "", f"`{section}.name` chooses a part, {default}.", ""]
        for name in sorted(kind):
            part = kind[name]
            about = (part.__doc__ or "").strip().splitlines()[0]
            lines += [f"### {section}.name: {name}", "", about, "", *rows(part.Config, section), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"written: {PAGE}")
