"""One connection of a controller: telegrams in, acknowledgements and answers out, each acknowledged before the next."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.telegrams.items import Items, digest_of
from orchestrator.telegrams.messages import Form, Kind, Telegram, TelegramError
from orchestrator.telegrams.outbox import Outbox, PendingItem
from orchestrator.telegrams.spool import Facts

logger = logging.getLogger(__name__)

LONGEST_TELEGRAM = 8192  # bytes, without an image
ACK_S = 5.0  # a controller that does not acknowledge for so long is cut off, and gets the answer again
BODY_S = 10.0  # for the bytes of an image
SEND_S = 5.0  # for a peer that reads nothing
CLOSE_S = 1.0
SILENT_BEATS = 3  # without a telegram for so many heartbeats the peer counts as gone
LARGE_BYTES, MOST_LARGE = 1 << 20, 8  # images that are read at once
_CONTROLLER = re.compile(r"[A-Za-z0-9._:-]{1,64}")

Discharge = Callable[[str, int, str], None]
"""Reports where an item went; raises what the server raises. Runs in a thread."""


@dataclass(frozen=True)
class Terms:
    """What all connections share."""

    form: Form
    items: Items
    discharge: Discharge
    faults: tuple[type[BaseException], ...]  # that `discharge` raises where the server is away
    heartbeat_s: float
    max_image_bytes: int
    large: asyncio.Semaphore


class _CutError(Exception):
    """The connection ends: what follows could not be read as telegrams."""


class Connection:
    """Serves one peer until it is gone. address: its name, unless it says hello."""

    def __init__(self, terms: Terms, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        self._terms = terms
        self._form = terms.form
        self._reader = reader
        self._writer = writer
        self._controller = address
        self._last = 0  # sequence number of the peer's last telegram; 0: none yet
        self._sent = 0  # of ours
        self._acked = asyncio.Event()
        self._sending = asyncio.Lock()
        self._known = asyncio.Event()  # who the peer is: nothing is sent before

    async def serve(self) -> None:
        """Read telegrams and send answers, until one of both ends."""
        tasks = [asyncio.create_task(self._read_all()), asyncio.create_task(self._send_all())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                err = task.exception()
                if err is not None and not isinstance(
                    err, (OSError, _CutError, TimeoutError, asyncio.IncompleteReadError)
                ):
                    logger.error("connection of %s", self._controller, exc_info=err)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._writer.close()  # what was said last is sent
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._writer.wait_closed()
            self._writer.transport.abort()

    # In

    async def _read_all(self) -> None:
        while True:
            try:
                telegram = self._form.decode(await self._read_frame())
            except TelegramError as err:
                await self._say("nak", 0, error=str(err))
                raise _CutError(str(err)) from err
            if telegram.kind == "ack":
                if telegram.seq == self._sent:
                    self._acked.set()
            elif telegram.kind != "alive":
                await self._take(telegram)
            if telegram.kind != "hello":
                self._known.set()

    async def _read_frame(self) -> bytes:
        try:
            async with asyncio.timeout(SILENT_BEATS * self._terms.heartbeat_s):
                content = await self._reader.readuntil(self._form.end)
        except asyncio.LimitOverrunError as err:
            raise TelegramError(f"a telegram has {LONGEST_TELEGRAM} bytes at most") from err
        content = content[: -len(self._form.end)].strip(b"\r\n")
        if not content.startswith(self._form.start):
            raise TelegramError("a telegram does not begin with its first byte")
        return content[len(self._form.start) :]

    async def _take(self, telegram: Telegram) -> None:
        """A telegram that is acknowledged: it is in the spool, or done, then."""
        image = await self._read_image(telegram)
        try:
            following = self._last % self._form.most_seq + 1
            if self._last and telegram.seq not in (self._last, following):
                raise TelegramError(f"seq {telegram.seq} came, {following} was expected")
            await self._do(telegram, image)
        except TelegramError as err:
            await self._say("nak", telegram.seq, error=str(err))
        else:
            self._last = telegram.seq
            await self._say("ack", telegram.seq)

    async def _read_image(self, telegram: Telegram) -> bytes:
        """The bytes behind a telegram. Ends the connection where there are more than the line takes."""
        size = telegram.values.get("bytes", 0)
        if size > self._terms.max_image_bytes:
            await self._say("nak", telegram.seq, error=f"the line takes {self._terms.max_image_bytes} bytes at most")
            raise _CutError("too many bytes")
        if not size:
            return b""
        async with contextlib.AsyncExitStack() as stack:
            if size > LARGE_BYTES:
                await stack.enter_async_context(self._terms.large)
            async with asyncio.timeout(BODY_S):
                return await self._reader.readexactly(size)

    async def _do(self, telegram: Telegram, image: bytes) -> None:
        values = telegram.values
        if telegram.kind == "hello":
            self._hello(values["controller"])
        elif telegram.kind == "item":
            self._terms.items.outbox(self._controller)  # before it is taken: its answer must have a place
            self._known.set()
            await self._terms.items.add(self._facts(values, image), image)
        elif telegram.kind == "discharged":
            try:
                await asyncio.to_thread(
                    self._terms.discharge, values["item"], _pass_of(values), values["bin"]
                )  # fmt: skip
            except self._terms.faults as err:
                raise TelegramError("the server does not answer; send it again") from err
            except ValueError as err:
                raise TelegramError(str(err)) from err
        else:
            raise TelegramError(f"a controller does not send {telegram.kind}")

    def _hello(self, controller: str) -> None:
        if self._known.is_set() and controller != self._controller:
            raise TelegramError("hello comes first")
        if not _CONTROLLER.fullmatch(controller):
            raise TelegramError(f"a controller's name is 1 to 64 of A-Z a-z 0-9 . _ : -, not {controller[:80]!r}")
        self._terms.items.outbox(controller)
        self._controller = controller
        self._known.set()

    def _facts(self, values: Any, image: bytes) -> Facts:
        deadline_ms = values.get("deadline_ms") or None
        return Facts(
            self._controller, values["item"], _pass_of(values), digest_of(image) if "path" not in values else "",
            triggered_at=time.time() - values.get("age_ms", 0) / 1000,
            deadline_s=None if deadline_ms is None else deadline_ms / 1000, path=values.get("path"),
        )  # fmt: skip

    # Out

    async def _send_all(self) -> None:
        """Answers as they come, each acknowledged before the next, and heartbeats in between."""
        async with asyncio.timeout(SILENT_BEATS * self._terms.heartbeat_s):
            await self._known.wait()
        outbox = self._terms.items.outbox(self._controller)
        outbox.num_users += 1
        try:
            while True:
                entry = await outbox.take(self._terms.heartbeat_s)
                if entry is None:
                    await self._say("alive", 0)
                else:
                    await self._send_answer(outbox, entry)
        finally:
            outbox.num_users -= 1

    async def _send_answer(self, outbox: Outbox, entry: PendingItem) -> None:
        seq = self._sent % self._form.most_seq + 1
        values = dict(entry.values or {}) | ({"again": 1} if entry.again else {})
        try:
            data = self._encode("answer", seq, values)
        except TelegramError as err:  # the fields were changed since the item came; others must not wait for it
            logger.warning(
                "item %r: its answer stays in the spool, since it cannot be written: %s", entry.facts.item, err
            )
            return
        try:
            self._acked.clear()
            self._sent = seq
            await self._write(data)
            async with asyncio.timeout(ACK_S):
                await self._acked.wait()
        except BaseException:
            outbox.put_back(entry)
            raise
        self._terms.items.acknowledged(entry)

    async def _say(self, kind: Kind, seq: int, **values: Any) -> None:
        await self._write(self._encode(kind, seq, values))

    def _encode(self, kind: Kind, seq: int, values: Mapping[str, Any]) -> bytes:
        try:
            return self._form.encode(Telegram(kind, seq, values))
        except TelegramError as err:
            return self._form.encode(Telegram(kind, seq, self._terms.items.unwritable(values, str(err))))

    async def _write(self, data: bytes) -> None:
        async with self._sending:
            self._writer.write(data)
            async with asyncio.timeout(SEND_S):
                await self._writer.drain()


def _pass_of(values: Any) -> int:
    return int(values.get("pass", 1)) or 1
