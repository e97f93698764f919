"""The open inference protocol, by an unmodified tritonclient, a real gateway and a real worker."""

import contextlib
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling.registry.store import ModelStore
from tests.support.gateway import write_tokens
from tests.support.pushes import digit_png, open_line, registry_of
from tests.support.server import wait_until
from tests.support.workers import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-tritonclient" / "bin" / "python"
SCRIPTS = ROOT / "tests" / "tritonclient"
EXAMPLE = ROOT / "examples" / "infer_with_tritonclient.py"


needs_client = pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-tritonclient; `make test` makes it")


@contextlib.contextmanager
def gateway_of(cluster: Cluster, *options: str | Path) -> Iterator[str]:
    """A gateway of the cluster, as host and port. Lines that are made meanwhile are removed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    registry, before = registry_of(cluster), registry_of(cluster).names()
    process = cluster.start("gateway", "--port", str(port), *map(str, options))
    try:
        wait_until(lambda: listens(port), what="the gateway listens")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
        for name in set(registry.names()) - set(before):
            registry.remove(name)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the images that the scripts send."""
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(digit_png(number))
    with Image.open(tmp_path / "0.png") as image:
        np.save(tmp_path / "pixels.npy", np.asarray(image.convert("RGB")))
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


@needs_client
def test_an_unmodified_tritonclient_is_answered_as_the_protocol_says(running_cluster, images):
    models = ModelStore(running_cluster.settings.models)
    models.set_alias(models.resolve("digits@1"), "champion")

    with gateway_of(running_cluster) as address:
        open_line(running_cluster, "over-http")
        checks = json.loads(run(SCRIPTS / "conformance.py", address, images))
        example = run(EXAMPLE, address, "digits", images / "0.png", images / "broken.png").splitlines()

    assert len(checks) > 20
    assert failed(checks) == []
    assert re.fullmatch(r".*/0\.png: \d 0\.\d\d \((0\.\d{6}:\d:\d(, )?){3}\)", example[0])
    assert example[1:] == [f"{images}/broken.png: unreadable"]


@needs_client
def test_an_unmodified_tritonclient_is_refused_with_the_reason_and_a_time_to_come_again(running_cluster, images):
    tokens = write_tokens(images)

    with gateway_of(running_cluster, "--token-file", tokens) as address:
        open_line(running_cluster, "too-full", max_bytes=1)
        open_line(running_cluster, "at-rest")
        running_cluster.run_ok("lines", "pause", "at-rest")
        checks = json.loads(run(SCRIPTS / "refusals.py", address, images, tokens))

    assert len(checks) == 6
    assert failed(checks) == []


def failed(checks: dict[str, str | None]) -> list[str]:
    return [f"{name}: {trouble}" for name, trouble in checks.items() if trouble]


def run(*arguments: str | Path) -> str:
    """The standard output of a program with tritonclient."""
    done = subprocess.run([PYTHON, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
