"""The process that imports torch before the pool asks for a child."""

import os
import signal

import pytest
from billiard import popen_spawn_posix

from workers.early_child import OCCUPIED_EXIT_CODE, EarlyChild, environment_of_child

HIGH = 200  # a number of a descriptor that the process does not use


@pytest.fixture
def early(monkeypatch):
    monkeypatch.setattr(popen_spawn_posix, "spawnv_passfds", lambda *_: pytest.fail("started by billiard"))
    child = EarlyChild({}, "json")
    child.install()
    yield child
    child.end()


def start(code: str, *descriptors: int) -> int:
    """Start a child as billiard does."""
    return popen_spawn_posix.spawnv_passfds(b"python", ["python", "-X", "dev", "-c", code, "--mark"], descriptors)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_it_becomes_the_first_child_with_its_descriptors_and_the_environment_of_that_moment(early, monkeypatch):
    ours, theirs = os.pipe()
    os.dup2(theirs, HIGH)
    monkeypatch.setenv("PIGEONHOLE_TEST", "\udcff later")
    code = (
        "import os, sys\n"
        "facts = 'json' in sys.modules, os.environb[b'PIGEONHOLE_TEST'], sys.argv\n"
        f"os.write({HIGH}, repr(facts).encode())"
    )

    pid = start(code, HIGH)
    os.close(theirs)
    os.close(HIGH)

    with os.fdopen(ours, "rb") as pipe:
        assert pipe.read().decode() == repr((True, b"\xff later", ["-c", "--mark"]))
    assert exit_code(pid) == 0


def test_a_second_child_is_started_as_usual(monkeypatch):
    monkeypatch.setattr(popen_spawn_posix, "spawnv_passfds", lambda *_: 4711)
    early = EarlyChild({}, "json")
    early.install()

    first, second = start("raise SystemExit(7)"), start("")

    assert (exit_code(first), second) == (7, 4711)


def test_what_libraries_read_when_they_are_imported_may_be_set_by_the_operator():
    assert environment_of_child({})["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment_of_child({"OMP_WAIT_POLICY": "ACTIVE"})["OMP_WAIT_POLICY"] == "ACTIVE"


def test_it_ends_without_its_parent(early):
    pid, early._pid = early._pid, None  # nobody kills it

    early._link.close()

    assert exit_code(pid) == 0


def test_it_takes_no_number_that_a_library_holds(early):
    reading, writing = os.pipe()

    pid = start("", 2, reading)

    assert exit_code(pid) == OCCUPIED_EXIT_CODE
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_it_is_killed_where_no_child_is_started(early):
    pid = early._pid

    early.end()

    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)
    early._pid = None  # its end is over
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
