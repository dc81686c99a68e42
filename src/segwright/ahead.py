"""Work in threads, begun ahead of its turn. Pillow, NumPy and zlib let other threads run meanwhile."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def cores() -> int:
    """That this process may use: fewer than the machine's in a container, or under a batch system."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(pool: Executor, work: Callable[[Item], Made], items: Iterable[Item], depth: int) -> Iterator[Future[Made]]:
    """`work` of each item, in order; when one's turn comes, that of up to `depth` more is begun."""
    begun: deque[Future[Made]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) > depth:
            yield begun.popleft()
    yield from emptied(begun)


def emptied(waiting: deque[Item]) -> Iterator[Item]:
    """What waits, the first first; it is held no longer than until then."""
    while waiting:
        yield waiting.popleft()
