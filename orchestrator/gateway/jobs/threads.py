"""Threads for what blocks. Jobs have their own, so that a file server that hangs keeps no push waiting."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

READERS = 8
SCANNERS = 1  # of manifests: Python runs one at a time anyway, and pushes would wait for each
SUBMITTERS = 4  # that check their sources at once


class Threads:
    """A pool of threads for one kind of work; threads are started when they are needed."""

    def __init__(self, name: str, num_threads: int) -> None:
        self._pool = ThreadPoolExecutor(num_threads, f"gateway-{name}")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a call in one of the threads; where the caller is cancelled, the call still ends."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: call(*args, **kwargs))
