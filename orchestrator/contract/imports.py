"""Imports without Python's garbage collector.

A start makes hundreds of thousands of objects, nearly all of which stay: the collector visits them again and again, and
once more at the exit, for a third of the processor time of a short command.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected_imports() -> Iterator[None]:
    """The collector does not run in this block, and never visits what is there at its end."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
