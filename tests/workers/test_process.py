"""A worker's parent process: how its start fails, and how signals stop it."""

import signal

import pytest
from click.testing import CliRunner

from orchestrator.contract.errors import ExitCode
from workers import process
from workers.draining import EndFlags
from workers.process import StopSignals


def test_a_worker_whose_server_goes_away_while_it_starts_ends_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", f"unix://:secret@{tmp_path}/none.sock")
    monkeypatch.setattr(process, "require_answer", lambda client, url: None)  # it answers, and is gone a moment later

    result = CliRunner().invoke(process.main, ["--device", "cpu"])

    assert result.exit_code == ExitCode.UNAVAILABLE
    assert result.stderr.startswith("error: the server went away while the worker started: ")
    assert result.stderr.endswith("; start it again\n")
    assert "secret" not in result.stderr


@pytest.fixture
def stopped():
    """The signals after which Celery would stop warmly."""
    return []


@pytest.fixture
def signals(tmp_path, stopped):
    """The handler of a worker whose run folder is not there."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    made = StopSignals(EndFlags(tmp_path / "run"))
    made.install()
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_stops_the_worker_and_its_pool_child_learns_of_it(signals, stopped, tmp_path):
    (tmp_path / "run").mkdir()

    signal.raise_signal(signal.SIGTERM)

    assert stopped == [signal.SIGTERM]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"drain", "hurry"}


def test_a_signal_stops_a_worker_whose_run_folder_takes_no_writes(signals, stopped, caplog):
    signal.raise_signal(signal.SIGINT)

    assert (stopped, signals.received) == ([signal.SIGINT], True)
    assert "No such file or directory" in caplog.text


def test_a_second_signal_stops_a_worker_immediately_also_where_the_first_left_no_file(signals, stopped, monkeypatch):
    ended = []
    monkeypatch.setattr(process, "_stop_immediately", ended.append)
    signal.raise_signal(signal.SIGTERM)
    before = list(ended)

    signal.raise_signal(signal.SIGTERM)

    assert (before, len(ended)) == ([], 1)
