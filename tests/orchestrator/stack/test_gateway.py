"""Where `up --gateway` lets a gateway listen, and with which options it is started."""

from pathlib import Path

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.stack.gateway import parse_gateway
from tests.support.invoke import invoke


def test_the_gateway_gets_tokens_and_roots_by_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    gateway = parse_gateway("10.0.0.5:81", Path("tokens.txt"), (Path("in"), Path("/out")))

    assert gateway.arguments() == [
        "-m", "orchestrator", "gateway", "--host", "10.0.0.5", "--port", "81",
        "--token-file", f"{tmp_path}/tokens.txt", "--root", f"{tmp_path}/in", "--root", "/out",
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["nowhere", "host:80", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "0.0.0.0:80"])
def test_a_place_that_cannot_be_is_refused(place):
    with pytest.raises(UsageError):
        parse_gateway(place, None)


def test_a_root_without_a_gateway_or_that_is_no_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))

    without, missing = invoke("up", "--root", tmp_path), invoke("up", "--gateway", "--root", tmp_path / "no")

    assert (without.exit_code, "--root needs --gateway" in without.stderr) == (2, True)
    assert (missing.exit_code, "does not exist" in missing.stderr) == (2, True)
    assert not (tmp_path / "home").exists()
