import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.contract.errors import ExitCode, UnavailableError, UsageError
from orchestrator.contract.settings import Settings, get_settings


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder, where pigeonhole.toml is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(folder, monkeypatch):
    (folder / "pigeonhole.toml").write_text("batch_size = 2\nlease_s = 2.5\nslice_s = 7\n")
    monkeypatch.setenv("PIGEONHOLE_BATCH_SIZE", "3")
    monkeypatch.setenv("PIGEONHOLE_LEASE_S", "3.5")

    settings = Settings(batch_size=4)

    assert (settings.batch_size, settings.lease_s, settings.slice_s, settings.max_attempts) == (4, 3.5, 7.0, 20)


def test_home_is_absolute_and_knows_the_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", "/users/ada")

    assert Settings().home == Path("/users/ada/.pigeonhole")
    assert Settings(home="here").home == folder / "here"


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
        "(given 'many'); see PIGEONHOLE_BATCH_SIZE in the environment and pigeonhole.toml"
    )
    assert refused.value.exit_code == ExitCode.USAGE


def test_a_misspelt_name_in_the_file_is_refused(folder):
    (folder / "pigeonhole.toml").write_text("batchsize = 2\n")

    with pytest.raises(UsageError, match=r"there is no setting 'batchsize'; choose from home, .*batch_size"):
        get_settings()


def test_a_server_url_that_cannot_be_used_is_not_repeated_with_its_password(folder):
    (folder / "pigeonhole.toml").write_text('server_url = ["redis://:secret@queue/0"]\n')

    with pytest.raises(UsageError, match="server_url") as caught:
        get_settings()

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("data", [b"batch_size = \n", b"\xff"])
def test_a_file_that_is_no_toml_is_one_line(data, folder):
    (folder / "pigeonhole.toml").write_bytes(data)

    with pytest.raises(UsageError, match=r"pigeonhole\.toml in .* cannot be read"):
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
