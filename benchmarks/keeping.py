"""Runs of a benchmark that are kept in a file as soon as they are done, so that a second call goes on."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

Rows = list[dict[str, Any]]


def go_on(
    path: Path,
    settings: dict[str, Any],
    names: tuple[str, ...],
    keys: Iterable[tuple],
    one: Callable[..., dict[str, Any]],
    table: Callable[[Rows], str],
) -> None:
    """Makes the row `one(*key)` of every key that `path` does not have yet, and a table of all beside it, as `.md`.

    `names` are the columns that a key holds; `settings` are what all rows must have in common. Ends the program where
    the file is of others.
    """
    kept = json.loads(path.read_text()) if path.is_file() else settings | {"runs": []}
    found = {name: kept.get(name) for name in settings}
    if found != settings:
        raise SystemExit(f"{path} was made with {found}, not with {settings}. Give another folder as --results.")
    done = {tuple(row[name] for name in names) for row in kept["runs"]}
    for key in keys:
        if key not in done:
            kept["runs"].append(one(*key) | {"threads": torch.get_num_threads()})
            path.write_text(json.dumps(kept, indent=1))
            path.with_suffix(".md").write_text(table(kept["runs"]))
