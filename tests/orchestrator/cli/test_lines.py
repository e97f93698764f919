"""`pigeonhole lines` without a server: mistakes, and what the disk alone can show."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.contract.lines.settings import Line, LineSettings
from tests.support.invoke import invoke as run
from tests.support.published_models import publish_model

CREATE = ("lines", "create", "post", "--model", "digits", "--fallback", "F", "--review", "R")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a model and an empty present folder; no server is configured."""
    publish_model(tmp_path / "home" / "models", "digits")
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def write_line(home: Path, **changed: object) -> None:
    """A line on the disk, as a registry writes it."""
    values = {"name": "post", "model": "digits", "fallback": "F", "review": "R", "bins": {"0": ["1", "2"]}}
    line = Line(LineSettings.from_json(values | changed), full=("2",), created_ms=1_700_000_000_000)
    folder = home / "lines" / line.name
    folder.mkdir(parents=True)
    (folder / "line.json").write_text(line.encode())


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["lines", "creat"], 2, "there is no command 'creat'; did you mean 'create'?"),
        (["lines", "create"], 2, "the line needs a name: give LINE, or `name` in the file"),
        (["lines", "create", "post"], 2, "line 'post' needs --model, --fallback, --review"),
        (["lines", "create", "Post Office"], 2, "line name 'Post Office' is not valid: use 1 to 64 of a-z 0-9 . _ -"),
        ([*CREATE, "--deadline", "fast"], 2, "'fast' is not a duration; write a number with a unit: 500ms"),
        ([*CREATE, "--deadline", "0ms"], 2, "deadline (ms): Input should be greater than or equal to 1, not 0"),
        ([*CREATE, "--deadline", "2h"], 2, "deadline (ms): Input should be less than or equal to 3600000"),
        ([*CREATE, "--bin", "owl"], 2, "'owl' is not LABEL=BIN or LABEL=BIN,BIN2, such as owl=3 or owl=3,4"),
        ([*CREATE, "--bin", "=3"], 2, "'=3' is not LABEL=BIN"),
        ([*CREATE, "--bin", "0=3,,4"], 2, "a bin's name is 1 to 100 printable bytes of text, not ''"),
        ([*CREATE, "--bin", "0=3,3"], 2, "the bins of a label must be different"),
        ([*CREATE, "--bin", "0=3", "--bin", "0=4"], 2, "--bin has the label '0' twice"),
        ([*CREATE, "--bin", "zero=3"], 2, "digits@1 has no label 'zero'; it has '0', '1', '2', '3', '4' and 5 more"),
        ([*CREATE, "--max-bytes", "lots"], 2, "'lots' is not a size; write bytes, or a number with a unit"),
        ([*CREATE, "--max-requests", "0"], 2, "max_requests: Input should be greater than or equal to 1"),
        ([*CREATE, "--keep", "1s"], 2, "keep (s): Input should be greater than or equal to 60, not 1"),
        ([*CREATE, "--keep-share", "2"], 2, "'2' is not a share from 0 to 1"),
        ([*CREATE, "--server", "redis://:hu#sh@queue"], 2, "redis://***@queue"),
        ([*CREATE, "--file", "nowhere.toml"], 4, "there is no file 'nowhere.toml'"),
        ([*CREATE, "--model", "digit"], 4, "no model 'digit'; did you mean 'digits'?"),
        ([*CREATE, "--model", "digits@gold"], 4, "model 'digits' has no alias 'gold'"),
        ([*CREATE, "--degraded", "digits@9"], 4, "no model 'digits@9'; versions of 'digits': 1"),
        (CREATE, 69, "no server is configured and no local stack runs; start one with `pigeonhole up`"),
        (["lines", "show", "post"], 69, "no server is configured"),
        (["lines", "pause", "post"], 69, "no server is configured"),
        (["lines", "set", "post"], 2, "nothing to change; give an option such as --deadline, or a --file"),
        (["lines", "bins", "post", "ful", "3"], 2, "'ful' is not one of 'full', 'disable', 'enable'"),
        (["lines", "bins", "post", "full"], 2, "name the BIN to mark as full"),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(home, arguments, code, told):
    result = run(*arguments)

    assert result.exit_code == code, result.stderr
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert "sh@" not in result.stderr.replace("***@", "")
    assert not (home / "lines").exists()


def test_lines_are_listed_and_shown_from_the_disk_alone(home):
    write_line(home)

    listed = run("lines", "list")
    shown = json.loads(run("lines", "show", "post", "--json").stdout)

    assert listed.exit_code == 0
    assert listed.stdout.splitlines()[1].split() == ["post", "unknown", "digits", "500ms", "?", "?"]
    assert listed.stderr.startswith("showing only what is on the disk: no server is configured")
    assert listed.stderr.count("\n") == 1
    assert (shown["state"], shown["model_version"], shown["full"]) == ("unknown", "digits@1", ["2"])
    assert "0: 1, 2 (full)" in run("lines", "show", "post").stdout
    assert run("lines", "bins", "post").stdout.splitlines()[1:] == ["1    open   '0'", "2    full   '0'"]


def test_a_line_that_cannot_be_read_does_not_hide_the_others(home):
    write_line(home)
    write_line(home, name="other")
    (home / "lines" / "other" / "line.json").write_text("{")

    result = run("lines", "list", "--json")

    assert result.exit_code == 0
    assert [facts["line"] for facts in json.loads(result.stdout)] == ["post"]
    assert "cannot read line other: " in result.stderr


def test_the_password_of_a_lines_own_server_is_never_shown(home):
    write_line(home, server="redis://user:hush@own:6379/0")

    for command in (["list"], ["list", "--json"], ["show", "post"], ["show", "post", "--json"]):
        result = run("lines", *command)

        assert "hush" not in result.stdout + result.stderr
    assert "redis://***@own:6379/0" in run("lines", "show", "post").stdout


@pytest.mark.parametrize("key", ["model", "degraded"])
@pytest.mark.parametrize("ref", ["digits", "digits@1"])
def test_a_version_that_a_line_uses_is_not_removed(home, key, ref):
    publish_model(home / "models", "letters", seed=1)
    write_line(home, **({"model": "letters"} | {key: ref}))

    result = run("models", "remove", "digits@1", "--yes")

    assert result.exit_code == 1
    assert "digits@1 is used by line post; change it first: `pigeonhole lines set post --model OTHER`" in result.stderr
    assert run("models", "show", "digits@1").exit_code == 0


def test_an_alias_that_a_line_uses_is_not_removed(home):
    run("models", "alias", "digits@1", "champion")
    run("models", "alias", "digits@1", "other")
    write_line(home, model="digits@champion")

    result = run("models", "alias", "digits", "champion", "--remove")

    assert result.exit_code == 1
    assert "digits@champion is the model of line post; change it first" in result.stderr
    assert run("models", "alias", "digits", "other", "--remove").exit_code == 0


def test_without_lines_a_list_is_empty(home):
    assert json.loads(run("lines", "list", "--json").stdout) == []
    assert run("lines", "list").stderr.splitlines()[-1] == "no lines; `pigeonhole lines create` makes one"


def test_the_names_of_lines_are_completed_without_a_server(home):
    write_line(home)
    write_line(home, name="parcels")

    environment = {
        "PIGEONHOLE_HOME": str(home), "PIGEONHOLE_CONFIG": "/dev/null", "_PIGEONHOLE_COMPLETE": "bash_complete",
        "COMP_WORDS": "pigeonhole lines show p", "COMP_CWORD": "3", "PYTHONPATH": str(Path(__file__).parents[3]),
    }  # fmt: skip
    code = "from orchestrator.cli import main; main(prog_name='pigeonhole')"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == ["parcels", "post"]


def test_commands_of_lines_import_neither_torch_nor_celery():
    code = (
        "import sys, orchestrator.cli.lines.connect, orchestrator.lines.facts, orchestrator.lines.labels\n"
        "import orchestrator.contract.lines.status, orchestrator.lines.follow, orchestrator.lines.line_file\n"
        "heavy = {'torch', 'celery', 'rich', 'PIL', 'openvino', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
