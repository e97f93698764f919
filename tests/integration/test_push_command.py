"""`pigeonhole push` with a real server, and a worker that has no model."""

import json
import os

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import main
from orchestrator.contract.settings import get_settings
from tests.support.line_worker import UNANSWERED, enter_line, line_worker, make_line

pytestmark = pytest.mark.integration
KEYS = ["item", "pass", "bin", "reason", "label", "score", "decision", "model", "ms"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, server):
    """An empty present folder, and a home without anything: the machine of a belt's controller."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", server.url)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def _at_work(server):
    """A line with a worker."""
    enter_line(server.url, make_line(deadline_ms=60_000, max_image_bytes=100))
    with line_worker(server.url):
        yield


def push(*arguments: str, code: int = 0, given: bytes = b"") -> Result:
    """Run `pigeonhole push ... --line post` in this process; a traceback or another exit code fails the test."""
    get_settings.cache_clear()
    result = CliRunner().invoke(main, ["push", *arguments, "--line", "post"], prog_name="pigeonhole", input=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.stderr
    return result


def answers(*arguments: str, code: int = 0, given: bytes = b"") -> list[dict]:
    """The objects that `push --json` prints, one a line, each with all keys in their order."""
    found = [json.loads(line) for line in push(*arguments, "--json", code=code, given=given).stdout.splitlines()]
    assert [list(answer) for answer in found] == [KEYS] * len(found)
    return found


def write(name: str, content: bytes) -> str:
    with open(name, "wb") as file:
        file.write(content)
    return name


@pytest.mark.usefixtures("_at_work")
def test_images_are_answered_in_the_order_given():
    names = [write(f"{number}.jpg", b"image %d" % number) for number in range(50)]

    found = answers(*reversed(names), "--pass", "2")

    assert [answer["item"] for answer in found] == names[::-1]
    assert {tuple(answer[key] for key in KEYS[1:-1]) for answer in found} == {(2, "1", None, "a", 0.9, "accept", "m@1")}
    assert all(answer["ms"] > 0 for answer in found)


@pytest.mark.usefixtures("_at_work")
def test_more_bytes_than_a_client_holds_are_pushed_as_earlier_ones_are_answered(monkeypatch):
    monkeypatch.setattr("orchestrator.cli.push.MOST_IN_FLIGHT", 20)
    names = [write(f"{number}.jpg", b"image %d" % number) for number in range(20)]

    assert [(answer["item"], answer["bin"]) for answer in answers(*names)] == [(name, "1") for name in names]


@pytest.mark.usefixtures("_at_work")
def test_what_is_no_image_gets_the_fallback_bin_and_its_reason_is_told(tmp_path):
    names = [write("a.jpg", b"image"), "missing.jpg", str(tmp_path), write("empty.jpg", b""), write("b.jpg", b"bad")]
    names.append(write("large.jpg", bytes(101)))
    os.mkfifo("pipe.jpg")

    result = push(*names, "pipe.jpg")
    found = answers(*names, "pipe.jpg")

    assert [(answer["bin"], answer["reason"]) for answer in found] == [("1", None)] + 6 * [("F", "unreadable")]
    assert [line.rpartition(": ")[2] for line in result.stderr.splitlines()] == [
        "No such file or directory", "Is a directory", "the image is empty", "not_an_image",
        "the image has 101 bytes; the line takes 100 at most", "no regular file",
    ]  # fmt: skip
    assert result.stderr.count("missing.jpg") == 1
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == [key.upper() for key in KEYS]
    assert rows[1][:-1] == ["a.jpg", "1", "1", "-", "a", "0.9000", "accept", "m@1"]


@pytest.mark.usefixtures("_at_work")
def test_standard_input_is_one_image_with_an_item():
    assert answers("-", "--item", "4711", given=b"image")[0]["item"] == "4711"
    assert answers("-", "--item", "4712", given=b"")[0]["reason"] == "unreadable"


@pytest.mark.usefixtures("_at_work")
def test_an_item_pushed_again_has_its_answer_and_with_other_bytes_conflicts():
    name = write("a.jpg", b"image")
    first = answers(name)[0]
    again = answers(name)[0]

    write(name, b"another")
    other = answers(name, code=1)[0]

    assert (first["reason"], again["reason"], other["reason"], other["bin"]) == (None, None, "conflict", "1")
    assert answers(name, "--pass", "2")[0]["reason"] is None


def test_without_a_worker_the_fallback_bin_comes_by_the_deadline(server):
    enter_line(server.url, make_line())

    answer = answers(write("a.jpg", b"image"), "--deadline", "500ms")[0]

    assert answer["bin"] == "F"
    assert answer["reason"] in UNANSWERED


def test_a_path_outside_the_roots_among_others_is_one_error_and_no_answer(server, tmp_path):
    write("inside.jpg", b"image")
    enter_line(server.url, make_line(deadline_ms=500, roots=(str(tmp_path / "here"),)))

    result = push("inside.jpg", "/outside.jpg", "--by-path", "--json", code=2)

    assert result.stdout == ""
    assert f"/outside.jpg lies under no root of line 'post': {tmp_path}/here" in result.stderr


@pytest.mark.usefixtures("_at_work")
def test_a_path_outside_the_roots_is_refused():
    assert (
        "lies under no root of line 'post': it has none" in push(write("a.jpg", b"image"), "--by-path", code=2).stderr
    )


def test_an_unknown_line_is_not_found_and_without_a_server_there_is_none(monkeypatch, server):
    name = write("a.jpg", b"image")
    enter_line(server.url, make_line("other"))

    assert "there is no line 'post'" in push(name, code=4).stderr
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", "redis://:hush@127.0.0.1:1")
    away = push(name, code=69)
    assert "no server answers at redis://***@127.0.0.1:1" in away.stderr
    assert away.stderr.count("\n") == 1
    late = push(name, "--deadline", "50ms", "--json", code=69)
    assert late.stdout == ""
    assert "before the deadline, so no bin is known" in late.stderr


def test_with_a_deadline_and_a_fallback_bin_it_decides_without_a_server(monkeypatch):
    name = write("a.jpg", b"image")
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", "unix:///tmp/pigeonhole-nowhere.sock")

    result = push(name, "--deadline", "50ms", "--fallback", "Z", "--json")

    assert [json.loads(result.stdout)[key] for key in ("bin", "reason")] == ["Z", "no_server"]
    assert result.stderr == "1 of 1 images were decided here: the server did not answer\n"
