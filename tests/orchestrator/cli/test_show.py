"""`pigeonhole results show` and `results errors` of a manifest that was changed since its job wrote it."""

import json
from pathlib import Path

import pytest

from tests.support.invoke import invoke
from tests.support.manifests import answered, failed, publish_rows


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    return publish_rows(tmp_path / "out.csv", [answered("a.jpg", "cat"), failed("b.jpg")], tmp_path / "in")


@pytest.mark.parametrize("command", ["show", "errors"])
def test_a_manifest_that_was_changed_is_shown_with_a_warning(manifest, command):
    assert "was changed" not in invoke("results", command, str(manifest)).stderr

    manifest.write_bytes(manifest.read_bytes().replace(b"cat", b"cow"))

    warning = f"{manifest} was changed since its job wrote it; `pigeonhole results verify` says how"
    for options in ((), ("--json",)):
        done = invoke("results", command, str(manifest), *options)
        assert (done.exit_code, warning in done.stderr) == (0, True)
    assert len(json.loads(done.stdout)["rows"]) == (2 if command == "show" else 1)
