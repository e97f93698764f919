"""`pigeonhole doctor` without a server: what it finds, what it warns of, and that it changes nothing."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from modeling.images import heif, quotas
from orchestrator.cli import doctor as module
from orchestrator.cli import main
from orchestrator.contract.settings import get_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that does not exist yet, and an empty present folder; torch is not asked, which takes seconds."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(module, "_torch", lambda _: module.CheckResult("torch", True, "not asked"))
    return tmp_path / "home"


def doctor() -> tuple[int, dict[str, Any]]:
    """The exit code, and what was found by the name of the check."""
    get_settings.cache_clear()
    result = CliRunner().invoke(main, ["doctor", "--json"])
    return result.exit_code, {finding["name"]: finding for finding in json.loads(result.stdout)}


def test_doctor_lists_what_is_missing_and_changes_nothing(home: Path):
    code, findings = doctor()

    assert code == 1
    assert {name: finding["ok"] for name, finding in findings.items()} == {
        "python": True, "machine": True, "settings": True, "torch": True, "heic": True, "home": True, "program": True,
        "server": False, "workers": False, "jobs": True, "models": True,
    }  # fmt: skip
    assert findings["server"]["cure"] == "pigeonhole up"
    assert findings["home"]["found"].startswith(f"{home}, ")
    assert findings["home"]["found"].endswith("does not exist yet")
    assert not home.exists()
    assert list(home.parent.iterdir()) == [Path.cwd()]


@pytest.mark.parametrize("version", ["", "1.8.1"])
def test_doctor_names_the_extra_that_reads_phones_photographs(
    home: Path, monkeypatch: pytest.MonkeyPatch, version: str
):
    monkeypatch.setattr(heif, "heif_version", lambda: version)

    finding = doctor()[1]["heic"]

    warning = "" if version else f"for the photographs of most phones: {heif.EXTRA}"
    found = f"pillow-heif {version}" if version else "HEIC images are not read"
    assert finding == {"name": "heic", "ok": True, "found": found, "cure": "", "warning": warning}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("folder", ["", "jobs", "models"])
def test_a_home_that_cannot_be_written_to_is_bad_also_if_only_a_folder_in_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, code: int, folder: str
):
    (home / folder).mkdir(parents=True)
    home.chmod(0o700)

    def write(written: Path) -> None:
        if written == home / folder:
            raise OSError(code, os.strerror(code))  # as writing to an open file does: without a path

    monkeypatch.setattr("orchestrator.contract.home.try_to_write", write)

    _, findings = doctor()

    assert not findings["home"]["ok"]
    assert f"cannot write: {os.strerror(code)}: {str(home / folder)!r}; " in findings["home"]["found"]


def test_a_file_in_the_place_of_the_home_is_bad(home: Path):
    home.touch()

    assert doctor()[1]["home"]["found"] == f"{home} is not a folder"


def test_a_home_that_others_may_enter_is_a_warning(home: Path):
    home.mkdir()
    home.chmod(0o755)

    _, findings = doctor()

    assert findings["home"]["ok"]
    assert findings["home"]["warning"] == f"others may enter it (mode 0755): `chmod 700 {home}`, or set home_group"


def test_the_settings_file_that_counts_is_told_and_one_that_does_not_is_a_warning(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PIGEONHOLE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "pigeonhole" / "pigeonhole.toml"

    assert doctor()[1]["settings"]["found"] == f"no file; {file} would be read"
    file.parent.mkdir()
    file.write_text("slice_s = 4\n")
    Path("pigeonhole.toml").touch()
    settings = doctor()[1]["settings"]
    assert (settings["ok"], settings["found"]) == (True, str(file))
    assert settings["warning"].startswith(f"{str(Path.cwd() / 'pigeonhole.toml')!r} is not read: ")


def test_quotas_and_what_follows_from_them_are_shown(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "num_cores", lambda: 1)
    monkeypatch.setattr(quotas, "num_affine_cores", lambda: 4)
    monkeypatch.setattr(quotas, "cpu_quota", lambda: 0.5)
    monkeypatch.setattr(quotas, "memory_quota", lambda *_: 3 * 10**9)
    monkeypatch.setattr(module, "memory_total", lambda: 3 * 10**9)

    found = doctor()[1]["machine"]["found"]

    assert found.startswith("4 cores, limited to 0.5 by the quota of a cgroup, ")
    assert " GB memory, limited to 3.0 GB by the quota of a cgroup, " in found
    assert " GB free: 1 thread, " in found


def test_a_quota_that_limits_nothing_is_not_shown(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quotas, "num_affine_cores", lambda: 4)
    monkeypatch.setattr(quotas, "cpu_quota", lambda: 16.0)
    monkeypatch.setattr(quotas, "memory_quota", lambda *_: None)

    machine = doctor()[1]["machine"]

    assert machine["found"].startswith("4 cores, ")
    assert "quota" not in machine["found"]
    assert machine["warning"] == ""


def test_less_memory_than_a_worker_needs_is_a_warning(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "memory_total", lambda: 10**9)

    assert doctor()[1]["machine"]["warning"].startswith("a worker needs about 2.1 GB, ")


def test_a_check_that_is_refused_is_bad_and_the_others_still_run(home: Path, monkeypatch: pytest.MonkeyPatch):
    def _jobs(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(home / "active"))

    monkeypatch.setattr(module, "_jobs", _jobs)

    code, findings = doctor()

    assert code == 1
    assert findings["jobs"]["found"].startswith(f"Permission denied: '{home}/active'")
    assert findings["models"]["ok"]
