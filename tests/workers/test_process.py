"""A worker's parent process: how its start fails."""

from click.testing import CliRunner

from orchestrator.contract.errors import ExitCode
from workers import process


def test_a_worker_whose_server_goes_away_while_it_starts_ends_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", f"unix://:secret@{tmp_path}/none.sock")
    monkeypatch.setattr(process, "require_answer", lambda client, url: None)  # it answers, and is gone a moment later

    result = CliRunner().invoke(process.main, ["--device", "cpu"])

    assert result.exit_code == ExitCode.UNAVAILABLE
    assert result.stderr.startswith("error: the server went away while the worker started: ")
    assert result.stderr.endswith("; start it again\n")
    assert "secret" not in result.stderr
