"""Images of a hot folder that are pushed, with a client that a test answers for."""

import errno
import os
from concurrent.futures import Future

import pytest

from orchestrator.contract.errors import UnavailableError
from orchestrator.contract.lines.answers import Answer
from orchestrator.hot_folder import pushing
from orchestrator.hot_folder.claims import Claim
from orchestrator.hot_folder.folders import open_hot_folder
from orchestrator.hot_folder.pushing import MOST_READS, Pusher
from orchestrator.hot_folder.results import Sorting
from tests.support.hot_folders import Scans


class FakeClient:
    """Remembers what was pushed, and answers nothing by itself."""

    def __init__(self):
        self.pushed = []

    def submit(self, image, item, *, deadline):
        future = Future()
        self.pushed.append((image, item, future))
        return future


@pytest.fixture
def scans(tmp_path):
    open_hot_folder(tmp_path / "scans")
    return Scans(tmp_path / "scans")


@pytest.fixture
def client():
    return FakeClient()


@pytest.fixture
def said():
    return []


@pytest.fixture
def pusher(client, said):
    return Pusher(client, 60.0, 3, Sorting(), lambda claim, name, ending: claim.end(name, ending), said.append)


def finish(pusher):
    """Until every answer is dealt with."""
    while pusher.num_pushes:
        pusher.collect(1.0)


def push_again(pusher, *, everything=False):
    for claim in pusher.due(everything=everything):
        pusher.push(claim)


def make_claim(scans, name, content):
    claim = Claim.make(open_hot_folder(scans.path), "6a", 1, "image")
    scans.drop(name, content)
    claim.take(name)
    return claim


def answer(future, **facts):
    future.set_result(Answer("x", 1, "1", **facts))


def test_the_same_claim_is_the_same_item(scans, client, pusher):
    claim = make_claim(scans, "ü\udcff.jpg", b"image")
    pusher.push(claim)
    pusher.push(Claim(claim.folder, claim.name))

    assert [item for _, item, _ in client.pushed] == ["ü\\xff.jpg@6a-1"] * 2


def test_a_file_that_was_written_to_meanwhile_goes_back(scans, client, pusher):
    claim = make_claim(scans, "a.jpg", b"image")
    pusher.push(claim)
    (claim.data / "a.jpg").write_bytes(b"another")
    answer(client.pushed[0][2])
    finish(pusher)

    assert scans.names("in") == ["a.jpg"]
    assert scans.names("done") == scans.names("working") == []


def test_a_conflict_means_that_it_was_changed_and_it_goes_back(scans, client, pusher):
    pusher.push(make_claim(scans, "a.jpg", b"image"))
    answer(client.pushed[0][2], reason="conflict")
    finish(pusher)

    assert scans.names("in") == ["a.jpg"]


def test_an_error_that_is_not_the_images_is_tried_again(scans, client, pusher, said):
    pusher.push(make_claim(scans, "a.jpg", b"image"))
    client.pushed[0][2].set_exception(UnavailableError("no server answers"))
    finish(pusher)
    push_again(pusher)
    assert (len(client.pushed), pusher.num_waiting, said) == (1, 1, ["a.jpg: no server answers; it is tried again"])

    push_again(pusher, everything=True)
    answer(client.pushed[1][2], label="a")
    finish(pusher)

    assert scans.sidecar("a.jpg")["label"] == "a"
    assert pusher.num_waiting == pusher.num_pushes == 0


@pytest.mark.parametrize(("number", "times"), [(errno.ESTALE, MOST_READS - 1), (errno.EMFILE, MOST_READS + 2)])
def test_a_file_that_the_disk_or_this_process_cannot_give_now_is_read_again(
    scans, client, pusher, said, monkeypatch, number, times
):
    fail_reads(monkeypatch, number, times)
    pusher.push(make_claim(scans, "a.jpg", b"image"))
    for _ in range(times):
        assert client.pushed == []
        push_again(pusher, everything=True)

    assert [image for image, *_ in client.pushed] == [b"image"]
    assert said == [f"a.jpg cannot be read: [Errno {number}] {os.strerror(number)}; it is tried again"] * times


def test_a_file_that_the_disk_never_gives_is_unreadable(scans, client, pusher, monkeypatch):
    fail_reads(monkeypatch, errno.EIO, MOST_READS)
    pusher.push(make_claim(scans, "a.jpg", b"image"))
    for _ in range(MOST_READS):
        push_again(pusher, everything=True)

    assert client.pushed == []
    assert scans.sidecar("a.jpg", "error")["error"] == "Input/output error"
    assert pusher.num_waiting == 0


def fail_reads(monkeypatch, number, times):
    """The first reads of images fail."""
    read, left = pushing._read, [OSError(number, os.strerror(number))] * times

    def failing(path):
        if left:
            raise left.pop()
        return read(path)

    monkeypatch.setattr(pushing, "_read", failing)


def test_a_small_file_is_told_and_not_pushed(scans, client, pusher):
    pusher.push(make_claim(scans, "a.jpg", b"xy"))

    assert client.pushed == []
    assert scans.sidecar("a.jpg", "error")["error"] == "2 bytes are fewer than the least, 3"


def test_a_link_is_not_followed(scans, client, pusher):
    claim = Claim.make(open_hot_folder(scans.path), "6a", 1, "image")
    (claim.data / "a.jpg").symlink_to("/etc/passwd")
    pusher.push(claim)

    assert client.pushed == []
    assert scans.names("error") == ["a.jpg", "a.jpg.json"]
    assert (scans.path / "error" / "a.jpg").is_symlink()
