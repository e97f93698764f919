"""The process that trains or evaluates: what it is asked to do, and how it says that it cannot."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(path: Path) -> tuple[int, list[dict]]:
    """Run the process on a request file; its exit code and its events."""
    command = [sys.executable, "-m", "modeling.training.process", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        events = [json.loads(line) for line in process.stdout]  # its standard input is open: the parent lives
        return process.wait(30), events


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "request.json: not JSON"),
        ('{"task": "explain"}', "unknown task 'explain'; choose one of train, evaluate"),
        ('{"task": ["train"]}', "unknown task ['train']; choose one of train, evaluate"),
        ('{"task": "evaluate", "model": "m"}', "data: the key is missing"),
    ],
)
def test_a_request_that_cannot_be_understood_is_one_event_and_exit_code_1(tmp_path, content, told):
    path = tmp_path / "request.json"
    path.write_text(content)

    code, events = run(path)

    assert (code, [event["event"] for event in events]) == (1, ["error"])
    assert told in events[0]["error"]


@pytest.mark.parametrize(
    ("raised", "code", "events"),
    [
        ("OSError(errno.EMFILE, 'Too many open files')", 71, ["interrupted"]),
        ("OSError(errno.EIO, 'Input/output error')", 71, ["interrupted"]),
        ("OSError(errno.ENOSPC, 'No space left on device')", 1, ["error"]),
        ("MemoryError()", 72, ["memory"]),
        ("RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", 72, ["memory"]),
        ('RuntimeError("can\'t start new thread")', 71, ["interrupted"]),
        ("RuntimeError('mat1 and mat2 shapes cannot be multiplied')", 70, []),
        ("SupersededError('attempt 2 has begun')", 73, ["superseded"]),
        ("DataError('no images')", 1, ["error"]),
        ("DataError('in.csv: cannot be read') from OSError(errno.EMFILE, 'Too many open files')", 71, ["interrupted"]),
        ("DataError('in.csv: cannot be read') from OSError(errno.ESTALE, 'Stale file handle')", 74, ["storage"]),
        ("DataError('in.csv: cannot be read') from OSError(errno.EACCES, 'Permission denied')", 1, ["error"]),
    ],
)
def test_an_error_that_says_nothing_about_the_request_has_an_exit_code_and_an_event_of_its_own(
    tmp_path, raised, code, events
):
    (tmp_path / "request.json").write_text("{}")
    script = f"""
import errno, sys
import modeling.training.process as process
from modeling.errors import DataError
from modeling.training.attempt import SupersededError
def fail(request, emit):
    raise {raised}
process._TASKS["train"] = fail
sys.exit(process.main([sys.argv[1]]))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "request.json")]
    with (
        open("/dev/full", "wb") as log,  # the disk of the log may be full: the reason is reported all the same
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT) as process,
    ):
        assert process.stdout is not None
        found = [json.loads(line)["event"] for line in process.stdout]
        assert (process.wait(30), found) == (code, events)


def test_a_request_file_that_is_not_there_is_told(tmp_path):
    assert run(tmp_path / "nowhere.json")[0] == 1
