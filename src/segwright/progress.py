"""Progress bars for what takes long. Silent where no person looks (output into a file or a pipe)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segwright.launch import is_main

console = Console(stderr=True)


class Bar:
    """One bar; `advance` moves it and sets what stands behind it."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: int = 1, note: str = "") -> None:
        """Moves on by `count`; `note` is shown behind the bar."""
        self._progress.update(self._task, advance=count, note=note)

    def set(self, done: int, total: int) -> None:
        """Puts the bar to `done` of `total`."""
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def bar(title: str, total: int) -> Iterator[Bar]:
    """A bar over `total` pieces with the time that is left; gone when the block ends."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not (console.is_terminal and is_main())
    ) as progress:
        yield Bar(progress, progress.add_task(title, total=total, note=""))
