"""A long answer ends when its client has gone."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive


async def disconnected(receive: Receive) -> None:
    """Until the client has gone, or the answer is complete."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def first_of(*calls: Coroutine[Any, Any, object]) -> None:
    """Wait until one of the calls ends, and cancel the others. An error that is none of a slow client is raised."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        with contextlib.suppress(TimeoutError):
            task.result()
