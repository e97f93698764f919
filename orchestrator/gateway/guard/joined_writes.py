"""The transport of one answer: its head leaves with the first part of its body.

uvicorn writes them one after the other, which is two calls of the system, and wakes the client twice.
"""

import asyncio


class JoinedWrites:
    """What uvicorn's cycle of a request writes to."""

    __slots__ = ("_head", "_loop", "_transport", "_written")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self._written = False

    def write(self, data: bytes) -> None:
        """The first data wait for the next, but no longer than until the loop has run once: a stream may be silent."""
        if not self._written:
            self._written, self._head = True, data
            self._loop.call_soon(self._flush)
        elif self._head:
            head, self._head = self._head, b""
            self._transport.writelines([head, data])
        else:
            self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)
