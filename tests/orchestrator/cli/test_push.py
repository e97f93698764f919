"""`pigeonhole push` without a server: mistakes are reported before anything is pushed."""

import subprocess
import sys

import pytest

from tests.support.invoke import invoke as run

PUSH = ("push", "a.jpg", "--line", "post")


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["push"], 2, "Missing argument 'IMAGE...'"),
        (["push", "a.jpg"], 2, "Missing option '--line'"),
        (["push", "a.jpg", "--line", "No Line"], 2, "line name 'No Line' is not valid: use 1 to 64 of a-z"),
        ([*PUSH, "b.jpg", "--item", "7"], 2, "--item names one image, not 2; push each by itself"),
        ([*PUSH, "a.jpg"], 2, "'a.jpg' is given 2 times; an item has one answer a pass"),
        ([*PUSH, "--item", ""], 2, "an item's name is 1 to 1000 bytes of UTF-8, not 0"),
        ([*PUSH, "--item", "x" * 1001], 2, "an item's name is 1 to 1000 bytes of UTF-8, not 1001"),
        ([*PUSH, "--pass", "0"], 2, "a pass is 1 to 1000000, not 0"),
        ([*PUSH, "--pass", "one"], 2, "'one' is not a valid integer"),
        ([*PUSH, "--deadline", "0ms"], 2, "a deadline is 0.001 to 3600 seconds from the push, not 0.0"),
        ([*PUSH, "--deadline", "-1s"], 2, "'-1s' is not a duration; write a number with a unit: 500ms"),
        ([*PUSH, "--deadline", "9999d"], 2, "a deadline is 0.001 to 3600 seconds"),
        ([*PUSH, "--fallback", "F"], 2, "--fallback needs --deadline"),
        (["push", "-", "--line", "post"], 2, "`-` is one image from standard input: give its --item"),
        (["push", "-", "--line", "post", "--item", "7", "--by-path"], 2, "give its --item, no --by-path"),
        (PUSH, 69, "no server is configured and no local stack runs; start one with `pigeonhole up`"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, code, told):
    result = run(*arguments)

    assert result.exit_code == code, result.stderr
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_pushing_imports_neither_torch_nor_celery():
    code = (
        "import sys, orchestrator.cli.push, orchestrator.lines.client\n"
        "heavy = {'torch', 'celery', 'numpy', 'rich', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
