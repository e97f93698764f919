import os
import pwd
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from orchestrator.contract.errors import ExitCode, NotFoundError, UnavailableError, UsageError
from orchestrator.contract.settings import Settings, get_settings
from orchestrator.contract.settings_file import settings_file


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder, where no settings are read."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The settings file in the user's configuration folder, which does not exist yet."""
    monkeypatch.delenv("PIGEONHOLE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "pigeonhole").mkdir(parents=True)
    return tmp_path / "config" / "pigeonhole" / "pigeonhole.toml"


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(file, monkeypatch):
    file.write_text("batch_size = 2\nlease_s = 2.5\nslice_s = 7\n")
    monkeypatch.setenv("PIGEONHOLE_BATCH_SIZE", "3")
    monkeypatch.setenv("PIGEONHOLE_LEASE_S", "3.5")

    settings = Settings(batch_size=4)

    assert (settings.batch_size, settings.lease_s, settings.slice_s, settings.max_attempts) == (4, 3.5, 7.0, 20)


@pytest.mark.parametrize("named", [False, True])
def test_a_file_in_the_present_folder_is_never_read_and_one_line_says_so(folder, file, named, monkeypatch, caplog):
    (folder / "pigeonhole.toml").write_text('home = "/data/set"\nserver_url = "redis://there"\nnonsense = 1\n')
    if named:
        file.write_text("")
        monkeypatch.setenv("PIGEONHOLE_CONFIG", str(file))

    settings = get_settings()

    assert (settings.home, settings.server_url) == (Path.home() / ".pigeonhole", None)
    others = str(file) if named else f"{file} or the file that --config names"
    told = f"{str(folder / 'pigeonhole.toml')!r} is not read: settings are read from {others}"
    assert [record.getMessage() for record in caplog.records] == [told]


def test_the_operators_own_folder_may_be_the_present_one(file, monkeypatch, caplog):
    file.write_text("batch_size = 2\n")
    monkeypatch.chdir(file.parent)

    assert get_settings().batch_size == 2
    assert caplog.records == []


def test_a_named_file_counts_instead_of_the_users(folder, file, monkeypatch):
    file.write_text("batch_size = 2\n")
    (folder / "mine.toml").write_text("slice_s = 7\n")
    monkeypatch.setenv("PIGEONHOLE_CONFIG", str(folder / "mine.toml"))

    assert (get_settings().batch_size, get_settings().slice_s) == (0, 7.0)


def test_a_named_file_that_does_not_exist_is_an_error(monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_CONFIG", "/nowhere/mine.toml")

    with pytest.raises(NotFoundError, match=r"there is no settings file '/nowhere/mine.toml'; see --config"):
        get_settings()


@pytest.mark.parametrize("kind", ["pipe", "device", "long", "folder"])
def test_a_named_file_that_may_never_end_is_refused_at_once(kind, tmp_path, monkeypatch):
    named = {"device": Path("/dev/zero"), "folder": tmp_path}.get(kind, tmp_path / "named")
    if kind == "pipe":
        os.mkfifo(named)
    elif kind == "long":
        named.write_bytes(bytes(2 << 20))
    monkeypatch.setenv("PIGEONHOLE_CONFIG", str(named))

    with pytest.raises(UsageError, match=f"the settings file '{named}' (is not a regular file|has more than 1048576)"):
        get_settings()


def test_folders_in_a_file_are_relative_to_that_file_never_to_the_present_folder(file):
    file.write_text('home = "jobs"\nweights = "pth"\n')

    assert (get_settings().home, get_settings().weights) == (file.parent / "jobs", file.parent / "pth")


@pytest.mark.parametrize("configured", ["", "relative"])
def test_without_a_configuration_folder_it_is_that_below_the_users(file, configured, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", configured)
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))

    assert settings_file() == tmp_path / "ada/.config/pigeonhole/pigeonhole.toml"


@pytest.mark.parametrize("home", [None, "", ".", "relative"])
def test_without_a_home_of_the_user_the_systems_record_counts(file, home, monkeypatch):
    monkeypatch.setenv("HOME", home or "")
    if home is None:
        monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir="/users/ada"))

    assert Settings().home == Path("/users/ada/.pigeonhole")


def test_a_user_without_home_and_name_is_told_what_to_set(file, monkeypatch):
    def nobody(_):
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)

    with pytest.raises(UsageError, match=r"user \d+ has neither HOME nor a name; set PIGEONHOLE_HOME"):
        get_settings()
    assert settings_file() is None
    monkeypatch.setenv("PIGEONHOLE_HOME", "/srv/home")
    assert get_settings().home == Path("/srv/home")


def test_in_a_folder_that_was_deleted_an_absolute_home_still_works(folder, monkeypatch):
    folder.rmdir()

    assert Settings(home="/srv/home").home == Path("/srv/home")
    with pytest.raises(UsageError, match=r"home 'here' is relative, and the present folder was deleted"):
        Settings(home="here")


def test_home_is_absolute_and_knows_the_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", "/users/ada")

    assert Settings().home == Path("/users/ada/.pigeonhole")
    assert Settings(home="here", weights="~/pth").home == folder / "here"
    assert (Settings().weights, Settings(weights="~/pth").weights) == (None, Path("/users/ada/pth"))


def test_everything_lies_below_home():
    settings = Settings(home="/srv/pigeonhole")

    folders = (settings.jobs, settings.active, settings.models, settings.stack)
    names = ("jobs", "active", "models", f"stack/{socket.gethostname()}")
    assert folders == tuple(Path("/srv/pigeonhole") / name for name in names)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    default = Settings()
    for name in ("HOME", "SERVER_URL", "LEASE_S"):
        monkeypatch.setenv(f"PIGEONHOLE_{name}", "")

    assert Settings() == default


def test_a_value_that_cannot_be_used_is_named_with_where_it_may_stand(monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_BATCH_SIZE", "many")

    with pytest.raises(UsageError) as refused:
        get_settings()

    assert str(refused.value) == (
        "setting 'batch_size': Input should be a valid integer, unable to parse string as an integer "
        "(given 'many'); see PIGEONHOLE_BATCH_SIZE in the environment and /dev/null"
    )
    assert refused.value.exit_code == ExitCode.USAGE


def test_a_misspelt_name_in_the_file_is_refused(file):
    file.write_text("batchsize = 2\n")

    with pytest.raises(UsageError, match=r"there is no setting 'batchsize'; choose from home, .*batch_size"):
        get_settings()


def test_a_server_url_that_cannot_be_used_is_not_repeated_with_its_password(file):
    file.write_text('server_url = ["redis://:secret@queue/0"]\n')

    with pytest.raises(UsageError, match="server_url") as caught:
        get_settings()

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("data", [b"batch_size = \n", b"\xff", b"batch_size = " + 5000 * b"["])
def test_a_file_that_is_no_toml_is_one_line(data, file):
    file.write_bytes(data)

    with pytest.raises(UsageError, match=r"the settings file '.*pigeonhole\.toml' is not TOML: "):
        get_settings()


def test_settings_are_read_once_and_cannot_be_changed():
    settings = get_settings()

    assert get_settings() is settings
    with pytest.raises(ValidationError, match="frozen"):
        settings.batch_size = 5


def test_a_server_is_the_configured_one_else_the_local_stacks(folder):
    settings = Settings(home="home")
    settings.stack.mkdir(parents=True)
    (settings.stack / "url").write_text("unix:///run/local.sock")

    assert settings.find_server_url() == "unix:///run/local.sock"
    assert Settings(home="home", server_url="redis://far:6379").require_server_url() == "redis://far:6379"


def test_the_error_without_a_configured_server_says_what_to_do():
    with pytest.raises(UnavailableError) as missing:
        Settings(home="home").require_server_url()

    assert str(missing.value) == (
        "no server is configured and no local stack runs; start one with `pigeonhole up`, or set PIGEONHOLE_SERVER_URL"
    )


def test_a_password_is_not_shown():
    settings = Settings(server_url="redis://:s3cret@far:6379")

    assert "s3cret" not in f"{settings!r} {settings}"
