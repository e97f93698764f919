"""Streams of events: one poll for all viewers, and ends that nothing hangs."""

import asyncio
from collections.abc import Callable

import pytest

from orchestrator.contract.errors import NotFoundError, UnavailableError
from orchestrator.gateway.jobs import events
from orchestrator.gateway.jobs.events import EventStream, JobEvent, JobWatches

PATIENCE_S = 30.0


class Job:
    """A job whose state the test sets; counts the looks at it."""

    def __init__(self) -> None:
        self.now: JobEvent | Exception = JobEvent("1", "one", False)
        self.num_looks = 0

    def set(self, number: int, *, final: bool = False) -> None:
        self.now = JobEvent(str(number), f"state {number}", final)

    async def look(self) -> JobEvent:
        self.num_looks += 1
        if isinstance(self.now, Exception):
            raise self.now
        return self.now


class Viewer:
    """One who reads a stream, like a browser."""

    def __init__(
        self, watches: JobWatches, *, last_id: str | None = None, stopping: asyncio.Event | None = None
    ) -> None:
        self.sent: list[dict] = []
        self._gone = asyncio.Event()
        self._stalled = False
        stream = EventStream(watches, "job", last_id, stopping or asyncio.Event())
        self.task = asyncio.create_task(stream({"type": "http", "headers": []}, self._receive, self._send))

    async def _receive(self):
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        while self._stalled:
            await asyncio.sleep(3600)
        self.sent.append(message)

    def leave(self) -> None:
        self._gone.set()

    def stall(self) -> None:
        self._stalled = True

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def ids(self) -> list[str]:
        return [line.removeprefix("id: ") for line in self.text.splitlines() if line.startswith("id: ")]

    async def sees(self, *ids: str) -> None:
        await until(lambda: self.ids == list(ids))

    async def end(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(events, "POLL_S", 0.002)


def run(scenario) -> None:
    asyncio.run(scenario())


def test_viewers_share_one_poll_and_see_every_state_until_the_end():
    async def scenario():
        job = Job()
        watches = JobWatches(lambda name: job.look)
        viewers = [Viewer(watches) for _ in range(20)]
        for viewer in viewers:
            await viewer.sees("1")
        looks_before = job.num_looks
        job.set(2)
        for viewer in viewers:
            await viewer.sees("1", "2")
        assert job.num_looks - looks_before < 20 * len(viewers)  # else each polled by itself
        assert len({id(watch) for watch in watches._watches.values()}) == 1
        job.set(3, final=True)
        for viewer in viewers:
            await viewer.end()

        assert {viewer.text for viewer in viewers} == {
            "retry: 2000\n\n"
            "id: 1\nevent: progress\ndata: one\n\n"
            "id: 2\nevent: progress\ndata: state 2\n\n"
            "id: 3\nevent: end\ndata: state 3\n\n"
        }
        assert viewers[0].sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
        assert watches.num_viewers == 0

    run(scenario)


def test_nobody_polls_a_job_that_nobody_views():
    async def scenario():
        job = Job()
        watches = JobWatches(lambda name: job.look)
        viewer = Viewer(watches)
        await viewer.sees("1")
        task = watches._watches["job"].task

        viewer.leave()
        await viewer.end()

        await until(task.done)
        assert watches._watches == {}

    run(scenario)


def test_one_that_comes_again_gets_only_what_it_has_not():
    async def scenario():
        job = Job()
        watches = JobWatches(lambda name: job.look)
        again, fresh = Viewer(watches, last_id="1"), Viewer(watches, last_id="0")
        await fresh.sees("1")
        job.set(2, final=True)
        await again.end()
        await fresh.end()

        assert (again.ids, fresh.ids) == (["2"], ["1", "2"])

    run(scenario)


def test_one_that_has_the_end_is_told_not_to_come_again():
    async def scenario():
        job = Job()
        job.set(9, final=True)
        viewer = Viewer(JobWatches(lambda name: job.look), last_id="9")
        await viewer.end()

        assert (viewer.status, viewer.text) == (204, "")

    run(scenario)


def test_silence_is_filled(monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.005)

    async def scenario():
        viewer = Viewer(JobWatches(lambda name: Job().look))
        await until(lambda: viewer.text.count(": no change\n\n") >= 3)
        viewer.leave()
        await viewer.end()

        assert viewer.ids == ["1"]

    run(scenario)


def test_a_gateway_that_stops_ends_its_streams():
    async def scenario():
        stopping = asyncio.Event()
        watches = JobWatches(lambda name: Job().look)
        viewer = Viewer(watches, stopping=stopping)
        await viewer.sees("1")

        stopping.set()
        await viewer.end()

        assert viewer.sent[-1]["more_body"] is False
        assert watches.num_viewers == 0

    run(scenario)


def test_a_viewer_that_takes_nothing_is_cut_off_and_holds_up_no_other(monkeypatch):
    monkeypatch.setattr(events, "SEND_S", 0.05)

    async def scenario():
        job = Job()
        watches = JobWatches(lambda name: job.look)
        stalled, other = Viewer(watches), Viewer(watches)
        await stalled.sees("1")
        stalled.stall()
        job.set(2)
        await other.sees("1", "2")
        await stalled.end()

        assert stalled.ids == ["1"]
        assert watches.num_viewers == 1
        other.leave()
        await other.end()

    run(scenario)


def test_a_job_that_is_not_there_is_an_error_before_the_stream_begins():
    async def scenario():
        job = Job()
        job.now = NotFoundError("there is no job")
        watches = JobWatches(lambda name: job.look)
        viewer = Viewer(watches)
        with pytest.raises(NotFoundError):
            await viewer.end()

        assert (viewer.sent, watches.num_viewers) == ([], 0)

    run(scenario)


def test_a_job_that_is_removed_while_it_is_viewed_ends_the_stream():
    async def scenario():
        job = Job()
        viewer = Viewer(JobWatches(lambda name: job.look))
        await viewer.sees("1")
        job.now = NotFoundError("there is no job")
        await viewer.end()

        assert viewer.sent[-1]["more_body"] is False

    run(scenario)


def test_the_number_of_streams_is_bounded(monkeypatch):
    monkeypatch.setattr(events, "MOST_VIEWERS", 1)

    async def scenario():
        watches = JobWatches(lambda name: Job().look)
        first = Viewer(watches)
        await first.sees("1")
        second = Viewer(watches)
        with pytest.raises(UnavailableError, match="1 streams of events are open"):
            await second.end()
        first.leave()
        await first.end()

    run(scenario)
