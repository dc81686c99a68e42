"""Where in a YAML file the keys stand that a message speaks of, so that people find them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

OURS, THEIRS = "hierarchy.classes", "classes"
"""Our name of the tree of classes, and of the section that SegHiero's files have it in."""


def with_lines(message: str, path: str | Path) -> str:
    """The message, behind each of its lines the file's lines of the keys (`a.b.c`, or `b/c` in a tree of classes) that
    it names; as it is where it names none, or the file cannot be read."""
    try:
        tree = yaml.compose(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return message
    known: dict[str, int] = {}
    for keys, line in _keys(tree, ()):
        known.update(dict.fromkeys(_spellings(keys), line))
    return "\n".join(_with_lines(line, known, path) for line in message.splitlines())


def _with_lines(text: str, known: dict[str, int], path: str | Path) -> str:
    """One line of a message; of keys that lie in each other the innermost counts."""
    spoken = sorted((key for key in known if key in text), key=len, reverse=True)
    found = {key: known[key] for key in spoken if re.search(rf"(?<![\w./]){re.escape(key)}(?![\w/]|\.\w)", text)}
    lines = sorted(set(found.values()))
    if not lines:
        return text
    words = f"line {lines[0]}" if len(lines) == 1 else f"lines {', '.join(map(str, lines[:-1]))} and {lines[-1]}"
    return f"{text} ({path}, {words})"


def _spellings(keys: Sequence[str]) -> Iterator[str]:
    """How messages name a key: with dots from the top, and inside a tree of classes with slashes. A section's name
    alone is none: `data` or `head` is a word of any message."""
    if len(keys) > 1:
        yield ".".join(keys)
    if keys[0] == THEIRS:
        yield ".".join(("hierarchy", *keys))
    for top in (OURS.split("."), [THEIRS]):
        inside = keys[len(top) :]
        if list(keys[: len(top)]) == top and len(inside) > 1:
            yield "/".join(inside)


def _keys(node: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every key of a document by the keys that lead to it, and its line, from 1."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            own = (*above, str(key.value))
            yield own, key.start_mark.line + 1
            yield from _keys(value, own)
