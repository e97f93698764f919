"""The items of all controllers: kept, pushed to the line, and answered once for all that ask.

What makes that true: an item is in the spool before it is acknowledged, and its answer is there before it is sent; the
line gives an item and pass that is pushed again the answer that it has.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.lines.answers import Answer
from orchestrator.contract.lines.settings import LineSettings
from orchestrator.telegrams.messages import TelegramError
from orchestrator.telegrams.outbox import Outbox, PendingItem
from orchestrator.telegrams.spool import Facts, Spool

logger = logging.getLogger(__name__)

MOST_ITEMS = 20_000  # unfinished, of all controllers
MOST_BYTES = 256 << 20  # of images without an answer
MOST_CONTROLLERS = 1_000
LOOK_AGAIN_S = 1.0  # while the server is away
FORGOTTEN_S = 7 * 86_400.0  # a controller that has not fetched an answer for so long will not


LookUp = Callable[[str, int], Answer | None]
"""The record of an item and pass, on the server or in the home's files. Runs in a thread."""


class AsyncPushClient(Protocol):
    """What is needed of `AsyncLineClient`."""

    async def submit(
        self, image: bytes | str, item: str, pass_: int, *, deadline: float | None, triggered_at: float | None,
        by_path: bool,
    ) -> "asyncio.Future[Answer]": ...  # fmt: skip


class Items:
    """What is not finished, by controller, item and pass."""

    def __init__(
        self, spool: Spool, client: AsyncPushClient, settings: LineSettings, look_up: LookUp,
        faults: tuple[type[BaseException], ...],
    ) -> None:  # fmt: skip
        """faults: what `look_up` raises where the server is away."""
        self._look_up = look_up
        self._faults = faults
        self._resuming: set[asyncio.Task[None]] = set()
        self._spool = spool
        self._client = client
        self._settings = settings
        self._entries: dict[tuple[str, str, int], PendingItem] = {}
        self._outboxes: dict[str, Outbox] = {}
        self._num_bytes = 0
        self.num_unanswered = 0

    def outbox(self, controller: str) -> Outbox:
        """Where a controller's connections find its answers. Raises TelegramError where there are too many."""
        if controller not in self._outboxes and len(self._outboxes) >= MOST_CONTROLLERS:
            busy = {key[0] for key in self._entries}
            self._outboxes = {name: box for name, box in self._outboxes.items() if name in busy or box.num_users}
            if len(self._outboxes) >= MOST_CONTROLLERS:
                raise TelegramError(f"{MOST_CONTROLLERS} controllers have unacknowledged answers")
        return self._outbox_of(controller)

    def _outbox_of(self, controller: str) -> Outbox:
        """The same for what was acknowledged: that is never refused."""
        return self._outboxes.setdefault(controller, Outbox())

    async def restore(self) -> None:
        """Go on with what an earlier process has left."""
        for number, facts, values in list(self._spool.restore()):
            if values is not None and time.time() - facts.triggered_at > FORGOTTEN_S:
                logger.warning("item %r of %s was never acknowledged, and is forgotten", facts.item, facts.controller)
                self._spool.remove(number)
                continue
            entry = PendingItem(number, facts, values=values, again=True)
            self._entries[facts.key] = entry
            if values is not None:
                self._outbox_of(facts.controller).put(entry)
            else:
                self._resuming.add(task := asyncio.create_task(self._resume(entry)))
                task.add_done_callback(self._resuming.discard)

    async def _resume(self, entry: PendingItem) -> None:
        """An item of an earlier process. It was acknowledged, so it is answered, whatever is wrong with it."""
        try:
            await self._go_on_with(entry)
        except (PigeonholeError, OSError, ValueError, TypeError) as err:  # the line was changed, a file cannot be read
            self._keep_answer(entry, self._values_without(entry.facts, err))

    async def _go_on_with(self, entry: PendingItem) -> None:
        """Its record, if the line has one, else it is pushed again.

        Where its deadline is over the server is waited for: pushed without one, a client would decide alone.
        """
        facts = entry.facts
        while True:
            try:
                answer = await asyncio.to_thread(self._look_up, facts.item, facts.pass_)
            except self._faults:
                deadline_s = facts.deadline_s or self._settings.deadline_ms / 1000
                if time.time() < facts.triggered_at + deadline_s:
                    break
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            if answer is not None:
                self._keep_answer(entry, self._values_of(facts, answer))
                return
            break
        await self._push(entry, b"" if facts.path is not None else self._spool.image(entry.number))

    async def add(self, facts: Facts, image: bytes) -> None:
        """Take an item; it will be answered, whatever ends, when this returns. Raises TelegramError for a refusal.

        Pushing goes on where the caller's connection is cut meanwhile; a second sending of the item waits for the same.
        """
        entry = self._entries.get(facts.key)
        if entry is None:
            entry = self._keep(facts, image)
            entry.pushing = asyncio.create_task(self._push_new(entry, image))
        elif (entry.facts.digest, entry.facts.path) != (facts.digest, facts.path):
            raise TelegramError("this item and pass was sent before with another image, and waits for its answer")
        if entry.pushing is not None:
            await asyncio.shield(entry.pushing)

    def _keep(self, facts: Facts, image: bytes) -> PendingItem:
        """Put an item into the spool. Raises TelegramError where it is refused."""
        if len(self._entries) >= MOST_ITEMS or self._num_bytes + len(image) > MOST_BYTES:
            raise TelegramError("too many items are not finished: acknowledge their answers")
        try:
            entry = PendingItem(self._spool.add(facts, image), facts, size=len(image))
        except OSError as err:
            raise TelegramError(f"the item cannot be kept: {err.strerror}") from err
        self._entries[facts.key] = entry
        return entry

    async def _push_new(self, entry: PendingItem, image: bytes) -> None:
        """Raises TelegramError for a path outside of the line's roots, or a deadline out of range."""
        try:
            await self._push(entry, image)
        except (ValueError, TypeError) as err:
            self._forget(entry)
            raise TelegramError(" ".join(str(err).split())) from err
        except Exception:
            self._forget(entry)
            raise
        finally:
            entry.pushing = None

    def acknowledged(self, entry: PendingItem) -> None:
        """The controller has an answer."""
        self._forget(entry)

    async def _push(self, entry: PendingItem, image: bytes) -> None:
        facts = entry.facts
        self._num_bytes += entry.size
        try:
            future = await self._client.submit(
                image if facts.path is None else facts.path, facts.item, facts.pass_,
                deadline=facts.deadline_s, triggered_at=facts.triggered_at, by_path=facts.path is not None,
            )  # fmt: skip
        except BaseException:
            self._num_bytes -= entry.size
            raise
        self.num_unanswered += 1
        loop = asyncio.get_running_loop()  # one round later, so that the acknowledgement goes before the answer
        future.add_done_callback(lambda done: loop.call_soon(self._answered, entry, done))

    def _answered(self, entry: PendingItem, future: "asyncio.Future[Answer]") -> None:
        self._num_bytes -= entry.size
        self.num_unanswered -= 1
        entry.size = 0
        if future.cancelled():  # this process ends; the next one pushes it again
            return
        try:
            values = self._values_of(entry.facts, future.result())
        except (PigeonholeError, ValueError) as err:  # the line was removed, or its roots were changed
            values = self._values_without(entry.facts, err)
        self._keep_answer(entry, values)

    def _keep_answer(self, entry: PendingItem, values: Mapping[str, Any]) -> None:
        entry.values = values
        try:
            self._spool.answer(entry.number, entry.facts, values)
        except OSError as err:
            logger.warning(
                "item %s: its answer is not kept; after a restart it is asked for again: %s", entry.number, err
            )
        self._outbox_of(entry.facts.controller).put(entry)

    def _values_of(self, facts: Facts, answer: Answer) -> Mapping[str, Any]:
        """The fields of an answer: nothing that differs when it is pushed again, such as a time."""
        found = {
            "bin": answer.bin, "reason": answer.reason, "label": answer.label, "score": answer.score,
            "decision": answer.decision, "model": answer.model, "error": answer.error,
        }  # fmt: skip
        return {"item": facts.item, "pass": facts.pass_} | {
            name: value for name, value in found.items() if value is not None
        }

    def _values_without(self, facts: Facts, err: Exception) -> Mapping[str, Any]:
        """The fields where the line gives no answer."""
        why = {"bin": self._settings.fallback, "reason": "no_server", "error": " ".join(str(err).split())}
        return {"item": facts.item, "pass": facts.pass_} | why

    def unwritable(self, values: Mapping[str, Any], why: str) -> Mapping[str, Any]:
        """An answer whose bin the controller's fields cannot hold: the fallback bin, which was checked."""
        logger.error("an answer cannot be written: %s", why)
        return dict(values) | {"bin": self._settings.fallback, "reason": "no_bin"}

    def _forget(self, entry: PendingItem) -> None:
        self._entries.pop(entry.facts.key, None)
        self._spool.remove(entry.number)


def digest_of(image: bytes) -> str:
    """Tells two images of one item apart."""
    return hashlib.sha256(image).hexdigest()[:32]
