"""docs/lines.md and docs/security.md do what they show, with a worker that has no model."""

import re
import shlex
from pathlib import Path

import pytest
import redis
import safetensors.numpy
from click.testing import CliRunner

from modeling.images.preprocessing import Preprocessing
from modeling.registry.card import ModelCard
from modeling.registry.store import ModelStore
from orchestrator.cli import main
from orchestrator.contract.lines.settings import LineSettings
from orchestrator.contract.settings import get_settings
from orchestrator.lines import LineClient
from orchestrator.lines.line_file import read_line_file
from orchestrator.pages.alphabet import CHARACTER_OF
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.published_models import make_pngs, write_model

pytestmark = pytest.mark.integration
DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "lines.md").read_text()
TOML = re.search(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]
TRY_IT = re.search(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]


def test_the_commands_of_try_it_work_as_typed(tmp_path, monkeypatch, server):
    card = ModelCard("cnn", tuple(CHARACTER_OF), Preprocessing("L", 28, 28), "")
    staged = write_model(tmp_path / "staged", card, safetensors.numpy.save({}))
    ModelStore(tmp_path / "home" / "models").publish(staged, "letters")
    make_pngs(tmp_path / "pngs", 3)
    (tmp_path / "demo-output").mkdir()
    (tmp_path / "pngs" / "00000").rename(tmp_path / "demo-output" / "characters")
    (tmp_path / "post.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", server.url)

    with line_worker(server.url):
        said = [
            run(line)
            for line in re.findall(r"^\$ pigeonhole (.*)$", TRY_IT, re.MULTILINE)
            if line not in ("up", "down")
        ]

    assert any("line post: created" in text for text in said)
    assert sum(text.count('"pass": 2') for text in said) == 3
    assert not (tmp_path / "home" / "lines" / "post").exists()


def run(line: str) -> str:
    """The output of a command as it is typed into a shell."""
    get_settings.cache_clear()
    words = [
        name for word in shlex.split(line) for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]
    result = CliRunner().invoke(main, words, prog_name="pigeonhole")
    assert result.exit_code == 0, f"{line}: {result.stderr}"
    return result.output


def test_every_key_of_a_line_is_in_the_table_of_settings(tmp_path):
    (tmp_path / "post.toml").write_text(TOML)

    settings = LineSettings.from_json(read_line_file(tmp_path / "post.toml"))

    assert (settings.deadline_ms, settings.bins["upper_a"]) == (500, ("1", "2"))
    table = PAGE.partition("## Settings")[2].partition("###")[0]
    names = {"deadline_ms": "deadline", "keep_s": "keep", "keep_images_s": "keep_images", "bins": "[bins]"}
    assert [name for name in LineSettings.__slots__ if f"`{names.get(name, name)}`" not in table] == []


def test_every_reason_and_cause_is_explained():
    from orchestrator.contract.lines.answers import CAUSES, REASONS

    rows = [line for line in PAGE.splitlines() if line.startswith("|")]

    assert [name for name in (*REASONS, *CAUSES) if not any(f"| `{name}` |" in row for row in rows)] == []


def test_the_servers_user_may_call_what_the_scripts_of_clients_call():
    rule = re.search(r"^ACL SETUSER .*$", (DOCS / "security.md").read_text(), re.MULTILINE)[0]
    scripts = DOCS.parent / "orchestrator" / "contract" / "lines" / "lua"
    texts = [
        (scripts / f"{name}.lua").read_text()
        for name in ("common", "admit", "settle", "deliver", "discharge", "sweep", "look_up")
    ]

    called = {command.lower() for text in texts for command in re.findall(r"redis\.call\('(\w+)'", text)}

    assert len(called) > 20
    assert called <= {word[1:] for word in rule.split() if word.startswith("+")}


def test_the_servers_user_for_one_line_can_push_there_and_nothing_else(server):
    rule = re.search(r"^ACL SETUSER .*$", (DOCS / "security.md").read_text(), re.MULTILINE)[0]
    enter_line(server.url, make_line())
    enter_line(server.url, make_line("other"))
    admin = redis.Redis.from_url(server.url)
    admin.execute_command("ACL", "LOG", "RESET")  # of other tests with this server
    admin.execute_command(*rule.replace(">SECRET", ">hush").split())
    url = server.url.replace("unix://", "unix://belt:hush@")
    try:
        with line_worker(server.url), LineClient("post", url, deadline=60) as client:
            answers = [client.push(b"image", "a"), client.push(b"image", "a"), client.push(b"other", "a")]
            client.discharged("a", 1, "9")
        with LineClient("post", url, deadline=60) as client:
            client.push(b"image", "a")  # the first answer stands; the client knows its line
            late = client.push(b"image", "b", deadline=0.1)
            found = client.answer("b")
        assert [answer.reason for answer in answers] == [None, None, "conflict"]
        assert late.bin == found.bin == "F"
        assert admin.hget("{pigeonhole}:line:post:discharged", "1/a") == b"9"
        assert admin.execute_command("ACL", "LOG") == []

        user = redis.Redis.from_url(url)
        for command in (
            ("HGET", "{pigeonhole}:line:other:line", "num"), ("HSET", "{pigeonhole}:lines", "x", "y"), ("KEYS", "*"),
            ("HGET", "{pigeonhole}:home", "id"), ("RPUSH", "classify", "x"), ("FLUSHALL",), ("CONFIG", "GET", "*"),
        ):  # fmt: skip
            with pytest.raises(redis.exceptions.NoPermissionError):
                user.execute_command(*command)
    finally:
        admin.execute_command("ACL", "DELUSER", "belt")
        admin.execute_command("ACL", "LOG", "RESET")
