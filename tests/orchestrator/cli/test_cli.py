"""The command line without a server: help, errors, exit codes, and the commands that need none."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
import redis

from modeling.errors import DataError, ModelFormatError, ModelNameError, ModelNotFoundError
from orchestrator.cli import COMMANDS
from orchestrator.cli.errors import report_errors
from orchestrator.cli.jobs.follow import wait
from orchestrator.cli.output import duration, on_interrupt, print_table
from orchestrator.contract.errors import (
    ExitCode,
    IntegrityError,
    MessageError,
    NotFoundError,
    PigeonholeError,
    UnavailableError,
    UsageError,
)
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome
from orchestrator.contract.settings import Settings
from tests.support.commands import EVERY_COMMAND, LEAVES
from tests.support.fakes import make_job
from tests.support.invoke import invoke as run
from tests.support.published_models import make_pngs, publish_model
from tests.support.workers import without_waiting


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that does not exist yet, and an empty current folder."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def left_behind(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Help


@pytest.mark.parametrize("words", EVERY_COMMAND)
def test_every_command_has_help_and_every_option_says_what_it_does(words):
    result = run(*words.split(), "--help")

    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: pigeonhole {words}")
    command = EVERY_COMMAND[words]
    assert command.help
    silent = [param.name for param in command.params if isinstance(param, click.Option) and not param.help]
    assert silent == []


@pytest.mark.parametrize("words", LEAVES)
def test_every_command_shows_an_example_that_begins_with_its_own_name(words):
    examples = (LEAVES[words].help or "").partition("Example")[2]

    assert f"pigeonhole {words}" in examples


@pytest.mark.parametrize("words", LEAVES)
def test_an_examples_options_exist(words):
    command = LEAVES[words]
    known = {opt for param in command.params for opt in (*param.opts, *param.secondary_opts)}
    lines = [
        line for line in (command.help or "").partition("Example")[2].splitlines() if f"pigeonhole {words}" in line
    ]

    for line in lines:
        used = {
            word for word in line.partition(f"pigeonhole {words}")[2].split() if word.startswith("-") and word != "-"
        }
        assert used <= known, line


def test_the_table_of_commands_agrees_with_the_commands():
    assert [command.name for words, command in EVERY_COMMAND.items() if " " not in words] == list(COMMANDS)
    listed = run("--help").stdout
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in listed
        assert line.split()[0] in listed


def test_what_shows_something_can_show_it_as_json():
    talkers = {"worker", "completion", "gateway", "telegrams"}

    without = {words for words, command in LEAVES.items() if "as_json" not in {param.name for param in command.params}}

    assert without == talkers


def test_no_help_imports_anything_heavy():
    heavy = {
        "torch", "celery", "redis", "pydantic", "pydantic_settings", "numpy", "rich", "PIL", "psutil", "fastapi",
        "uvicorn", "matplotlib", "asyncio", "concurrent.futures", "multiprocessing", "ssl", "http.client",
    }  # fmt: skip
    lines = [["--version"], ["--help"], *([*words.split(), "--help"] for words in EVERY_COMMAND)]
    code = (
        "import sys\n"
        "from orchestrator.cli import main\n"
        f"for arguments in {lines!r}:\n"
        "    try: main(arguments, prog_name='pigeonhole')\n"
        "    except SystemExit as end: assert not end.code, (arguments, end.code)\n"
        f"    if heavy := {heavy!r} & set(sys.modules):\n"
        "        sys.exit(f'{arguments} imported {sorted(heavy)}')\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert len(lines) > 70
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (  # of jobs
            "orchestrator.jobs.prepare, orchestrator.jobs.submit, orchestrator.jobs.follow, orchestrator.jobs.story",
            {"torch", "celery", "numpy", "PIL"},
        ),
        (  # of results
            "orchestrator.jobs.results, orchestrator.jobs.verification, orchestrator.export.export, "
            "orchestrator.sorting.sort, orchestrator.sorting.unsort",
            {"torch", "celery", "redis", "numpy", "PIL"},
        ),
    ],
)
def test_what_commands_import_when_they_run_is_light(modules, heavy):
    code = f"import sys, {modules}; print({heavy!r} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.stdout, done.stderr) == ("set()\n", "")


# What every command does


@pytest.mark.parametrize("arguments", [["--config", "mine.toml", "up"], ["up", "--config", "mine.toml"]])
def test_every_command_takes_the_settings_file_that_is_named(home, arguments):
    Path("mine.toml").write_text("nonsense = 1\n")

    result = run(*arguments)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {Path.cwd() / 'mine.toml'}: there is no setting 'nonsense'; choose from ")


def test_nothing_that_a_command_makes_is_for_everybody_to_write_to():
    before = os.umask(0)
    try:
        assert run("completion", "bash").exit_code == 0
        assert os.umask(0) == 0o002
    finally:
        os.umask(before)


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["clasify"], "there is no command 'clasify'; did you mean 'classify'?"),
        (["stats"], "did you mean 'status'?"),
        (["xyzzy"], "there is no command 'xyzzy'; there are demo, scan, train,"),
        (["results", "shwo", "x"], "did you mean 'show'?"),
        (["--nope"], "No such option '--nope'"),
        (["classify"], "Missing argument 'SOURCE'"),
        (["classify", "."], "Missing option '--model'"),
        (["classify", ".", "--model", "m", "--top-k", "0"], "'--top-k'"),
        (["classify", ".", "--model", "m", "--format", "xls"], "'xls' is not one of 'csv', 'json', 'jsonl'"),
        (["classify", ".", "--model", "m", "--max-failures", "²"], "'²' is neither a count such as 20 nor a share"),
        (["classify", ".", "--model", "m", "--max-failures", "101%"], "'101%' is neither a count"),
        (["classify", ".", "--model", "m", "--max-failures", "-1"], "'-1' is neither a count"),
        (
            ["train", ".", "--name", "m", "--arch", "transformer"],
            "unknown architecture 'transformer'; `pigeonhole models architectures` lists them",
        ),
        (["completion", "tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
        (["up", "--device", "gpu"], "--device 'gpu' is not a device of this machine; choose from cpu"),
        (["up", "--device", "../x"], "--device '../x' is not a device of this machine; choose from cpu"),
    ],
)
def test_an_invalid_command_line_is_one_line_and_exit_code_2(home, arguments, told):
    result = run(*arguments)

    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not home.exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PigeonholeError("x"), ExitCode.FAILED),
        (UsageError("x"), ExitCode.USAGE),
        (NotFoundError("x"), ExitCode.NOT_FOUND),
        (UnavailableError("x"), ExitCode.UNAVAILABLE),
        (MessageError("x"), ExitCode.FAILED),
        (IntegrityError("x"), ExitCode.FAILED),
        (ModelNotFoundError("x"), ExitCode.NOT_FOUND),
        (ModelFormatError("x"), ExitCode.FAILED),
        (ModelNameError("x"), ExitCode.USAGE),
        (DataError("x"), ExitCode.USAGE),
        (redis.ConnectionError("gone"), ExitCode.UNAVAILABLE),
        (PermissionError(13, "Permission denied", "/srv/home"), ExitCode.FAILED),
        (OSError(28, "No space left on device"), ExitCode.FAILED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_an_error_leaves_as_one_line_and_its_exit_code(error, code, capsys):
    with pytest.raises(SystemExit) as end, report_errors():
        raise error

    assert end.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_message_of_several_lines_leaves_as_one(capsys):
    with pytest.raises(SystemExit), report_errors():
        raise PigeonholeError("first\nsecond\n  third")

    assert capsys.readouterr().err == "error: first second third\n"


def test_a_path_that_click_refuses_is_told_with_its_owner(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)

    result = run("scan", str(tmp_path / "closed"))

    assert result.exit_code == 2
    assert f"Path '{tmp_path}/closed' is not readable: '{tmp_path}/closed', in '/', which belongs to " in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("x"), BrokenPipeError(32, "Broken pipe")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)), report_errors():
        raise error


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PIGEONHOLE_LEASE_S", "soon", "setting 'lease_s'"),
        ("PIGEONHOLE_SERVER_URL", "http://queue", "must start with one of redis://, rediss://, unix://"),
        ("PIGEONHOLE_SERVER_URL", "redis://queue:99999", "has no port from 1 to 65535"),
    ],
)
def test_a_setting_that_cannot_be_used_is_a_usage_error(home, monkeypatch, name, value, told):
    monkeypatch.setenv(name, value)

    result = run("workers", "list")

    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


# Without a server


@pytest.mark.parametrize("command", [["workers", "list"], ["worker", "--device", "cpu"]])
def test_without_a_server_a_command_that_needs_one_names_the_one_that_starts_it(home, command):
    done = subprocess.run([sys.executable, "-m", "orchestrator", *command], capture_output=True, text=True)

    assert done.returncode == 69
    said = without_waiting(done.stderr).splitlines()
    assert ["start one with `pigeonhole up`" in line for line in said] == [True], done.stderr
    assert not home.exists()


@pytest.mark.parametrize("url", ["unix:///tmp/pigeonhole-nowhere.sock", "redis://:hush@127.0.0.1:1"])
def test_a_configured_server_that_does_not_answer_is_an_error_and_leaves_nothing_behind(
    home, monkeypatch, tmp_path, url
):
    publish_model(home / "models", "digits")
    make_pngs(tmp_path / "in", 1)
    before = left_behind(home)
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", url)

    for arguments in (["classify", str(tmp_path / "in"), "--model", "digits", "-o", "out.csv"], ["workers", "list"]):
        result = run(*arguments)

        assert result.exit_code == 69
        assert result.stderr.startswith(f"error: no server answers at {url.replace(':hush', '***')}")
        assert "`pigeonhole up`" in result.stderr
        assert result.stderr.count("\n") == 1
    assert left_behind(home) == before
    assert left_behind(Path.cwd()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["classify", "nowhere", "--model", "digits"], 4, "there is no 'nowhere'"),
        (["classify", "in", "--model", "digit"], 4, "did you mean 'digits'?"),
        (["classify", "in", "--model", "digits@7"], 4, "no model 'digits@7'; versions of 'digits': 1"),
        (["classify", "empty", "--model", "digits"], 2, "'empty' holds no images; left out: 1 .txt"),
        (["classify", "in", "--model", "digits", "-o", "no/out.csv"], 2, "there is no folder"),
        (["classify", "in", "--model", "digits", "-o", "in"], 2, "does not end in one of .csv, .json, .jsonl"),
        (["classify", "in", "--model", "digits", "-o", "in", "--format", "csv"], 2, "is a folder; name a file in it"),
        (["classify", "in", "--model", "digits", "-o", "mine.csv"], 2, "replace it with --overwrite"),
        (["classify", "in", "--model", "digits", "-o", "pipe.csv", "--overwrite"], 2, "is not a regular file"),
        (["classify", "in", "--model", "digits", "--root", "in"], 2, "needs a list of paths"),
        (["train", "nowhere", "--name", "m"], 4, "there is no 'nowhere'"),
        (["train", "empty", "--name", "m"], 2, "expected a folder per class"),
        (["train", "in", "--name", "No Name"], 2, "model name 'No Name' must be"),
        (["train", "in", "--name", "m", "--validation", "2"], 2, "validation: Input should be less than 1, not 2.0"),
    ],
)
def test_an_invalid_job_fails_before_a_local_stack_is_started(home, arguments, code, told):
    publish_model(home / "models", "digits")
    make_pngs(Path("in"), 2)
    Path("empty").mkdir()
    Path("empty/notes.txt").touch()
    Path("mine.csv").write_text("mine")
    os.mkfifo("pipe.csv")
    before = left_behind(home), left_behind(Path.cwd())

    result = run(*arguments)

    assert result.exit_code == code, result.stderr
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert (left_behind(home), left_behind(Path.cwd())) == before


def test_a_home_that_cannot_be_made_is_one_line(monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", "/proc/nowhere")

    result = run("up")

    assert result.exit_code == 1
    assert result.stderr == "error: No such file or directory: '/proc/nowhere'\n"


def test_up_beside_a_configured_server_is_refused(home, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", "redis://:hush@queue:6379/0")

    result = run("up")

    assert result.exit_code == 2
    assert "names another server, redis://***@queue:6379/0; unset it" in result.stderr
    assert not home.exists()


def test_down_without_a_stack_is_no_error(home):
    result = run("down")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no local stack runs\n")
    assert json.loads(run("down", "--json").stdout) == []
    assert not home.exists()


def test_an_empty_home_has_no_jobs_and_no_models(home):
    assert json.loads(run("jobs", "--json").stdout) == []
    assert json.loads(run("models", "list", "--json").stdout) == []
    assert run("jobs").stderr.splitlines()[-1] == "no jobs"
    assert run("models", "list").stderr == "no models; `pigeonhole train` publishes them\n"
    assert not home.exists()


@pytest.mark.parametrize("command", ["status", "watch", "wait", "cancel"])
@pytest.mark.parametrize("job", ["nonsense", "../../etc/passwd", "c000000-000000-000000"])
def test_an_unknown_job_is_an_error_of_one_line(home, command, job):
    result = run(command, job)

    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1
    assert "`pigeonhole jobs` lists them" in result.stderr


@pytest.fixture
def past(home: Path, tmp_path: Path) -> list[JobFolder]:
    """A home that worked before: one job that has ended well, one cancelled, one that has not ended."""
    settings = Settings(home=home)
    jobs = [make_job(settings, ["a.png"], root=tmp_path, output=tmp_path / f"{index}.csv") for index in range(3)]
    ended = datetime.now(UTC)
    jobs[0].write_outcome(Outcome(state="succeeded", ended=ended, num_images=1, num_done=1, result="0.csv"))
    jobs[1].write_outcome(Outcome(state="cancelled", ended=ended, num_images=1))
    return jobs


def test_ended_jobs_are_shown_without_a_server(past):
    done, cancelled, waiting = past

    records = {record["job"]: record["state"] for record in json.loads(run("jobs", "--json").stdout)}
    active = json.loads(run("jobs", "--active", "--json").stdout)
    status = json.loads(run("status", done.job, "--json").stdout)

    assert records == {done.job: "succeeded", cancelled.job: "cancelled", waiting.job: "unknown"}
    assert [record["job"] for record in active] == [waiting.job]
    assert (status["state"], status["num_done"], status["result"]) == ("succeeded", 1, "0.csv")
    assert "showing only what is on the disk" in run("status", done.job).stderr
    assert "images     ? of 1 done, 0 failed" in run("status", waiting.job).stdout
    assert len(json.loads(run("jobs", "--limit", "2", "--json").stdout)) == 2


def test_the_exit_code_of_wait_and_watch_is_the_ended_jobs(past):
    done, cancelled, waiting = past

    assert run("wait", done.job).exit_code == 0
    assert run("watch", done.job).stdout == "0.csv\n"
    assert run("wait", done.job, cancelled.job).exit_code == 1
    assert [record["state"] for record in json.loads(run("wait", done.job, cancelled.job, "--json").stdout)] == [
        "succeeded",
        "cancelled",
    ]
    assert run("watch", cancelled.job).exit_code == 1
    assert run("wait", done.job, waiting.job).exit_code == 69


def test_cancelling_an_ended_job_shows_its_state_and_needs_no_server(past):
    done = past[0]

    result = run("cancel", done.job)

    assert (result.exit_code, result.stderr) == (0, f"job {done.job} has ended already: succeeded\n")
    assert json.loads(run("cancel", done.job, "--json").stdout) == {"job": done.job, "state": "succeeded"}


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_job_that_is_being_published_cannot_be_cancelled_which_is_a_failure(past, monkeypatch, options):
    class Publishing:
        def cancel(self, job):
            return "finalizing"

    monkeypatch.setattr("orchestrator.cli.jobs.follow.open_client", Publishing)
    waiting = past[2]

    result = run("cancel", waiting.job, *options)

    message = f"job {waiting.job} is finalizing: too late to cancel\n"
    assert (result.exit_code, result.stderr) == (1, message)


@pytest.mark.parametrize("spoil", ["remove", "damage", "future", "index"])
def test_one_job_that_cannot_be_read_does_not_hide_the_others(past, spoil):
    bad, *good = past
    path = bad.path / "job.json"
    if spoil == "remove":  # as it is between two steps of being submitted
        path.unlink()
    elif spoil == "index":
        (bad.path / "listing.index").write_bytes(b"\0" * 1000)
    else:
        path.write_text({"damage": "{", "future": '{"version": 2, "kind": "classify"}'}[spoil])

    result = run("jobs", "--json")

    assert result.exit_code == 0
    assert {record["job"] for record in json.loads(result.stdout)} == {job.job for job in good}
    assert (f"cannot read job {bad.job}" in result.stderr) == (spoil != "remove")


def test_models_are_listed_and_shown_without_a_server(home):
    version = publish_model(home / "models", "digits")
    publish_model(home / "models", "other", seed=1)

    listed = json.loads(run("models", "list", "--json").stdout)
    shown = json.loads(run("models", "show", "digits", "--json").stdout)

    assert [(record["model"], record["num_labels"]) for record in listed] == [("digits@1", 10), ("other@1", 10)]
    assert (shown["digest"], shown["path"]) == (version.digest, str(version.path))
    assert "digits@1" in run("models", "list").stdout
    assert "labels                     10: 0, 1, 2" in run("models", "show", "digits@1").stdout
    assert run("models", "show", "digit").exit_code == 4


def test_one_damaged_model_does_not_hide_the_others(home):
    publish_model(home / "models", "digits")
    damaged = publish_model(home / "models", "other", seed=1)
    (damaged.path / "model.json").write_text("{}")

    result = run("models", "list", "--json")

    assert result.exit_code == 0
    assert [record["model"] for record in json.loads(result.stdout)] == ["digits@1"]
    assert "cannot read other@1" in result.stderr
    assert run("models", "show", "other").exit_code == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell):
    result = run("completion", shell)

    assert result.exit_code == 0
    assert "_PIGEONHOLE_COMPLETE" in result.stdout
    assert f"{shell}_complete" in result.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("pigeonhole c", ["classify", "cancel", "completion"]),
        ("pigeonhole models s", ["show", "summary"]),
        ("pigeonhole classify --over", ["--overwrite"]),
    ],
)
def test_a_shell_is_given_completions(words, completed):
    environment = os.environ | {
        "_PIGEONHOLE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    code = "from orchestrator.cli import main; main(prog_name='pigeonhole')"

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == completed


# Interrupts, tables, numbers


def test_an_interrupt_while_following_says_that_the_job_continues(capsys):
    with pytest.raises(SystemExit) as end, on_interrupt("c1"):
        raise KeyboardInterrupt

    assert end.value.code == 130
    assert (
        capsys.readouterr().err
        == "job c1 continues; `pigeonhole watch c1` follows it, `pigeonhole cancel c1` ends it\n"
    )


def test_an_interrupt_anywhere_else_ends_with_130_and_no_traceback(home, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.contract.jobs.job_folder.all_jobs", interrupt)

    result = run("jobs")

    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "interrupted"


def test_a_table_is_as_wide_as_its_cells_and_steers_no_terminal(capsys):
    print_table(("path", "n"), [("a\nb\x1b[31m.png", 1), ("plain", 22)])

    assert capsys.readouterr().out == "PATH              N\na\\nb\\x1b[31m.png  1\nplain             22\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.85, "850 ms"), (12.34, "12.3 s"), (59.97, "60.0 s"), (245, "4 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_wait_takes_several_jobs():
    assert next(param for param in wait.params if param.name == "jobs").nargs == -1
