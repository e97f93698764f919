"""Each in a process of its own: the streams of this one are pytest's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(code: str, redirections: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run code after the process has put its streams right, with redirections as a shell writes them."""
    script = f"from orchestrator.contract.streams import prepare_process; prepare_process(); {code}"
    shell = f'exec "$0" -c "$1" {redirections}'
    command = ["/bin/sh", "-c", shell, sys.executable, script]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, input=b"")


@pytest.mark.parametrize("redirections", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_the_null_device_and_no_other_file_gets_their_numbers(redirections, tmp_path):
    code = (
        "import os, sys; number = os.open('f', os.O_RDWR | os.O_CREAT); sys.stdin.read(); print('out', flush=True); "
        "print('err', file=sys.stderr); os.write(number, b'%d' % number); sys.stderr.isatty()"
    ).replace("'f'", repr(str(tmp_path / "f")))

    done = run(code, redirections)

    assert done.returncode == 0
    assert int((tmp_path / "f").read_bytes()) > 2
    assert b"Traceback" not in done.stderr


def test_a_process_that_is_started_inherits_the_null_device():
    done = run("import os; os.execvp('/bin/sh', ['sh', '-c', 'echo fine >&2; echo fine'])", "<&- 2>&-")

    assert (done.returncode, done.stdout) == (0, b"fine\n")


@pytest.mark.parametrize("environment", [C_LOCALE, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_file_names_and_output_are_utf8_in_the_c_locale(environment, tmp_path):
    (tmp_path / "é").touch()
    (tmp_path / "é.txt").touch()

    inside, path = str(tmp_path), str(tmp_path / "é")
    done = run(f"import os; print(*sorted(os.listdir({inside!a})), os.path.exists({path!a}))", **environment)

    assert (done.returncode, done.stdout.decode()) == (0, "é é.txt True\n")


def test_what_another_encoding_lacks_is_escaped():
    done = run("print('ü 中')", PYTHONIOENCODING="latin-1")

    assert (done.returncode, done.stdout) == (0, b"\xfc \\u4e2d\n")
