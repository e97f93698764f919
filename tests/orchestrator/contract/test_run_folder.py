"""A worker's folder for temporary files."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.contract.run_folder import START_FILE, own_processes, remove_abandoned

_HOLD = """
import sys, tempfile
from orchestrator.contract.run_folder import own_run_folder
folder = own_run_folder()
with tempfile.NamedTemporaryFile(delete=False) as file: pass
print(folder, file.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of temporary files with a path as short as on any machine."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ph-") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


Holder = tuple["subprocess.Popen[str]", Path, Path]


@pytest.fixture
def hold() -> Iterator[Callable[[Path], Holder]]:
    """Starts processes with run folders in a folder of temporary files: process, run folder, a temporary file."""
    processes: list[subprocess.Popen[str]] = []

    def start(temporary: Path) -> Holder:
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"TMPDIR": str(temporary)},
        )  # fmt: skip
        processes.append(process)
        assert process.stdout is not None
        folder, file = process.stdout.readline().split()
        return process, Path(folder), Path(file)

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_the_folder_of_a_killed_worker_goes_with_the_next_and_those_that_live_stay(
    hold: Callable[[Path], Holder], temporary: Path
):
    killed, abandoned, file = hold(temporary)
    assert file.parent == abandoned
    assert abandoned.parent == temporary
    killed.kill()
    killed.wait()

    _, first, kept = hold(temporary)
    _, second, _ = hold(temporary)

    assert sorted(temporary.iterdir()) == sorted([first, second])
    assert kept.exists()


def test_the_folder_tells_the_container_and_the_start_of_its_worker(hold: Callable[[Path], Holder], temporary: Path):
    before = time.monotonic()

    _, folder, _ = hold(temporary)

    processes, began_s = json.loads((folder / START_FILE).read_text())
    assert processes == own_processes()
    assert before <= began_s <= time.monotonic()


def test_a_worker_that_ends_leaves_nothing(hold: Callable[[Path], Holder], temporary: Path):
    process, _, _ = hold(temporary)

    process.communicate()

    assert process.returncode == 0
    assert not list(temporary.iterdir())


def test_what_is_no_worker_s_folder_stays(hold: Callable[[Path], Holder], temporary: Path):
    (temporary / "pigeonhole-run-file").touch()
    (temporary / "elsewhere").mkdir()
    (temporary / "pigeonhole-run-link").symlink_to(temporary / "elsewhere")
    killed, abandoned, _ = hold(temporary)
    killed.kill()
    killed.wait()

    remove_abandoned()

    assert not abandoned.exists()
    assert len(list(temporary.iterdir())) == 3


def test_temporary_files_stay_where_they_were_if_a_socket_in_the_folder_had_too_long_a_path(
    hold: Callable[[Path], Holder], temporary: Path
):
    far = temporary / ("f" * 60)
    far.mkdir()

    _, folder, file = hold(far)

    assert folder.parent == file.parent == far
