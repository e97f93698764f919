import getpass
import socket

import pytest

from orchestrator.contract.jobs import history
from orchestrator.contract.jobs.history import Event, note, note_trouble, read_history
from tests.support.fakes import make_job


@pytest.fixture
def folder(settings, tmp_path):
    return make_job(settings, ["a.jpg"], root=tmp_path, output=tmp_path / "out.csv")


def told(folder):
    return [(event.event, dict(event.facts)) for event in read_history(folder)]


def test_events_come_back_in_their_order_with_who_and_when(folder):
    note(folder, "submitted")
    note(folder, "ended", by="w1", state="failed", error=None, num_images=3)

    first, second = read_history(folder)

    assert (first.event, first.by) == ("submitted", f"{getpass.getuser()}@{socket.gethostname()}")
    assert (second.by, second.event, second.facts) == ("w1", "ended", {"state": "failed", "num_images": 3})
    assert first.at <= second.at
    assert first.at.endswith("+00:00")


def test_a_job_without_a_history_has_none(folder):
    assert read_history(folder) == []


def test_a_trouble_that_stays_is_one_event(folder):
    for text in ("disk full", "disk full", "no such model", "disk full"):
        note_trouble(folder, text, by="w1")

    assert told(folder) == [("trouble", {"text": text}) for text in ("disk full", "no such model", "disk full")]


def test_half_a_line_costs_one_event(folder):
    note(folder, "submitted")
    with folder.history.open("ab") as file:
        file.write(b'{"at": "2026\n[1]\n\xff\n')
    note(folder, "cancelled")

    assert [event for event, _ in told(folder)] == ["submitted", "cancelled"]


def test_the_file_is_bounded_and_troubles_go_first(folder, monkeypatch):
    monkeypatch.setattr(history, "MOST_BYTES", 3000)
    monkeypatch.setattr(history, "MOST_TROUBLE_BYTES", 1000)
    for number in range(50):
        note_trouble(folder, f"trouble {number} {'x' * 5000}", by="w1")
    note(folder, "cancelled")
    for _ in range(100):
        note(folder, "resumed")

    events = [event for event, _ in told(folder)]

    assert (events[0], events[-1], "cancelled" in events) == ("trouble", "resumed", True)
    assert folder.history.stat().st_size < 4500


def test_a_history_that_cannot_be_written_or_read_costs_nothing(folder):
    folder.history.mkdir()

    note(folder, "submitted")
    note_trouble(folder, "disk full", by="w1")

    assert read_history(folder) == []


def test_a_user_without_a_name_is_a_number(monkeypatch):
    def nobody():
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)

    assert history.operator().partition("@")[0].isdecimal()


def test_a_user_whose_name_is_not_utf8_is_written_as_text(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "rene\udce9")

    assert history.operator().startswith("rene\\xe9@")


def test_an_event_is_what_its_line_says(folder):
    folder.history.write_text(
        '{"at": "2026-11-29T08:00:00+00:00", "by": "ada@office", "event": "paused", "reason": "x"}\n'
    )

    assert read_history(folder) == [Event("2026-11-29T08:00:00+00:00", "ada@office", "paused", {"reason": "x"})]
