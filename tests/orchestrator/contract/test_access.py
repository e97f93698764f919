"""What the system refused, as one line: for real, without the rights that root has."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.contract.access import describe_access, explain_os_error, user_name

# Root may do anything by its capabilities; without them it is an ordinary user.
ORDINARY = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
OPEN = """
import sys
from orchestrator.contract.access import explain_os_error
try:
    open(sys.argv[1], sys.argv[2])
except OSError as err:
    print(explain_os_error(err))
"""


def refused(path: Path, mode: str) -> str:
    """What is said of opening a path without privileges."""
    done = subprocess.run([*ORDINARY, sys.executable, "-c", OPEN, str(path), mode], capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("closed", "opened", "mode", "barrier"),
    [
        ("a", "a/b/file", "r", ", in '{root}/a', which"),
        ("a/b", "a/b/new", "w", ", in '{root}/a/b', which"),
        ("a/b/file", "a/b/file", "r", ""),
    ],
)
def test_what_keeps_one_out_is_named_with_its_owner_and_the_cure(
    tmp_path: Path, closed: str, opened: str, mode: str, barrier: str
):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    bits = 0o500 if mode == "w" else 0
    (tmp_path / closed).chmod(bits)

    told = refused(tmp_path / opened, mode)

    (tmp_path / closed).chmod(0o700)
    me = user_name(os.geteuid())
    start = f"Permission denied: '{tmp_path / opened}'{barrier.format(root=tmp_path)} belongs to {me} (group "
    assert told.startswith(start)
    assert told.endswith(f", mode {bits:04o}), and this is {me}; ask {me} for access, or run as a user who has it")


@pytest.mark.parametrize(
    ("code", "cure"),
    [(errno.ENOSPC, "free some space"), (errno.EDQUOT, "larger quota"), (errno.EROFS, "mount it for writing")],
)
def test_what_a_disk_refuses_has_its_cure(code: int, cure: str):
    strerror = os.strerror(code)

    assert explain_os_error(OSError(code, strerror, "/x")).startswith(f"{strerror}: '/x'; ")
    assert cure in explain_os_error(OSError(code, strerror))


def test_a_present_folder_that_was_deleted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    with pytest.raises(FileNotFoundError) as caught:
        Path.cwd()

    assert explain_os_error(caught.value) == "the present folder was deleted; change to one that exists"
    assert describe_access("relative") == "'relative'"


def test_an_error_that_says_nothing_is_a_bug():
    assert explain_os_error(OSError("no number")) is None
    assert explain_os_error(FileNotFoundError(errno.ENOENT, "No such file or directory")) is None


def test_a_user_without_a_name_has_a_number():
    assert user_name(54_321) == "user 54321"
