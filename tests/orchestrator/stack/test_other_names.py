"""A machine whose host name has changed while its local stack runs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.contract.settings import Settings
from orchestrator.stack.locks import take_lock
from orchestrator.stack.server import check_place
from tests.support.invoke import invoke


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    return Settings(home=tmp_path / "home")


@pytest.fixture
def server_before(settings: Settings) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that holds the lock of a stack, which was started under another name."""
    data = settings.home / "stack" / "before" / "data"
    data.mkdir(parents=True)
    lock = take_lock(data)
    assert lock is not None
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    os.close(lock)
    yield process
    process.kill()
    process.communicate()


def test_a_stack_that_runs_under_another_name_is_neither_doubled_nor_overlooked(
    settings: Settings, server_before: "subprocess.Popen[bytes]"
):
    says = f"under another host name, 'before' \\(its server is process {server_before.pid}\\)"

    with pytest.raises(UsageError, match=says):
        check_place(settings, None)
    down = invoke("down")

    assert down.exit_code == 2
    assert "run `pigeonhole down` while `hostname` says before" in down.stderr


def test_a_stack_of_another_name_that_has_ended_or_runs_elsewhere_is_none_of_this_machine(
    settings: Settings, server_before: "subprocess.Popen[bytes]"
):
    server_before.kill()
    server_before.communicate()

    check_place(settings, None)

    assert invoke("down").stderr == "no local stack runs\n"
