"""The units of deploy/systemd: checked by systemd where it is installed, and against the product.

No service manager is needed; nothing is started but the server.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import redis

from orchestrator.stack.server import find_server_program
from tests.support.deployed import SETTINGS, check_command, gateway_stop_s, running_server

FOLDER = Path(__file__).parents[1] / "deploy" / "systemd"
UNITS = sorted(path.name for path in FOLDER.glob("*.service"))
OURS = [name for name in UNITS if name != "pigeonhole-server.service"]
INSTANCES = {"pigeonhole-worker@.service": "cpu", "pigeonhole-hotfolder@.service": "srv-scans"}
PROGRAM, SERVER = "/opt/pigeonhole/bin/pigeonhole", "/usr/bin/valkey-server"
NEWER = ("RestartSteps", "RestartMaxDelaySec")  # than some systemd that is in use; those ignore them
PASSWORD = "abcdef0123456789"


def options(name: str, key: str) -> list[str]:
    """The values of a key of a unit's section [Service], in order."""
    text = (FOLDER / name).read_text().partition("[Service]")[2].partition("[Install]")[0]
    return [value for found, _, value in (line.partition("=") for line in text.splitlines()) if found == key]


def command(name: str, **variables: str) -> list[str]:
    """The command line of a unit, with the specifiers of an instance and these variables."""
    (line,) = options(name, "ExecStart")
    line = line.replace("%I", INSTANCES.get(name, "")).replace("%f", "/srv/scans")
    for variable, value in variables.items():
        line = line.replace(f"${{{variable}}}", value).replace(f"${variable}", value)
    return shlex.split(line)


def seconds(name: str) -> float:
    (value,) = options(name, "TimeoutStopSec")
    return float(value)


def test_there_is_a_unit_for_each_kind_of_process():
    assert UNITS == [
        "pigeonhole-gateway.service", "pigeonhole-hotfolder@.service", "pigeonhole-server.service",
        "pigeonhole-worker@.service",
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path):
    program = shutil.which("true")  # systemd also looks for the programs
    named = []
    for name in UNITS:
        unit = tmp_path / name.replace("@", f"@{INSTANCES.get(name, '')}")
        unit.write_text((FOLDER / name).read_text().replace(PROGRAM, str(program)).replace(SERVER, str(program)))
        named.append(str(unit))
        if name in OURS:
            (tmp_path / f"{unit.name}.d").mkdir()
            shutil.copy(FOLDER / "group.conf", tmp_path / f"{unit.name}.d")

    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *named], capture_output=True, text=True, timeout=60
    )

    ours = [line for line in checked.stderr.splitlines() if str(tmp_path) in line]
    assert [line for line in ours if not any(f"'{key}'" in line for key in NEWER)] == []
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", OURS)
def test_the_command_of_a_unit_is_one_of_the_cli(name: str):
    words = command(
        name,
        CREDENTIALS_DIRECTORY="/run/credentials",
        GATEWAY_OPTIONS=settings_file()["GATEWAY_OPTIONS"],
        HOTFOLDER_OPTIONS="--line post",
    )

    assert words[0] == PROGRAM
    check_command(["pigeonhole", *words[1:]])


def test_the_worker_of_a_gpu_takes_the_one_that_its_unit_names():
    check_command(["pigeonhole", "worker", "--device", "cuda:0,1"])
    assert "--device %I" in options("pigeonhole-worker@.service", "ExecStart")[0]


def settings_file() -> dict[str, str]:
    lines = (FOLDER / "pigeonhole.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))  # type: ignore[misc]


def test_every_variable_is_a_setting_and_no_unit_holds_a_secret():
    units = "".join((FOLDER / name).read_text() for name in [*UNITS, "server.conf"])

    assert {name for name in settings_file() if name.startswith("PIGEONHOLE_")} <= SETTINGS
    assert set(re.findall(r"PIGEONHOLE_[A-Z_]+", units)) == set()
    assert re.findall(r"\w+://:\w+@|requirepass +(?!PASSWORD)\S+", units) == []
    assert ":PASSWORD@" in settings_file()["PIGEONHOLE_SERVER_URL"]
    for name in OURS:
        assert "/etc/pigeonhole/pigeonhole.env" in options(name, "EnvironmentFile")


def test_the_units_of_a_home_with_a_group_let_the_group_in_and_may_mark_folders_as_its_own():
    variable, value = options("group.conf", "Environment")[0].split("=")

    assert variable in SETTINGS
    assert [options(name, "Group") for name in OURS] == [[value]] * len(OURS)
    assert options("group.conf", "StateDirectoryMode") == ["0750"]
    assert options("group.conf", "RestrictSUIDSGID") == ["no"]


def test_a_process_that_is_killed_for_memory_does_not_end_its_unit():
    for name in ("pigeonhole-worker@.service", "pigeonhole-gateway.service"):
        assert options(name, "OOMPolicy") == ["continue"]


def test_a_stop_lasts_longer_than_what_the_process_needs_for_it():
    from orchestrator.hot_folder.run import STOP_S
    from orchestrator.stack.stack import SERVER_STOP_S, WORKER_STOP_S
    from workers.classify.slice import DRAIN_GRACE_S
    from workers.lines.consumer import DRAIN_S

    assert seconds("pigeonhole-worker@.service") > 2 * (DRAIN_GRACE_S + DRAIN_S)
    assert seconds("pigeonhole-worker@.service") > WORKER_STOP_S
    assert seconds("pigeonhole-gateway.service") > gateway_stop_s(options("pigeonhole-gateway.service", "ExecStart"))
    assert seconds("pigeonhole-hotfolder@.service") > STOP_S
    assert seconds("pigeonhole-server.service") > SERVER_STOP_S


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_locked_down_starts_again_with_pauses_and_ends_by_sigterm(name: str):
    on = ("NoNewPrivileges", "ProtectKernelTunables", "ProtectControlGroups", "RestrictSUIDSGID", "LockPersonality")
    assert [options(name, key) for key in on] == [["yes"]] * len(on)
    assert options(name, "ProtectSystem") == ["strict"]
    assert options(name, "CapabilityBoundingSet") == [""]
    assert options(name, "User") == ["pigeonhole"]
    assert options(name, "KillSignal") == ["SIGTERM"]
    assert options(name, "Restart")[0] in ("always", "on-failure")
    assert all(options(name, key) for key in ("RestartSec", *NEWER))
    assert "StartLimitIntervalSec=0" in (FOLDER / name).read_text()  # it never gives up


def test_only_the_parent_of_a_worker_gets_the_signal_and_a_drained_worker_stays_away():
    assert options("pigeonhole-worker@.service", "KillMode") == ["mixed"]
    assert options("pigeonhole-worker@.service", "Restart") == ["on-failure"]
    assert options("pigeonhole-worker@.service", "RestartPreventExitStatus") == ["2"]  # ExitCode.USAGE


def test_the_processes_that_list_the_images_of_jobs_outlive_their_gateway():
    assert options("pigeonhole-gateway.service", "KillMode") == ["process"]


@pytest.mark.integration
def test_the_server_of_the_unit_keeps_its_data_and_asks_for_the_password_of_its_file(tmp_path: Path):
    (tmp_path / "password.conf").write_text(f"requirepass {PASSWORD}\n")

    def moved(port: int) -> list[str]:
        config = (FOLDER / "server.conf").read_text()
        config = config.replace("port 6379", f"port {port}").replace("/var/lib/pigeonhole-server", str(tmp_path))
        (tmp_path / "server.conf").write_text(config)
        words = command("pigeonhole-server.service", CREDENTIALS_DIRECTORY=str(tmp_path))
        assert words[:2] == [SERVER, "/etc/pigeonhole/server.conf"]
        return [find_server_program(), str(tmp_path / "server.conf"), *words[2:]]

    with running_server(moved, PASSWORD, dict(os.environ)) as (client, server):
        found = client.config_get("appendonly", "maxmemory-policy", "save", "appendfsync")
        port = client.connection_pool.connection_kwargs["port"]
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port, socket_timeout=5).ping()
        arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes()

    assert found == {
        "appendonly": "yes", "maxmemory-policy": "noeviction", "save": "", "appendfsync": "everysec",
    }  # fmt: skip
    assert PASSWORD.encode() not in arguments
