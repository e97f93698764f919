"""Ranges and versions of files, without a socket."""

import asyncio
import contextlib
import io
import itertools
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from orchestrator.contract.errors import UnavailableError
from orchestrator.gateway.jobs.files import Conditions, FileAnswer, FileFacts, Part, parse_range
from orchestrator.gateway.problems import ProblemError
from orchestrator.gateway.threads import Questions
from tests.support.server import wait_until

DATA = bytes(range(256)) * 2000  # more than one chunk
FACTS = FileFacts(len(DATA), "v1", "Sun, 29 Nov 2026 05:00:00 GMT")
READERS = Questions("the disk", 1)


async def stay():
    """A client that does not hang up."""
    await asyncio.Event().wait()


class File(io.BytesIO):
    """A file whose disk hangs until `back` is set, where `hangs` is set. num_reads: of it."""

    def __init__(self, *, hangs: bool = False) -> None:
        super().__init__(DATA)
        self.back, self.num_reads = threading.Event(), 0
        if not hangs:
            self.back.set()

    def read(self, size: int | None = -1, /) -> bytes:
        self.num_reads += 1
        self.back.wait(60)
        return super().read(size)


def ask(method: str = "GET", **conditions: str) -> tuple[int, Headers, bytes]:
    """The status, headers and body of an answer."""
    sent = []

    async def send(message):
        sent.append(message)

    answer = FileAnswer(io.BytesIO(DATA), FACTS, {"content-type": "text/csv"}, Conditions(**conditions), READERS)
    asyncio.run(answer({"type": "http", "method": method, "headers": []}, stay, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], Headers(raw=sent[0]["headers"]), body


def test_the_whole_file_with_what_is_needed_to_ask_again():
    status, headers, body = ask()

    assert (status, body) == (200, DATA)
    assert (headers["content-length"], headers["etag"], headers["accept-ranges"]) == (str(len(DATA)), '"v1"', "bytes")


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=511990-", 511_990, 512_000),
        ("bytes=-7", 511_993, 512_000),
        ("bytes=10-99999999999", 10, 512_000),
        ("bytes=-999999999", 0, 512_000),
    ],
)
def test_a_range_is_that_part_of_the_file(header, start, end):
    status, headers, body = ask(range=header)

    assert (status, body) == (206, DATA[start:end])
    assert headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert headers["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "header", ["bytes=9-5", "bytes=", "bytes=a-b", "lines=1-2", "bytes=1-2,5-6", "bytes=-", "", "5"]
)
def test_what_is_no_single_range_gets_the_whole_file(header):
    status, _, body = ask(range=header)

    assert (status, body) == (200, DATA)


@pytest.mark.parametrize("header", ["bytes=512000-", "bytes=600000-700000", "bytes=-0"])
def test_a_range_behind_the_end_is_refused_with_the_size(header):
    with pytest.raises(ProblemError) as raised:
        ask(range=header)

    assert (raised.value.status_code, raised.value.headers) == (416, {"content-range": "bytes */512000"})


RANGES = st.one_of(st.text(max_size=30), st.from_regex(r"bytes=\d{0,19}-\d{0,19}", fullmatch=True))


@given(header=RANGES, size=st.integers(0, 10**6))
def test_every_header_gives_a_part_inside_the_file_or_the_whole_of_it(header, size):
    with contextlib.suppress(ProblemError):  # behind the end
        part = parse_range(header, size)
        assert part is None or 0 <= part.start < part.end <= size


def test_a_range_of_another_version_gets_the_whole_file():
    assert ask(range="bytes=0-3", if_range='"v0"')[0] == 200
    assert ask(range="bytes=0-3", if_range="Sun, 29 Nov 2026 04:00:00 GMT")[0] == 200
    assert ask(range="bytes=0-3", if_range='"v1"')[0] == 206
    assert ask(range="bytes=0-3", if_range=FACTS.modified)[0] == 206


@pytest.mark.parametrize("tags", ['"v1"', 'W/"v1"', '"v0", "v1"', "*"])
def test_a_client_that_has_the_file_gets_nothing(tags):
    status, headers, body = ask(if_none_match=tags)

    assert (status, headers["etag"], body) == (304, '"v1"', b"")


def test_head_tells_the_same_without_a_body():
    status, headers, body = ask("HEAD")

    assert (status, headers["content-length"], body) == (200, str(len(DATA)), b"")


def test_parts_joined_are_the_file():
    edges = [0, 1, 70_000, 300_000, len(DATA)]

    parts = [ask(range=f"bytes={start}-{end - 1}")[2] for start, end in itertools.pairwise(edges)]

    assert b"".join(parts) == DATA
    assert parse_range("bytes=1-69999", len(DATA)) == Part(1, 70_000)


def test_a_file_is_not_read_on_for_a_client_that_has_gone():
    async def download():
        gone, file = asyncio.Event(), File()

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if "body" in message:
                gone.set()
                await stay()

        answer = FileAnswer(file, FACTS, {}, Conditions(), READERS)
        async with asyncio.timeout(60):
            await answer({"type": "http", "method": "GET", "headers": []}, receive, send)
        return file

    file = asyncio.run(download())

    assert file.num_reads == 1
    wait_until(lambda: file.closed, what="the file is closed")


def test_a_disk_that_hangs_ends_a_download_and_keeps_nothing_else_waiting():
    sent, file = [], File(hangs=True)

    async def send(message):
        sent.append(message)

    answer = FileAnswer(file, FACTS, {}, Conditions(), Questions("the disk", 1, limit_s=0.5))
    with pytest.raises(UnavailableError, match="the disk has not answered"):
        asyncio.run(answer({"type": "http", "method": "GET", "headers": []}, stay, send))
    file.back.set()

    assert [message["type"] for message in sent] == ["http.response.start"]


def test_the_facts_are_those_of_the_system(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    os.utime(path, (0, 0))

    assert FileFacts.of(path.stat(), "t") == FileFacts(5, "t", "Thu, 01 Jan 1970 00:00:00 GMT")
