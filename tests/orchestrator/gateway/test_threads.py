"""Questions to a disk that may hang: one at a time for each key, and nobody waits for longer than their limit."""

import asyncio
import threading

import pytest

from orchestrator.contract.errors import UnavailableError
from orchestrator.gateway.threads import Questions

SILENT = "the disk has not answered within 0.05 s; try again later"


class Disk:
    """It hangs until `back` is set. asked: what it was asked."""

    def __init__(self):
        self.back, self.asked = threading.Event(), []

    def answer(self, question):
        self.asked.append(question)
        self.back.wait(60)
        return f"{question}!"


@pytest.fixture
def disk():
    disk = Disk()
    yield disk
    disk.back.set()


def test_the_same_is_asked_once_at_a_time_and_all_who_ask_get_the_answer(disk):
    questions = Questions("the disk", limit_s=60)

    async def ask():
        asking = [asyncio.create_task(questions.ask("a", lambda: disk.answer("a"))) for _ in range(5)]
        await asyncio.sleep(0)  # they have asked
        disk.back.set()
        return await asyncio.gather(*asking), await questions.ask("a", lambda: "another")

    assert asyncio.run(ask()) == (["a!"] * 5, "another")
    assert disk.asked == ["a"]


def test_a_disk_that_hangs_is_an_error_and_its_answer_counts_again_when_it_is_back(disk):
    questions = Questions("the disk", 1, limit_s=0.05)

    async def ask(key):
        return await questions.ask(key, lambda: disk.answer(key))

    async def ask_all():
        return await asyncio.gather(*map(ask, "aab"), return_exceptions=True)

    hung = [str(err) for err in asyncio.run(ask_all())]
    with pytest.raises(UnavailableError, match=SILENT):
        questions.wait("a", lambda: disk.answer("a"))
    disk.back.set()

    assert hung == [SILENT] * 3
    assert questions.wait("c", lambda: "c!") == "c!"
    assert disk.asked == ["a", "b"]


def test_what_the_disk_raises_is_raised():
    def fail():
        raise TimeoutError("of the disk itself")

    questions = Questions("the disk")

    with pytest.raises(TimeoutError, match="itself"):
        asyncio.run(questions.ask("a", fail))
    with pytest.raises(TimeoutError, match="itself"):
        questions.wait("a", fail)
