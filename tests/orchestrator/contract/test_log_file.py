"""Log files of the local stack: bounded, and no line is lost, with several processes that write to one file."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import redis

from orchestrator.contract import log_file
from orchestrator.contract.log_file import LOG_ENVIRONMENT, SERVER_LOG, BoundedLog, cut, keep_log_bounded, rotate
from orchestrator.stack.server import server_config
from tests.support.server import answers, find_server, wait_until

NUM_WRITERS, NUM_LINES, MAX_BYTES = 3, 600, 2000
# Writes numbered lines to the descriptor 2, some by Python and some below it, and looks at the file now and then.
WRITER = """
import os, sys
from pathlib import Path
from orchestrator.contract.log_file import BoundedLog
name, path = sys.argv[1], Path(sys.argv[2])
log = BoundedLog(path, max_bytes=int(sys.argv[3]), num_old=1000)
for number in range(int(sys.argv[4])):
    line = f"{name} {number}\\n"
    os.write(2, line.encode()) if number % 2 else sys.stderr.write(line)
    if number % 7 == 0:
        log.check()
"""


def test_every_line_of_several_processes_is_in_one_of_the_files(tmp_path):
    log = tmp_path / "worker.log"
    with log.open("ab") as file:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(writer), str(log), str(MAX_BYTES), str(NUM_LINES)], stderr=file
            )
            for writer in range(NUM_WRITERS)
        ]
        codes = [writer.wait() for writer in writers]

    files = list(tmp_path.iterdir())
    lines = sorted(line for file in files for line in file.read_text().splitlines())
    assert codes == [0] * NUM_WRITERS
    assert lines == sorted(f"{writer} {number}" for writer in range(NUM_WRITERS) for number in range(NUM_LINES))
    assert len(files) > 1


def test_old_files_are_numbered_from_the_newest_and_the_oldest_goes(tmp_path):
    log = tmp_path / "gateway.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    bounded = BoundedLog(log, max_bytes=3, num_old=2, descriptors=[descriptor])

    for text in (b"first", b"second", b"third", b"new"):
        os.write(descriptor, text)
        bounded.check()
    os.close(descriptor)

    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"gateway.log": "new", "gateway.log.1": "third", "gateway.log.2": "second"}


def test_a_log_that_was_removed_is_made_again_and_output_that_is_no_file_stays_where_it_is(tmp_path):
    log, (read, write) = tmp_path / "worker.log", os.pipe()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    bounded = BoundedLog(log, descriptors=[descriptor, write])
    log.unlink()

    bounded.check()
    os.write(descriptor, b"in the file")
    os.write(write, b"in the pipe")

    assert log.read_text() == "in the file"
    assert os.read(read, 100) == b"in the pipe"
    for number in (descriptor, read, write):
        os.close(number)


def test_a_file_that_another_process_renames_now_is_left_alone(tmp_path):
    log = tmp_path / "worker.log"
    log.write_text("long")
    with log.open() as held:
        log_file.fcntl.flock(held, log_file.fcntl.LOCK_EX)
        rotate(log, max_bytes=1)

    assert [path.name for path in tmp_path.iterdir()] == ["worker.log"]


def test_a_log_whose_writer_cannot_be_moved_is_cut_in_place(tmp_path, caplog):
    log = tmp_path / "training.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"first")
        cut(log, max_bytes=3)
        writer.write(b"new")
        cut(log, max_bytes=3)
    cut(tmp_path / "none.log")

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "training.log": "new", "training.log.1": "first",
    }  # fmt: skip
    assert "none.log cannot be cut" in caplog.text


def test_only_a_process_that_up_started_has_a_log_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(LOG_ENVIRONMENT, raising=False)

    assert keep_log_bounded() is None


def test_a_server_goes_on_in_a_new_file_once_its_log_was_renamed():
    with tempfile.TemporaryDirectory(prefix="ph-", dir="/tmp") as name:  # a socket's path has 107 bytes at most
        folder, url = Path(name), f"unix://{name}/s.sock"
        log = folder / SERVER_LOG
        address = ["port 0", f"unixsocket {name}/s.sock"]
        (folder / "server.conf").write_bytes(server_config(url, address, folder, log))
        program = find_server()
        assert program is not None
        server = subprocess.Popen([program, str(folder / "server.conf")], stdout=subprocess.DEVNULL)
        try:
            client = redis.Redis.from_url(url)
            wait_until(lambda: answers(client), what="the server answers")
            BoundedLog(folder / "worker.log", others=(log,), max_bytes=10, descriptors=[]).check()
            renamed = log.with_name(f"{SERVER_LOG}.1").read_text()
            client.bgrewriteaof()
            wait_until(lambda: log.exists() and "rewriting" in log.read_text().lower(), what="a line in the new file")
        finally:
            server.terminate()
            server.wait()

        assert "Ready to accept connections" in renamed
        assert server.returncode == 0
