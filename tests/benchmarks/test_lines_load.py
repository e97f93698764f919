"""The load generator of lines with a system that answers at once, and what is made of its records."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from benchmarks.lines.load import Finished, Load, Records, Sender
from benchmarks.lines.load_http import HttpTarget
from benchmarks.lines.runs import Outcome


class AtOnce:
    """Answers each request at the next call, at the time that it was due; remembers the most in flight."""

    def __init__(self) -> None:
        self.images: list[bytes] = []
        self.most = 0
        self._waiting: list[Finished] = []

    def submit(self, number: int, image: bytes, deadline_ms: int, due: float) -> None:
        self.images.append(image)
        self._waiting.append(Finished(number, due, "bin-1"))
        self.most = max(self.most, len(self._waiting))

    def wait(self, seconds: float) -> list[Finished]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def close(self) -> None: ...


def sender(load: Load, target: AtOnce, stopping: threading.Event | None = None) -> Sender:
    return Sender(load, target, [b"a", b"b"], stopping or threading.Event())


def outcome(records: Records) -> Outcome:
    texts = {name: np.asarray(values) for name, values in records.texts.items()}
    return Outcome(
        due=records.due, deadline_ms=records.deadline_ms, sent=records.sent, done=records.done,
        decisions=records.decisions, predicted=records.predicted, cpu_s=0.0, **texts,
    )  # fmt: skip


def finished_records() -> Records:
    """Accepted in time, accepted late, refused, twice answered, and never answered."""
    records = Records(np.zeros(5), np.full(5, 100))
    records.sent[:] = 0.0
    records.add(Finished(0, 0.05, "bin-1"))
    records.add(Finished(1, 0.15, "bin-1"))
    records.add(Finished(2, 0.1, "fallback", "busy", predicted=False))
    records.add(Finished(3, 0.05, "bin-1"))
    records.add(Finished(3, 0.06, "bin-2"))
    return records


def test_a_closed_loop_keeps_its_window_full_and_pushes_images_in_turns():
    target = AtOnce()

    run = sender(Load("line", "", "", "", "x", window=4, count=10), target)
    run.run()

    assert target.most == 4
    assert target.images == [b"a", b"b"] * 5
    assert outcome(run.records).problems() == []
    assert outcome(run.records).num_sent == 10


def test_an_open_loop_sends_at_the_given_times_and_latency_counts_from_them(tmp_path):
    np.save(tmp_path / "due.npy", np.asarray([0.0, 0.01, 0.02]))
    np.save(tmp_path / "deadlines.npy", np.asarray([100, 400, 100]))
    load = Load("line", "", "", "", "x", due_s=f"{tmp_path}/due.npy", deadline_ms=f"{tmp_path}/deadlines.npy")

    run = sender(load, AtOnce())
    run.run()

    found = outcome(run.records)
    assert np.diff(found.due) == pytest.approx([0.01, 0.01])
    assert (found.sent >= found.due - 0.001).all()
    assert found.latency_ms.tolist() == [0, 0, 0]
    assert found.deadline_ms.tolist() == [100, 400, 100]


def test_a_load_that_is_stopped_sends_no_more():
    stopping = threading.Event()
    stopping.set()

    run = sender(Load("line", "", "", "", "x", window=4, count=10), AtOnce(), stopping)
    run.run()

    assert outcome(run.records).num_sent == 0


def test_an_outcome_tells_in_time_from_late_refused_and_unanswered():
    found = outcome(finished_records())

    assert found.in_time.tolist() == [True, False, False, True, False]
    assert found.admitted.tolist() == [True, True, False, True, True]
    assert found.lateness_ms[:4] == pytest.approx([-50, 50, 0, -50])
    assert found.reasons() == {"accept": 4, "busy": 1}
    assert found.problems() == ["1 of 5 without a decision", "1 with two decisions"]
    assert found.bin[3] == "bin-1"


def test_what_failed_is_a_problem():
    records = Records(np.zeros(1), np.full(1, 100))
    records.sent[:] = 0.0
    records.add(Finished(0, 0.05, error="status 500", predicted=False))

    assert outcome(records).problems() == ["1 failed: status 500"]


class Echo(BaseHTTPRequestHandler):
    """Answers with the body; an image `bad` is an error."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(500 if body == b"bad" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def echo():
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/predict"
        server.shutdown()
        thread.join()


def test_requests_in_flight_each_have_a_connection_that_is_used_again():
    with echo() as url:
        target, found = HttpTarget(url), {}
        for number in range(3):
            target.submit(number, b"x" * 200_000, 100, 0.0)
        while len(found) < 3:
            found |= {each.number: each.error for each in target.wait(1.0)}
        target.submit(3, b"bad", 100, 0.0)
        while len(found) < 4:
            found |= {each.number: each.error for each in target.wait(1.0)}
        num_connections = len(target._selector.get_map())
        target.close()

    assert found == {0: "", 1: "", 2: "", 3: "status 500"}
    assert num_connections == 3
