"""Questions to a disk that may hang: one at a time for each key, and nobody waits for longer than their limit."""

import asyncio
import subprocess
import sys
import threading

import pytest

from orchestrator.contract.errors import UnavailableError
from orchestrator.gateway import threads
from orchestrator.gateway.threads import MOST_CALLS, Calls, Questions, QuestionsOfRoots
from tests.support.server import wait_until

SILENT = "the disk has not answered within 0.5 s; try again later"


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
    questions = Questions("the disk", 1, limit_s=0.5)

    async def ask(key):
        return await questions.ask(key, lambda: disk.answer(key))

    async def ask_all():
        return await asyncio.gather(*map(ask, "aa"), return_exceptions=True)

    hung = [str(err) for err in asyncio.run(ask_all())]
    with pytest.raises(UnavailableError, match=SILENT):
        questions.wait("a", lambda: disk.answer("a"))
    disk.back.set()

    assert hung == [SILENT] * 2
    wait_until(lambda: not questions._pending, what="the disk has answered")
    questions._limit_s = 60
    assert questions.wait("a", lambda: disk.answer("a")) == "a!"
    assert disk.asked == ["a", "a"]


def test_what_nobody_waits_for_any_more_is_not_asked_when_its_turn_comes(disk):
    questions = Questions("the disk", 1, limit_s=60)
    questions._put("a", lambda: disk.answer("a"))
    wait_until(lambda: disk.asked, what="the disk is asked")
    questions._limit_s = 0.5

    for key in "bc":
        with pytest.raises(UnavailableError, match=SILENT):
            questions.wait(key, lambda key=key: disk.answer(key))
    disk.back.set()

    wait_until(lambda: not questions._pending, what="the disk has answered")
    assert disk.asked == ["a"]


def test_questions_wait_for_one_of_the_threads_and_idle_threads_end(disk, monkeypatch):
    monkeypatch.setattr(threads, "IDLE_S", 0.01)
    questions = Questions("the disk", 2, limit_s=60)

    async def ask():
        asking = [asyncio.create_task(questions.ask(key, lambda key=key: disk.answer(key))) for key in "abcd"]
        await asyncio.to_thread(wait_until, lambda: len(disk.asked) == 2, what="both threads ask")
        waiting = len(questions._queue)
        disk.back.set()
        return waiting, await asyncio.gather(*asking)

    assert asyncio.run(ask()) == (2, ["a!", "b!", "c!", "d!"])
    wait_until(lambda: questions._num_threads == 0, what="the threads end")
    assert questions.wait("e", lambda: "e!") == "e!"


def test_calls_of_one_kind_that_wait_are_bounded(disk):
    calls = Calls("the disk", 1)
    for _ in range(MOST_CALLS):
        calls.begin(lambda: disk.answer("a"))

    with pytest.raises(UnavailableError, match="100 questions to the disk wait already"):
        asyncio.run(calls.run(disk.answer, "b"))
    calls.begin(lambda: disk.answer("c"))  # left out
    disk.back.set()

    wait_until(lambda: not calls._pending, what="the disk has answered")
    assert disk.asked == ["a"] * MOST_CALLS


def test_a_disk_that_hangs_keeps_no_process_from_ending():
    code = (
        "import threading\n"
        "from orchestrator.gateway.threads import Questions\n"
        "from orchestrator.contract.errors import UnavailableError\n"
        "try:\n"
        "    Questions('the disk', limit_s=0.5).wait('a', threading.Event().wait)\n"
        "except UnavailableError:\n"
        "    print('ends')\n"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert (ended.stdout, ended.returncode) == ("ends\n", 0), ended.stderr


def test_what_the_disk_raises_is_raised():
    def fail():
        raise TimeoutError("of the disk itself")

    questions = Questions("the disk")

    with pytest.raises(TimeoutError, match="itself"):
        asyncio.run(questions.ask("a", fail))
    with pytest.raises(TimeoutError, match="itself"):
        questions.wait("a", fail)


def test_each_root_has_threads_of_its_own_until_there_are_too_many(monkeypatch):
    monkeypatch.setattr(threads, "MOST_ROOTS", 2)
    roots = QuestionsOfRoots("the disk", 1, limit_s=60)
    first, second = roots.of("/a"), roots.of("/b")

    assert len({first, second, roots.of("/c")}) == 3
    assert (roots.of("/a"), roots.of("/b"), roots.of("/d")) == (first, second, roots.of("/c"))
