import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.cli.output import print_json, print_line, print_message, print_table
from tests.support.workers import without_waiting

ROOT = Path(__file__).parents[3]
EVIL = "a\x1b]0;gone\x07\u202e\x9b31m"
HARMLESS = r"a\x1b]0;gone\x07\u202e\x9b31m"


def run(*arguments: str, redirections: str = "", home: Path) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", "-c", f'exec "$0" -m orchestrator "$@" {redirections}', sys.executable, *arguments]
    environment = {"PIGEONHOLE_HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_every_way_to_print_escapes_what_a_terminal_would_obey(capsys):
    print_line(EVIL)
    print_table(("name",), [(EVIL,)])
    print_message(EVIL)
    print_json({EVIL: EVIL})

    told = capsys.readouterr()
    assert told.out.splitlines()[:3] == [HARMLESS, "NAME", HARMLESS]
    assert told.err == HARMLESS + "\n"
    document = told.out.split("\n", 3)[3]
    assert json.loads(document) == {EVIL: EVIL}
    assert not set("\x1b\x07\u202e\x9b") & set(document)


def test_an_error_shows_no_escapes():
    missing = CliRunner().invoke(main, ["results", "show", EVIL])

    assert missing.stderr == f"error: there is no manifest {EVIL!r}; give its path, or a job's id\n"


@pytest.mark.parametrize("command", [["jobs"], ["workers", "list"], ["up"]])
@pytest.mark.parametrize(
    "url", ["redis://:hun#ter2@h/0", "redis://u:hun[ter2@h", "redis://hunter2@h?x=1", "foo://hunter2@h"]
)
def test_no_command_names_the_password_of_a_bad_url(command, url, tmp_path, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", url)

    done = CliRunner().invoke(main, command)

    assert done.exit_code == 2
    assert "://***@h" in done.stderr
    assert not any(part in done.output for part in ("hun", "ter2"))


def test_commands_print_through_one_module_only():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "orchestrator" / "cli").rglob("*.py"))
        if path.name not in ("output.py", "completion.py")  # a completion script is our own text
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("print", "click.echo", "click.secho", "sys.stdout.write")
    ]

    assert found == []


@pytest.mark.parametrize("command", [["models", "architectures"], ["models", "architectures", "--json"]])
def test_a_full_disk_behind_standard_output_is_one_line(command, tmp_path):
    done = run(*command, redirections=">/dev/full", home=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert without_waiting(done.stderr) == "error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("redirections", ["<&-", ">&-", "2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_closed_streams_and_a_full_log_are_no_failure(redirections, tmp_path):
    done = run("jobs", redirections=redirections, home=tmp_path)

    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_ends_a_command_quietly(tmp_path):
    done = run("models", "architectures", redirections="| true", home=tmp_path)

    assert without_waiting(done.stderr) == ""


def test_the_c_locale_shows_any_name(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "results", "show", "é中.csv"], cwd=ROOT, capture_output=True,
        env={"PIGEONHOLE_HOME": str(tmp_path), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )  # fmt: skip

    assert done.returncode == 4
    assert (
        without_waiting(done.stderr.decode()) == "error: there is no manifest 'é中.csv'; give its path, or a job's id\n"
    )
