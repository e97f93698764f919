"""`pigeonhole results show --pictures`: pictures on terminals that can show them, and never anywhere else."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.images import encode
from tests.support.invoke import invoke
from tests.support.manifests import answered, failed, publish_rows

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(encode(Image.new("RGB", (100, 50), (200, 0, 0)), "JPEG"))
    rows = [answered("a.jpg", "cat", decision="accept"), answered("\x1b]0;evil\x07.jpg", "dog"), failed("c.jpg")]
    return str(publish_rows(tmp_path / "out.csv", rows, tmp_path / "in"))


def shown_on_a_terminal(manifest: str, **environment: str) -> str:
    """What the command prints on a terminal of that environment, with line feeds only."""
    ours, theirs = pty.openpty()
    inherited = {name: os.environ[name] for name in ("PATH", "PIGEONHOLE_HOME", "HOME") if name in os.environ}
    command = [sys.executable, "-m", "orchestrator", "results", "show", manifest, "--pictures"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, text=True,
        env=inherited | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"} | environment,
    )  # fmt: skip
    os.close(theirs)
    printed = b""
    while piece := _read(ours):
        printed += piece
    os.close(ours)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return (printed.decode() + said).replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # EIO: nobody has it open any more
        return b""


def test_pictures_stand_above_their_rows_and_the_reason_where_one_is_missing(manifest):
    printed = shown_on_a_terminal(manifest, TERM="xterm-256color", COLORTERM="truecolor")

    picture = re.escape("\x1b[38;2;")
    assert re.search(rf"{picture}[^\n]*▀\x1b\[0m\na\.jpg  cat 0\.7500 accept", printed)
    assert r"\x1b]0;evil\x07.jpg  dog 0.7500  (no picture: missing: No such file or directory)" in printed
    assert "c.jpg  error: truncated: pixels are missing" in printed
    assert "\x1b]" not in printed


def test_kitty_gets_its_protocol(manifest):
    assert "\x1b_Ga=T,f=100,q=2," in shown_on_a_terminal(manifest, TERM="xterm-kitty")


def test_a_terminal_that_is_not_known_gets_the_table_and_a_message(manifest):
    printed = shown_on_a_terminal(manifest, TERM="vt100")

    assert "this terminal is not known to show pictures; `pigeonhole results sheet` writes them to a file" in printed
    assert re.search(r"a\.jpg +ok +accept +cat +0\.7500", printed)
    assert "▀" not in printed


def test_a_pipe_gets_the_table_without_escapes(manifest, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-kitty")

    done = invoke("results", "show", manifest, "--pictures")

    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert re.search(r"a\.jpg +ok +accept +cat +0\.7500", done.stdout)
    assert "standard output is not a terminal, so there are no pictures" in done.stderr


def test_pictures_and_json_exclude_each_other(manifest):
    done = invoke("results", "show", manifest, "--pictures", "--json")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "--pictures are for people, --json is for programs; choose one" in done.stderr
