"""Every file in examples/ runs as its first lines say, on small data."""

import base64
import contextlib
import http.client
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, all_jobs
from orchestrator.contract.jobs.listing import read_facts
from orchestrator.contract.jobs.restore import output_of
from orchestrator.contract.settings import Settings
from orchestrator.contract.webhooks.secret import sign
from tests.support.fakes import FakeFinalizeLease, write_fake_parts
from tests.support.gateway import TOKENS, make_context, served, write_tokens
from tests.support.images import make_class_folders
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.manifests import answered, failed, publish_rows
from tests.support.published_models import make_pngs, publish_model
from tests.support.readers import python_with
from tests.support.server import running_server, wait_until
from tests.support.telegram_controllers import TelegramProcess
from workers.finalize.publish import publish_manifest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
ELSEWHERE = {"infer_with_tritonclient.py"}  # tests/integration/test_tritonclient.py runs it
ROWS = [
    answered("0001.png", "7", score=0.98, decision="accept"),
    answered("0002.png", "NA", score=0.61, decision="review"),
    failed("0003.png"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the examples run in, with a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    return tmp_path


def run(name: str, *arguments: str, **variables: str) -> str:
    """The standard output of an example, which must succeed."""
    programs = {".sh": [], ".mjs": ["node"], ".py": [sys.executable]}
    command = [*programs[Path(name).suffix], str(EXAMPLES / name)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path} | variables
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """As `run`, in this process, which has imported torch; what the example starts finds our command."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def write_manifest(path: Path) -> None:
    """A manifest with a row of each kind, with its sidecar and its summary."""
    publish_rows(path, ROWS, path.parent)


def test_every_example_is_in_the_index_and_has_a_test_here() -> None:
    names = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh", ".mjs", ".ipynb"))
    index, tests = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()

    assert [name for name in names if f"({name})" not in index or f'"{name}"' not in tests] == []
    assert len(names) >= 6


def test_classify_images(here: Path, run_here: Callable[..., str]) -> None:
    publish_model(here / "home" / "models", "digits")
    make_pngs(here / "images", 3)
    images = sorted((here / "images").rglob("*.png"))
    (here / "broken.png").write_bytes(b"")

    said = run_here("classify_images.py", str(here / "home" / "models" / "digits"), *map(str, images), "broken.png")

    assert len(said.splitlines()) == 4
    assert said.splitlines()[-1].startswith("broken.png: empty: ")


def test_train_model(here: Path, run_here: Callable[..., str]) -> None:
    make_class_folders(here / "photos", 40)

    said = run_here("train_model.py", "photos", "trained")

    assert "'epoch': 3" in said
    assert "test accuracy" in said
    assert (here / "trained" / "model.json").is_file()


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.jsonl"])
def test_manifest_with_pandas(here: Path, name: str) -> None:
    pytest.importorskip("pandas")
    write_manifest(here / name)

    said = run("manifest_with_pandas.py", name)

    assert "NA" in said
    assert "1 of 3 images failed; 20 bytes were read" in said


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.jsonl"])
def test_manifest_with_polars(here: Path, name: str) -> None:
    pytest.importorskip("polars")
    write_manifest(here / name)

    said = run("manifest_with_polars.py", name)

    assert "NA" in said
    assert "truncated" in said


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.jsonl"])
def test_manifest_with_duckdb(here: Path, name: str) -> None:
    python = python_with("duckdb")
    write_manifest(here / name)

    said = subprocess.run([python, EXAMPLES / "manifest_with_duckdb.py", name], capture_output=True, text=True)

    assert said.returncode == 0, said.stderr
    assert "NA" in said.stdout
    assert "truncated" in said.stdout


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.jsonl"])
def test_manifest_for_a_spreadsheet(here: Path, run_here: Callable[..., str], name: str) -> None:
    write_manifest(here / name)

    run_here("manifest_for_a_spreadsheet.py", name, "labels.csv")

    table = "label,accept,review,reject,undecided,bytes\r\n7,1,0,0,0,10\r\nNA,0,1,0,0,10\r\n"
    assert (here / "labels.csv").read_bytes() == b"\xef\xbb\xbf" + table.encode()


def test_import_timm_checkpoint(here: Path, run_here: Callable[..., str]) -> None:
    pytest.importorskip("timm")
    (here / "labels.json").write_text('["robin", "wren"]')

    run_here("import_timm_checkpoint.py", "resnet18", "labels.json", "birds")

    assert ModelStore(here / "home" / "models").resolve("birds").version == 1


def test_first_hour(here: Path) -> None:
    make_class_folders(here / "photos", 40)
    shutil.copytree(here / "photos" / "down", here / "new")
    cells = json.loads((EXAMPLES / "first_hour.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    (here / "first_hour.py").write_text(code)

    environment = os.environ | {"PYTHONPATH": str(ROOT), "DATA": "photos", "NEW": "new"}
    done = subprocess.run([sys.executable, "first_hour.py"], env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "test_accuracy" in done.stdout
    assert "Counter(" in done.stdout


@pytest.mark.integration
@pytest.mark.parametrize("name", ["push_from_a_belt.py", "push_from_asyncio.py"])
def test_a_line_answers_what_is_pushed(here: Path, name: str) -> None:
    make_pngs(here / "images", 2)
    images = sorted((here / "images").rglob("*.png"))
    (here / "broken.png").write_bytes(b"")
    with running_server() as server:
        enter_line(server.url, make_line())
        with line_worker(server.url):
            said = run(str(patient(here, name)), "post", server.url, *map(str, images), "broken.png")

    assert "unreadable" in said
    assert len(said.splitlines()) == 4


def patient(here: Path, name: str) -> Path:
    """The example with a deadline that a busy machine keeps, too, its first push beside connecting."""
    text = (EXAMPLES / name).read_text()
    assert "deadline=0.5" in text
    (here / name).write_text(text.replace("deadline=0.5", "deadline=20"))
    return here / name


def test_a_belt_without_arguments_says_how_it_is_called(here: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "push_from_a_belt.py")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (1, "usage: push_from_a_belt.py LINE URL IMAGE...\n")


@pytest.mark.integration
def test_a_controller_that_speaks_telegrams_gets_its_bins(here: Path) -> None:
    images = [here / "a.jpg", here / "bad.jpg"]
    for image in images:
        image.write_bytes(image.stem.encode())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with running_server() as server:
        enter_line(server.url, make_line(deadline_ms=60_000))
        environment = {"PIGEONHOLE_HOME": str(here / "home"), "PIGEONHOLE_SERVER_URL": server.url}
        service = TelegramProcess(["--line", "post", "--port", port], environment, here / "log")
        with line_worker(server.url):
            service.start()
            said = run("telegram_controller.py", "127.0.0.1", port, *map(str, images))
            assert service.stop() == 0

    assert sorted(said.splitlines()) == ["000000 -> 1", "000001 -> F (unreadable)"]


@pytest.mark.integration
def test_nightly_publishes_once_a_day(here: Path) -> None:
    publish_model(here / "home" / "models", "digits")
    make_pngs(here / "inbox", 5)
    (here / "manifests").mkdir()
    day = date.today()
    arguments = (str(here / "inbox"), "digits", str(here / "manifests"))
    try:
        run("nightly.sh", *arguments)
        [manifest] = here.glob("manifests/*.csv")
        first = manifest.read_bytes()
        run("nightly.sh", *arguments)
    finally:
        subprocess.run([str(Path(sys.executable).parent / "pigeonhole"), "down"], env=os.environ, check=True)

    assert manifest.read_bytes() == first
    assert len(list(here.glob("manifests/*.csv"))) == 1 or date.today() != day


@pytest.mark.integration
def test_a_job_over_http_is_followed_to_its_end(here: Path) -> None:
    publish_model(here / "home" / "models", "digits")
    make_pngs(here / "data" / "inbox", 3)
    with running_server() as server:
        context = make_context(here / "home", server_url=server.url, port=0, roots=(here / "data",))
        with served(context) as gateway, ThreadPoolExecutor() as threads:
            arguments = (gateway.url, str(here / "data" / "inbox"), "digits", "fetched.csv")
            said = threads.submit(run, "job_over_http.py", *arguments)
            publish_without_workers(context.settings)

            lines = said.result().splitlines()

    assert "partial, 3/3 images, 1 failed" in lines[-2]
    assert lines[-1].endswith("00000002.png: there is no such file")
    assert (here / "fetched.csv").read_text().count("\n") == 4


def publish_without_workers(settings: Settings) -> None:
    """Wait for a job, and end it as workers would."""
    wait_until(lambda: all_jobs(settings), what="the job is submitted")
    folder = JobFolder(settings, all_jobs(settings)[0])
    wait_until(lambda: folder.path.is_dir() and read_facts(folder.path), what="its images are listed")
    write_fake_parts(folder)
    request = folder.request()
    publish_manifest(folder, request, None, FakeFinalizeLease())
    outcome = Outcome(state="partial", ended=datetime.now(UTC), num_images=3, num_done=3, num_failed=1)
    folder.write_outcome(outcome.model_copy(update={"result": output_of(request)}))


def test_the_receiver_of_webhooks_believes_only_what_is_signed(here: Path):
    secret = base64.b64encode(bytes(32)).decode()
    (here / "secret").write_text(f"whsec_{secret}\n")
    body = json.dumps({"data": {"job": "j1", "state": "succeeded", "result": "out.csv"}}).encode()
    command = [sys.executable, str(EXAMPLES / "receive_webhooks.py"), "secret", "--port", "0", "--once"]

    answers = []
    for forged in (False, True):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
            assert receiver.stdout is not None
            port = int(receiver.stdout.readline().split()[-1])
            now = int(time.time())
            headers = {
                "webhook-id": "1",
                "webhook-timestamp": str(now),
                "webhook-signature": sign(bytes(32), "1", now, body),
            }
            sent = body.replace(b"j1", b"j2") if forged else body
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
                connection.request("POST", "/", sent, headers)
                answers.append((connection.getresponse().status, receiver.stdout.read()))

    assert answers == [(204, "j1 succeeded: out.csv\n"), (400, "")]


@pytest.mark.integration
@pytest.mark.parametrize(
    "name", ["push_over_http.sh", "push_with_requests.py", "push_with_httpx.py", "push_from_node.mjs"]
)
def test_pushes_through_the_gateway(here: Path, name: str) -> None:
    if shutil.which({".sh": "curl", ".mjs": "node"}.get(Path(name).suffix, "sh")) is None:
        pytest.skip("the program is not here")
    image = here / "1.jpg"
    image.write_bytes(b"an image")
    item = [] if name.endswith(".py") else ["item-1"]
    with running_server() as server:
        enter_line(server.url, make_line("postcards", deadline_ms=20_000))
        context = make_context(here / "home", server_url=server.url, port=0, token_file=write_tokens(here))
        with line_worker(server.url, "postcards"), served(context) as gateway:
            output = run(
                name, "postcards", str(image), *item, GATEWAY_URL=gateway.url, GATEWAY_TOKEN=TOKENS["push"]
            )  # fmt: skip

    assert "1" in output.split() or '"bin": "1"' in output
    assert all(token not in output for token in TOKENS.values())
