"""Counts how often this process opens files and lists folders, by Python's audit events."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_COUNTERS: list[Counter[str]] = []  # of the `with` blocks that are active; an audit hook cannot be removed
_EVENTS = ("open", "os.scandir", "os.listdir")


def _count(event: str, arguments: tuple[object, ...]) -> None:
    if _COUNTERS and event in _EVENTS and isinstance(arguments[0], str | os.PathLike):
        for counter in _COUNTERS:
            counter[os.fspath(arguments[0])] += 1


@cache
def _add_hook() -> None:
    sys.addaudithook(_count)


@contextmanager
def count_opened() -> Iterator[Counter[str]]:
    """Openings and listings by path, until the block ends."""
    _add_hook()
    counter: Counter[str] = Counter()
    _COUNTERS.append(counter)
    try:
        yield counter
    finally:
        _COUNTERS.remove(counter)
