"""Items whose connection, file or line fails at the worst moment: what was acknowledged is answered all the same."""

import asyncio
import time

import pytest

from orchestrator.contract.errors import MessageError
from orchestrator.contract.lines.answers import Answer
from orchestrator.telegrams import items as module
from orchestrator.telegrams.items import Items
from orchestrator.telegrams.messages import TelegramError, checked
from orchestrator.telegrams.spool import Facts, Spool
from tests.support.line_worker import make_line

SETTINGS = make_line().settings
FACTS = Facts("belt", "4711", 1, "", 1.0, None, "/share/4711.jpg")


class SlowClient:
    """Takes a push once the test lets it, as one does that must look at a file on a slow share."""

    def __init__(self, error=None):
        self.let, self.error, self.pushed = asyncio.Event(), error, []

    async def submit(self, image, item, pass_, *, deadline, triggered_at, by_path):
        await self.let.wait()
        if self.error is not None:
            raise self.error
        self.pushed.append(item)
        future = asyncio.get_running_loop().create_future()
        future.set_result(Answer(item, pass_, "1"))
        return future


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path)
    yield made
    made.close()


def make_items(spool, client, look_up=lambda item, pass_: None):
    return Items(spool, client, SETTINGS, look_up, (ConnectionError,))


async def cut_while_pushing(items):
    """A connection brings the item, and is cut before the line's client has taken it."""
    task = asyncio.create_task(items.add(FACTS, b""))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_item_whose_connection_is_cut_while_it_is_pushed_is_pushed_and_answered(spool):
    async def main():
        client = SlowClient()
        items = make_items(spool, client)
        await cut_while_pushing(items)
        again = asyncio.create_task(items.add(FACTS, b""))
        client.let.set()
        await again
        entry = await items.outbox("belt").take(30)
        assert (client.pushed, entry.values["bin"]) == (["4711"], "1")

    asyncio.run(main())


def test_an_item_that_is_sent_again_while_the_first_is_refused_is_refused_too(spool, tmp_path):
    async def main():
        client = SlowClient(ValueError("it lies under no root"))
        items = make_items(spool, client)
        await cut_while_pushing(items)
        again = asyncio.create_task(items.add(FACTS, b""))
        client.let.set()
        with pytest.raises(TelegramError, match="under no root"):
            await again
        assert list(tmp_path.glob("*.item")) == []

    asyncio.run(main())


def test_an_acknowledged_item_whose_record_cannot_be_read_is_answered_after_a_restart(spool):
    def look_up(item, pass_):
        raise MessageError("the record of an answer has no key")

    async def main():
        spool.add(FACTS, b"")
        items = make_items(spool, SlowClient(), look_up)
        await items.restore()
        entry = await items.outbox("belt").take(30)
        assert (entry.values["bin"], entry.values["reason"]) == (SETTINGS.fallback, "no_server")

    asyncio.run(main())


def test_more_controllers_than_may_connect_are_restored(spool, monkeypatch):
    monkeypatch.setattr(module, "MOST_CONTROLLERS", 1)
    for name in ("belt-1", "belt-2"):
        facts = Facts(name, "1", 1, "", time.time(), None)
        spool.answer(spool.add(facts, b"x"), facts, {"item": "1", "pass": 1, "bin": "1"})

    async def main():
        items = make_items(spool, SlowClient())
        await items.restore()
        assert [(await items.outbox(name).take(30)).facts.controller for name in ("belt-1", "belt-2")] == [
            "belt-1", "belt-2",
        ]  # fmt: skip
        with pytest.raises(TelegramError, match="1 controllers"):
            items.outbox("belt-3")

    asyncio.run(main())


@pytest.mark.parametrize("name", ["deadline_ms", "age_ms", "pass", "bytes"])
def test_a_number_that_no_float_holds_is_refused(name):
    with pytest.raises(TelegramError, match=f"{name} is a whole number up to"):
        checked("item", 1, {"item": "1", "bytes": 1} | {name: 10**400})
