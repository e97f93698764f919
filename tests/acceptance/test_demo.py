"""The demos: of jobs, which is the first command of a new user, and of a line."""

import contextlib
import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from orchestrator.cli.demo.line import Script
from orchestrator.cli.demo.line_report import run_line_demo
from orchestrator.lines.simulate.arrivals import Load
from tests.support.server import wait_until
from tests.support.watched import Watched
from tests.support.workers import enable_interrupts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@pytest.fixture
def adopting() -> Iterator[None]:
    """Makes orphans below this process its children, instead of init's."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    for process in psutil.Process().children():
        if process.status() == psutil.STATUS_ZOMBIE:
            os.waitpid(process.pid, os.WNOHANG)


def descendants() -> set[psutil.Process]:
    """Every process below this one that has not ended."""
    running = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                running.add(process)
    return running


def start_demo(output: Path, environment: dict[str, str], *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "orchestrator", "demo", "-o", str(output), "--json", *options]
    environment = environment | {"PIGEONHOLE_SERVER_URL": "redis://127.0.0.1:1/0"}  # the demo must not care
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=enable_interrupts,  # noqa: PLW1509 it sets one signal
    )  # fmt: skip


def test_the_demo_reads_its_page_contacts_nobody_and_leaves_nothing_running(tmp_path: Path, adopting: None):
    before, watched = descendants(), Watched(tmp_path / "watched")

    demo = start_demo(tmp_path / "demo", watched.environment)
    whole = "the demo, its server, its worker and the worker's child run"
    wait_until(lambda: len(descendants() - before) >= 4 or demo.poll() is not None, what=whole, timeout_s=90)
    num_running = len(descendants() - before)
    out, err = demo.communicate(timeout=350)
    left_running = descendants() - before

    assert demo.returncode == 0, err
    assert num_running >= 4
    facts = json.loads(out)
    assert facts["character_accuracy"] >= 0.97
    assert facts["num_characters"] == 414
    alike = str.maketrans("I", "l")  # the same shape in some fonts: which of them is read depends on the last digits
    assert "Every letter that comes in goes out exactly once" in facts["text"].translate(alike)
    for name in ("scan", "picture", "manifest", "summary", "model"):
        assert Path(facts[name]).exists(), name
    with Image.open(facts["picture"]) as picture:
        assert min(picture.size) > 500
    assert left_running == set()
    assert (watched.contacted(), watched.left_in_home()) == ([], [])
    _reads_by_the_lines_it_shows(facts, tmp_path)


def _reads_by_the_lines_it_shows(facts: dict[str, str], tmp_path: Path) -> None:
    """The model can be imported, and reads the page at once, as the demo read it."""
    environment = os.environ | {"PIGEONHOLE_HOME": str(tmp_path / "home")}
    shown = [
        subprocess.run(
            [sys.executable, "-m", "orchestrator", *shlex.split(facts[name])[1:]],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
        ).stdout
        for name in ("import", "read")
    ]  # fmt: skip

    assert shown[0] == "characters@1\n"
    read, original = shown[1].splitlines(), facts["text"].splitlines()
    assert [len(line) for line in read] == [len(line) for line in original]
    assert sum(one != other for one, other in zip("".join(read), "".join(original), strict=True)) <= 4  # engines differ


def test_the_demo_refuses_a_folder_with_other_files(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")

    demo = start_demo(tmp_path, dict(os.environ))
    _, err = demo.communicate(timeout=60)

    assert demo.returncode == 2
    assert "holds other files" in err
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_the_demo_of_a_line_accounts_for_every_card_although_a_worker_is_killed_and_a_model_replaced(
    tmp_path: Path, adopting: None, capsys: pytest.CaptureFixture[str]
):
    before = descendants()
    script = Script(Load(10, minutes=0.1, poisson=True), per_district=20, epochs=(1, 1))

    run_line_demo(tmp_path / "demo", 0, script, as_json=True)

    facts = json.loads(capsys.readouterr().out)
    num_cards = facts["num_pushed"]
    assert num_cards > 30
    assert (facts["num_decisions"], facts["num_records"], facts["num_counted"]) == (num_cards,) * 3
    assert (facts["balanced"], facts["wrong"]) == (True, [])
    assert sum(row["items"] for row in facts["by_bin_and_reason"]) == num_cards
    assert (facts["killed"], facts["moved"]) == ("worker-cpu-2", ["districts@1", "districts@2"])
    with Image.open(facts["picture"]) as picture:
        assert min(picture.size) > 500
    assert descendants() - before == set()


@pytest.mark.parametrize(
    ("options", "number", "code"), [(["--line"], signal.SIGINT, 130), ([], signal.SIGTERM, 143)], ids=["line", "page"]
)
def test_a_demo_that_is_interrupted_leaves_nothing_running(
    tmp_path: Path, adopting: None, options: list[str], number: int, code: int
):
    before = descendants()

    demo = start_demo(tmp_path / "demo", dict(os.environ), *options)
    whole = "the demo, its server and a worker with its child run"
    wait_until(lambda: len(descendants() - before) >= 4 or demo.poll() is not None, what=whole, timeout_s=90)
    demo.send_signal(number)
    _, err = demo.communicate(timeout=90)

    assert demo.returncode == code, err
    assert descendants() - before == set()
