"""`pigeonhole gateway`: options that cannot be used are one line, and nothing listens."""

import socket
import subprocess
import sys

import pytest

from tests.support.gateway import write_tokens
from tests.support.invoke import invoke


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    write_tokens(tmp_path)
    (tmp_path / "cert.pem").write_text("no certificate")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "name a --token-file"),
        (["--host", "192.0.2.1", "--token-file", "FOLDER/tokens.txt"], "cannot listen at 192.0.2.1"),
        (["--host", "nonsense", "--token-file", "FOLDER/tokens.txt"], "is not an address"),
        (["--tls-cert", "FOLDER/cert.pem"], "belong together"),
        (["--tls-cert", "FOLDER/cert.pem", "--tls-key", "FOLDER/cert.pem"], "cannot be used"),
        (["--token-file", "FOLDER/none"], "cannot be read"),
        (["--root", "FOLDER/none"], "is not a folder"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(folder, arguments, says):
    result = invoke("gateway", "--port", "0", *(each.replace("FOLDER", str(folder)) for each in arguments))

    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_said(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = invoke("gateway", "--port", taken.getsockname()[1])

    assert result.exit_code == 2
    assert "Address already in use" in result.stderr


def test_the_gateway_imports_neither_torch_nor_celery():
    program = "import sys, orchestrator.gateway.serve; print([m for m in ('torch', 'celery') if m in sys.modules])"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
