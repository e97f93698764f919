"""A command that prints nothing for seconds says what it does, and nothing else changes."""

import io
import os
import pty
import select
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.cli.speaking import LONGEST_S, SILENT_S, Speaker, speaking
from tests.support.published_models import publish_model

ROOT = Path(__file__).parents[3]


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    """Keeps what is written, and has the width of a real terminal."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


@pytest.fixture
def terminal():
    ends = pty.openpty()
    yield Terminal(ends[0])
    for descriptor in ends:
        os.close(descriptor)


@pytest.fixture
def clock():
    return Clock()


def said_after(speaker: Speaker, clock: Clock, stream: io.StringIO, seconds: float) -> str:
    stream.seek(0)
    stream.truncate()
    clock.now_s += seconds
    speaker.look()
    return stream.getvalue()


def test_a_terminal_has_one_line_that_is_redrawn_each_second_and_goes_before_output(clock, terminal):
    speaker = Speaker(terminal, is_terminal=True, now=clock)

    with speaker.doing("listing inbox/") as replace:
        assert said_after(speaker, clock, terminal, SILENT_S - 0.1) == ""
        assert said_after(speaker, clock, terminal, 0.2) == "\r\x1b[Klisting inbox/, 2 s"
        assert said_after(speaker, clock, terminal, 0.5) == ""
        replace("listing inbox/: 12 images")
        assert said_after(speaker, clock, terminal, 0.6) == "\r\x1b[Klisting inbox/: 12 images, 3 s"
        with speaker.output():
            assert terminal.getvalue().endswith("\r\x1b[K")
        assert said_after(speaker, clock, terminal, 1.0) == ""
    assert said_after(speaker, clock, terminal, SILENT_S) == "\r\x1b[Kstill at work, 3 s"


def test_elsewhere_lines_come_after_twice_the_time_and_at_least_every_minute(clock):
    log = io.StringIO()
    speaker = Speaker(log, is_terminal=False, now=clock)
    begun, times = clock.now_s, []

    with speaker.doing("drawing \x1b[31m"):
        for _ in range(600):
            if said := said_after(speaker, clock, log, 0.5):
                times.append(clock.now_s - begun)
                assert said == f"drawing \\x1b[31m, {times[-1]:.0f} s\n"

    assert times[:4] == [2.5, 5, 10, 20]
    assert max(later - earlier for earlier, later in pairwise(times)) == LONGEST_S


def test_activities_are_nested(clock):
    log = io.StringIO()
    speaker = Speaker(log, is_terminal=False, now=clock)

    with speaker.doing("outer"):
        with speaker.doing("inner"):
            assert said_after(speaker, clock, log, 3) == "inner, 3 s\n"
        assert said_after(speaker, clock, log, 3) == "outer, 6 s\n"


def test_a_block_that_prints_lines_of_its_own_is_left_to_do_so_where_there_is_no_terminal(clock, terminal):
    log = io.StringIO()
    for stream, is_terminal, said in ((log, False, ""), (terminal, True, "\r\x1b[Kjob 1: 12 images, 4 s")):
        speaker = Speaker(stream, is_terminal=is_terminal, now=clock)
        with speaker.doing("job 1: 12 images", log_after_s=6):
            assert said_after(speaker, clock, stream, 4) == said
            if not is_terminal:
                assert said_after(speaker, clock, stream, 2) == "job 1: 12 images, 6 s\n"
    assert said_after(speaker, clock, terminal, 1) == "\r\x1b[Kstill at work, 5 s"


def shown_on_a_terminal(command: list[str], environment: dict[str, str], until: str) -> str:
    """What a command shows on a terminal up to some words; its standard input is open and brings nothing."""
    terminal, inside = pty.openpty()
    waiting, kept = os.pipe()
    process = subprocess.Popen(command, stdin=waiting, stdout=inside, stderr=inside, env=environment)
    os.close(inside)
    shown = ""
    try:
        while until not in shown and select.select([terminal], [], [], 30)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        for descriptor in (terminal, waiting, kept):
            os.close(descriptor)
    return shown


def test_a_command_says_what_it_waits_for(tmp_path):
    publish_model(tmp_path / "models", "digits")
    environment = {"PIGEONHOLE_HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "orchestrator", "classify", "-", "--model", "digits", "--plan"]

    shown = shown_on_a_terminal(command, environment, until="measuring a sample of -, ")

    assert "\r\x1b[Kmeasuring a sample of -, " in shown


def test_a_full_log_ends_neither_the_command_nor_its_last_line(monkeypatch):
    monkeypatch.setattr("orchestrator.cli.speaking.FIRST_LINE_S", 0.0)
    monkeypatch.setattr("orchestrator.cli.speaking.os.dup", lambda _: os.open("/dev/full", os.O_WRONLY))

    with speaking():
        speaker = next(thread for thread in threading.enumerate() if thread.name == "speaker")
        speaker.join(60)  # ends where nobody reads it

    assert not speaker.is_alive()
