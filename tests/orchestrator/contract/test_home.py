"""The home: who may enter it, what is made in it, its id."""

import errno
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modeling.durable import published_mode, replaced_folder
from orchestrator.contract import home as module
from orchestrator.contract.errors import PigeonholeError, UsageError
from orchestrator.contract.home import (
    check_home_access,
    describe_openness,
    limited_umask,
    make_home,
    make_home_id,
    read_home_id,
    try_to_write,
)
from orchestrator.contract.settings import Settings, get_settings
from tests.support.fakes import make_job


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """The umask of the tests is the same afterwards."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_home_is_its_owners_alone_and_nothing_in_it_is_everybodys_to_write(settings: Settings, umask: int):
    os.umask(umask)

    folder = make_job(settings, ["a.png"], root=settings.home, output=settings.home / "o.csv")
    make_home_id(settings)
    folder.activate()
    folder.request_cancel()

    assert mode(settings.home) == 0o700
    assert [str(path) for path in settings.home.rglob("*") if mode(path) & 0o002] == []


def test_an_existing_home_keeps_its_mode_and_is_warned_of(settings: Settings):
    settings.home.mkdir()
    settings.home.chmod(0o755)

    make_home(settings)

    assert mode(settings.home) == 0o755
    told = f"others may enter it (mode 0755): `chmod 700 {settings.home}`, or set home_group"
    assert describe_openness(settings) == told
    settings.home.chmod(0o700)
    assert describe_openness(settings) == ""


def test_a_group_gets_in_by_its_setting_only(tmp_path: Path):
    group = os.getgroups()[0] if os.getgroups() else os.getgid()
    settings = Settings(home=tmp_path / "home", home_group=str(group))

    folder = make_job(settings, ["a.png"], root=settings.home, output=settings.home / "o.csv")

    assert (mode(settings.home), settings.home.stat().st_gid) == (0o2770, group)
    assert mode(folder.parts) == 0o2775  # no way in but through the home
    assert mode(folder.request_file) == 0o664
    assert describe_openness(settings) == ""
    settings.home.chmod(0o2777)
    assert describe_openness(settings) == f"everybody may enter it (mode 2777): `chmod o= {settings.home}`"
    settings.home.chmod(0o700)
    assert "does not share it as home_group says: `chgrp -R" in describe_openness(settings)
    settings.home.chmod(0o2770)
    assert describe_openness(Settings(home=settings.home)) == (
        f"its group {group} shares it (mode 2770): set home_group if that is meant, else `chmod 700 {settings.home}`"
    )


def test_a_group_that_does_not_exist_makes_no_home(tmp_path: Path):
    settings = Settings(home=tmp_path / "home", home_group="no-such-group")

    with pytest.raises(UsageError, match=r"home_group 'no-such-group': this machine has no such group"):
        make_home(settings)
    assert not settings.home.exists()


def test_a_group_that_the_owner_is_not_in_makes_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(tmp_path / "home"))

    monkeypatch.setattr(os, "chown", refuse)

    with pytest.raises(PermissionError):
        make_home(Settings(home=tmp_path / "home", home_group="0"))
    assert not (tmp_path / "home").exists()


def test_the_umask_loses_only_what_everybody_could_write_to():
    assert [limited_umask(each) for each in (0o000, 0o002, 0o022, 0o077)] == [0o002, 0o002, 0o022, 0o077]
    assert [limited_umask(each, shared=True) for each in (0o000, 0o022, 0o077)] == [0o002, 0o002, 0o007]


def test_the_id_is_made_once_whoever_asks_first(settings: Settings):
    assert read_home_id(settings) is None

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: make_home_id(settings), range(16)))

    assert made == {read_home_id(settings)}
    assert [path.name for path in settings.home.iterdir()] == ["id"]


def test_a_damaged_id_is_an_error(settings: Settings):
    settings.home.mkdir()
    (settings.home / "id").write_text("nonsense\n")

    with pytest.raises(PigeonholeError, match=r"/id holds no id of a home"):
        read_home_id(settings)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_home_does_not_end_a_worker_but_one_without_rights_does(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, code: int
):
    def fail(folder: Path) -> None:
        raise OSError(code, os.strerror(code), str(folder))

    monkeypatch.setattr(module, "try_to_write", fail)

    check_home_access(settings)
    code = errno.EACCES
    with pytest.raises(PigeonholeError, match=r"the home .* cannot be used: Permission denied: .* belongs to "):
        check_home_access(settings)


def test_trying_to_write_leaves_nothing(tmp_path: Path):
    try_to_write(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_what_any_command_makes_in_a_home_of_a_group_is_the_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o2770)
    monkeypatch.setenv("PIGEONHOLE_HOME", str(home))  # the home says that it is shared, also without the setting
    before = os.umask(0o077)
    get_settings.cache_clear()
    try:
        assert get_settings().is_shared()
        with replaced_folder(home / "made") as made:
            (made / "model.json").write_text("{}")
            modes = [made.stat().st_mode & 0o7777]
        modes += [path.stat().st_mode & 0o7777 for path in (home / "made", home / "made" / "model.json")]
    finally:
        os.umask(before)
        get_settings.cache_clear()

    assert modes == [0o2770, 0o2770, 0o660]


def test_a_folder_that_is_made_beside_others_is_readable_by_all_but_in_a_home_of_a_group(tmp_path: Path):
    modes = {0o755: 0o755, 0o700: 0o755, 0o1777: 0o755, 0o2770: 0o2770, 0o2775: 0o2775}

    for given, made in modes.items():
        tmp_path.chmod(given)
        assert published_mode(tmp_path) == made, oct(given)
    tmp_path.chmod(0o700)
