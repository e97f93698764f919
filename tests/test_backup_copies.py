"""deploy/backup.py without a server: who may read what it copies, an earlier backup, and what fails."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.support.backups import back_up, load_script

OTHER = 4321  # a user and a group that no machine of ours has
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a job."""
    home = tmp_path / "home"
    (home / "jobs" / "j1" / "parts").mkdir(parents=True)
    (home / "id").write_text("0123456789abcdef\n")
    (home / "jobs" / "j1" / "job.json").write_text("{}")
    (home / "jobs" / "j1" / "parts" / "0.part").write_text("rows")
    return home


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mode for path in (folder, *folder.rglob("*"))}


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in (folder, *folder.rglob("*"))}


@pytest.mark.parametrize("mode", [0o700, 0o2770], ids=oct)
def test_every_folder_and_file_has_the_mode_that_it_has_in_the_home(home: Path, tmp_path: Path, mode: int):
    for path in (home, *home.rglob("*")):
        path.chmod(mode if path.is_dir() else mode & 0o660)

    assert back_up(home, tmp_path / "1").returncode == 0

    assert modes(tmp_path / "1" / "home") == modes(home)


@AS_ROOT
def test_root_keeps_the_owners_and_groups(home: Path, tmp_path: Path):
    (home / "models").symlink_to(tmp_path / "gone")
    for path in (home, *home.rglob("*")):
        os.chown(path, OTHER, OTHER, follow_symlinks=False)

    assert back_up(home, tmp_path / "1").returncode == 0

    assert owners(tmp_path / "1" / "home") == {(OTHER, OTHER)}


def test_a_home_that_is_a_link_is_copied_with_what_it_holds(home: Path, tmp_path: Path):
    (tmp_path / "linked").symlink_to(home)

    assert back_up(tmp_path / "linked", tmp_path / "1").returncode == 0

    assert modes(tmp_path / "1" / "home") == modes(home)


def test_a_file_whose_mode_has_changed_is_copied_and_not_linked(home: Path, tmp_path: Path):
    assert back_up(home, tmp_path / "1").returncode == 0
    (home / "jobs" / "j1" / "job.json").chmod(0o660)

    done = back_up(home, tmp_path / "2", "--since", tmp_path / "1")

    assert "1 files copied, 2 linked" in done.stdout
    assert modes(tmp_path / "2" / "home") == modes(home)


def test_a_file_that_is_replaced_while_it_is_copied_is_copied_again_by_the_next_backup(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module, name = load_script(), Path("home", "jobs", "j1", "job.json")
    copyfile = module.shutil.copyfile

    def replaced_after(source: Path, target: Path, **options: bool) -> None:
        copyfile(source, target, **options)
        if source.name == "job.json":
            source.with_name("new").write_text("[]")
            source.with_name("new").rename(source)

    with monkeypatch.context() as patched:
        patched.setattr(module.shutil, "copyfile", replaced_after)
        module.Backup(tmp_path / "1", None).home(home)
    assert (tmp_path / "1" / name).read_text() == "{}"

    assert back_up(home, tmp_path / "2", "--since", tmp_path / "1").returncode == 0

    assert (tmp_path / "2" / name).read_text() == "[]"


def test_what_is_no_earlier_backup_is_refused_before_anything_is_copied(home: Path, tmp_path: Path):
    done = back_up(home, tmp_path / "2", "--since", tmp_path / "mistyped")

    assert (done.returncode, done.stdout) == (2, "")
    assert f"--since {tmp_path}/mistyped is no earlier backup" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_an_earlier_backup_on_another_file_system_is_refused_before_anything_is_copied(home: Path, tmp_path: Path):
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        assert back_up(home, Path(other) / "1").returncode == 0

        done = back_up(home, tmp_path / "2", "--since", Path(other) / "1")

    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be linked" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_backup_that_fails_says_why_and_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module = load_script()

    def disk_is_full(source: Path, target: Path, **options: bool) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(module.shutil, "copyfile", disk_is_full)
    monkeypatch.setattr("sys.argv", ["backup.py", str(home), str(tmp_path / "1")])

    assert module.main() == 1

    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
