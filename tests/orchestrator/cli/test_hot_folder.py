"""`pigeonhole hotfolder` and `pigeonhole telegrams` without a server: what they refuse."""

import asyncio
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from orchestrator.cli import hot_folder, telegrams
from tests.support.invoke import invoke
from tests.support.line_worker import make_line


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        ([], 2, "give either --line or --model"),
        (["--line", "post", "--model", "m"], 2, "give either --line or --model"),
        (["--line", "post", "--poll", "1ms"], 2, "--poll is 10ms to 1h, not 1 ms"),
        (["--line", "Post"], 2, "line name 'Post' is not valid"),
        (["--line", "post"], 69, "start one with `pigeonhole up`"),
        (["--model", "m"], 4, "no model 'm'"),
    ],
)
def test_a_hot_folder_that_cannot_be_worked_on_is_left_alone(tmp_path, arguments, code, why):
    done = invoke("hotfolder", tmp_path / "scans", *arguments)

    assert done.exit_code == code, done.stderr
    assert why in done.stderr
    assert not (tmp_path / "scans").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["--host", "0.0.0.0"], 2, "say from which, with --allow ADDRESS"),
        (["--host", "0.0.0.0", "--allow", "10.0.0.300"], 2, "--allow takes an address or a network"),
        (["--heartbeat", "1ms"], 2, "--heartbeat is 100ms to 10m, not 1 ms"),
        (["--fields", "none.toml"], 4, "there is no file 'none.toml'"),
        ([], 69, "start one with `pigeonhole up`"),
    ],
)
def test_telegrams_that_cannot_be_served_are_refused(arguments, code, why):
    done = invoke("telegrams", "--line", "post", "--port", "5010", *arguments)

    assert done.exit_code == code, done.stderr
    assert why in done.stderr


def test_a_second_signal_ends_a_hot_folder_whose_threads_wait_for_a_disk():
    code = (
        "import threading\n"
        "from types import SimpleNamespace\n"
        "from orchestrator.cli.hot_folder import _stopped_by_signals\n"
        "def stop():\n"
        "    print('stops', flush=True)\n"
        "with _stopped_by_signals(SimpleNamespace(stop=stop)):\n"
        "    thread = threading.Thread(target=threading.Event().wait)\n"
        "    thread.start()\n"
        "    print('waits', flush=True)\n"
        "    thread.join()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "waits\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "stops\n"
            process.send_signal(signal.SIGINT)

            assert process.wait(60) == -signal.SIGINT
        finally:
            process.kill()


class Client:
    """Stands for a line's client; `steps` is what it was asked at the end."""

    line = "seen"

    def __init__(self, *_, **__):
        self.steps = STEPS
        self.steps.clear()

    def start(self): ...

    def wait_for_reports(self):
        self.steps.append("reports")

    def abandon(self):
        self.steps.append("ends")


class AsyncClient(Client):
    async def wait_for_reports(self):
        super().wait_for_reports()


STEPS = []


def test_a_hot_folder_that_ends_lets_its_client_report_first(tmp_path, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(hot_folder, "_check", lambda *_: "m")
    monkeypatch.setattr("orchestrator.lines.client.LineClient", Client)

    done = invoke("hotfolder", tmp_path / "scans", "--line", "post", "--once")

    assert (done.exit_code, STEPS) == (0, ["reports", "ends"]), done.stderr


def test_telegrams_that_end_let_their_client_report_first(tmp_path, monkeypatch):
    async def run(*_):
        assert STEPS == []

    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr("orchestrator.lines.client.AsyncLineClient", AsyncClient)
    monkeypatch.setattr("orchestrator.telegrams.service.Service.run", run)
    options = telegrams._Options("127.0.0.1", 0, (), 5.0, None, tmp_path)

    asyncio.run(telegrams._serve(make_line(), None, SimpleNamespace(restore=list), options))

    assert STEPS == ["reports", "ends"]
