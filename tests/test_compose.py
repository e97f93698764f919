"""The compose file, the Dockerfile and their page in docs/ against the specification's schema and against the code.

No Docker engine is needed: what is not checked here is what only an engine can tell.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import redis
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from orchestrator.contract.server_url import SCHEMES
from orchestrator.contract.settings import Settings
from tests.support.deployed import SETTINGS, check_command, gateway_stop_s, running_server
from tests.support.gateway import make_context, served

ROOT = Path(__file__).parents[1]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
WORKERS = ("worker-cpu", "worker-gpu")
MONITORING = ("grafana", "prometheus")
WITH_PORTS = ["gateway", "grafana", "prometheus"]
HOME, VOLUME = "/var/lib/pigeonhole/home", "/var/lib/pigeonhole"
PASSWORD = "abcdef0123456789"

# What an operator puts into `.env`.
DOT_ENV = {"PIGEONHOLE_PASSWORD": PASSWORD, "PIGEONHOLE_IMAGES": "/srv/images", "PIGEONHOLE_RESULTS": "/srv/results"}
_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")
_ENVIRONMENT_NAME = re.compile(r"\bPIGEONHOLE_[A-Z_]+")


def resolve(text: str) -> str:
    """`text` as compose interpolates it with DOT_ENV and nothing else."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        return DOT_ENV.get(name, rest) if kind == "-" else DOT_ENV[name]

    return _VARIABLE.sub(value, text).replace("$$", "$")


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Target -> (source, whether it is read-only)."""
    found = {}
    for volume in service["volumes"]:
        if isinstance(volume, str):
            source, target, *mode = volume.split(":")
            found[target] = (source, mode == ["ro"])
        else:
            found[volume["target"]] = (resolve(volume["source"]), volume.get("read_only", False))
    return found


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order: name and the rest, continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in joined.split("\n")) if name
    ]


def arguments() -> dict[str, str]:
    """The build arguments of the Dockerfile and their defaults."""
    given = [rest.partition("=") for name, rest in instructions() if name == "ARG"]
    return {name: default for name, _, default in given}


def last_stage() -> list[tuple[str, str]]:
    """The instructions of the image that runs."""
    found = instructions()
    start = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def test_compose_file_follows_the_specification():
    jsonschema.validate(yaml.safe_load(COMPOSE), get_builtin_schema("vendor.compose-spec"))


def test_services_are_those_that_the_documentation_names():
    assert sorted(SERVICES) == ["gateway", "grafana", "prometheus", "server", "submit", "worker-cpu", "worker-gpu"]
    assert [SERVICES[name]["profiles"] for name in MONITORING] == [["monitoring"], ["monitoring"]]
    assert OURS == ["gateway", "submit", "worker-cpu", "worker-gpu"]
    assert [SERVICES[name].get("profiles") for name in OURS] == [["gateway"], ["submit"], None, ["gpu"]]


@pytest.mark.parametrize("name", OURS)
def test_command_of_a_service_is_one_of_the_cli(name: str):
    check_command([*SERVICES[name]["entrypoint"], *SERVICES[name]["command"]])


def test_commands_on_the_docker_page_are_those_of_the_cli():
    page = (ROOT / "docs" / "docker.md").read_text() + COMPOSE
    commands = re.findall(r"docker compose run --rm (?:-T )?submit ([^`\n]+)", page)

    assert len(commands) >= 4
    for command in commands:
        check_command(["pigeonhole", *shlex.split(command, comments=True)])


def test_image_starts_a_command_of_the_cli():
    words = {name: yaml.safe_load(rest) for name, rest in last_stage() if name in ("ENTRYPOINT", "CMD")}

    check_command([*words["ENTRYPOINT"], *words["CMD"]])


@pytest.mark.parametrize("name", OURS)
def test_environment_of_a_service_holds_settings_with_usable_values(name: str, monkeypatch: pytest.MonkeyPatch):
    environment = {key: resolve(value) for key, value in SERVICES[name]["environment"].items()}
    for key in [key for key in os.environ if key.startswith("PIGEONHOLE_")]:
        monkeypatch.delenv(key)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)

    settings = Settings()

    ours = {key for key in environment if key.startswith("PIGEONHOLE_")}
    assert ours <= SETTINGS
    assert settings.home == Path(HOME)
    url = urlsplit(settings.require_server_url())
    assert url.scheme in SCHEMES
    assert (url.hostname, url.port, url.password) == ("server", 6379, PASSWORD)


def test_every_environment_name_in_the_files_is_a_setting_or_read_by_the_files_themselves():
    interpolated = {name for name, _, _ in _VARIABLE.findall(COMPOSE)}

    assert set(_ENVIRONMENT_NAME.findall(COMPOSE)) <= SETTINGS | interpolated
    assert set(_ENVIRONMENT_NAME.findall(DOCKERFILE)) <= SETTINGS | set(arguments())
    others = {
        "UID", "GID", "CPU_WORKERS", "TOKENS", "GATEWAY", "GATEWAY_NAME", "VIEW_TOKEN", "PROMETHEUS", "GRAFANA",
    }  # fmt: skip
    versions = {"PROMETHEUS_VERSION", "GRAFANA_VERSION"}
    assert interpolated == {*DOT_ENV, *arguments(), *versions, *(f"PIGEONHOLE_{name}" for name in others)}


def test_arguments_of_the_build_come_from_the_environment_and_an_index_only_from_there():
    passed = {name: resolve(value) for name, value in SERVICES["worker-cpu"]["build"]["args"].items()}

    assert passed == arguments() == {
        "PYTHON_IMAGE": "python:3.12-slim",
        "PIGEONHOLE_LOCK": "requirements.lock",
        "PIGEONHOLE_HEIC": "",
        "PIP_INDEX_URL": "",
        "UV_DEFAULT_INDEX": "",
    }  # fmt: skip


def test_a_variable_that_must_be_set_says_what_to_do():
    for name, kind, message in _VARIABLE.findall(COMPOSE):
        assert kind in ("-", "?"), name
        assert (kind == "?") == (name in DOT_ENV)
        assert kind == "-" or ".env" in message


@pytest.mark.parametrize("name", OURS)
def test_jobs_images_and_results_lie_at_the_same_path_everywhere(name: str):
    service = SERVICES[name]

    found = mounts(service)

    assert found[VOLUME] == ("home", False)
    assert service["environment"]["PIGEONHOLE_HOME"] == HOME
    assert found["/images"] == ("/srv/images", True)
    assert found["/results"] == ("/srv/results", False)
    assert {source for source, _ in found.values() if "/" not in source} <= set(yaml.safe_load(COMPOSE)["volumes"])


def test_image_makes_the_folders_that_volumes_are_mounted_on():
    made = " ".join(rest for name, rest in last_stage() if name == "RUN" and "install --directory" in rest)
    environment = " ".join(rest for name, rest in last_stage() if name == "ENV")

    for name in OURS:
        for target, (source, _) in mounts(SERVICES[name]).items():
            assert "/" in source or target in made.split(), f"{target} of {name} would be closed to its user"
    assert "--mode=1777" in made  # for a user of any id
    assert f"PIGEONHOLE_HOME={HOME}" in environment


def test_gpu_workers_lock_their_gpus_where_the_others_look():
    service = SERVICES["worker-gpu"]

    assert mounts(service)[service["environment"]["TMPDIR"]] == ("gpu-locks", False)
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", "all")
    assert {"gpu", "utility"} <= set(device["capabilities"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_service_has_no_rights_that_it_does_not_need(name: str):
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(int(part) > 0 for part in resolve(service["user"]).split(":"))
    forbidden = {"privileged", "cap_add", "network_mode", "pid", "ipc", "userns_mode", "devices"}
    assert not forbidden & set(service)
    assert all("docker.sock" not in source for source, _ in mounts(service).values())


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_service_has_an_init_and_cannot_fill_the_disk_or_the_memory(name: str):
    service = SERVICES[name]

    assert service["init"] is True
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert all("size=" in mount for mount in service.get("tmpfs", []))


def test_number_of_workers_is_a_setting():
    assert SERVICES["worker-cpu"]["scale"] == "${PIGEONHOLE_CPU_WORKERS:-1}"


def test_only_three_services_can_be_reached_and_only_from_this_machine_unless_told():
    assert sorted(name for name, service in SERVICES.items() if "ports" in service) == WITH_PORTS
    assert [resolve(port) for name in WITH_PORTS for port in SERVICES[name]["ports"]] == [
        "127.0.0.1:8080:8080", "127.0.0.1:3000:3000", "127.0.0.1:9090:9090",
    ]  # fmt: skip
    assert sorted(name for name, service in SERVICES.items() if "networks" in service) == WITH_PORTS


def test_prometheus_scrapes_the_gateway_by_a_name_that_it_answers_to():
    config = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text())

    (scraped,) = config["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": ["gateway:8080"]}]
    assert "--allow-host=gateway" in SERVICES["gateway"]["command"]
    assert scraped["authorization"]["credentials_file"] in mounts(SERVICES["prometheus"])


@pytest.mark.parametrize("name", MONITORING)
def test_what_monitoring_mounts_is_there_and_its_image_is_pinned(name: str):
    sources = [source for source, _ in mounts(SERVICES[name]).values() if source.startswith("./monitoring")]

    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", resolve(SERVICES[name]["image"]))


@pytest.mark.parametrize("name", WORKERS)
def test_health_check_of_a_worker_is_a_command_that_has_time_for_its_start(name: str):
    from orchestrator.contract.health import START_S

    check = SERVICES[name]["healthcheck"]

    assert check["test"][0] == "CMD"
    check_command(check["test"][1:])
    assert float(check["start_period"].removesuffix("s")) > START_S


def test_health_check_of_the_gateway_tells_whether_it_answers(tmp_path: Path):
    program = SERVICES["gateway"]["healthcheck"]["test"][-1]
    with served(make_context(tmp_path / "home", port=0)) as gateway:
        found = program.replace("8080", str(gateway.port))
        answers_now = subprocess.run([sys.executable, "-c", found], capture_output=True).returncode
    answers_later = subprocess.run([sys.executable, "-c", found], capture_output=True).returncode

    assert (answers_now, answers_later) == (0, 1)


@pytest.mark.parametrize("name", sorted({*SERVICES} - {*WITH_PORTS}))
def test_service_can_be_scaled(name: str):
    assert not {"container_name", "hostname", "ports"} & set(SERVICES[name])


def test_gateway_waits_for_listings_and_has_time_for_it():
    service = SERVICES["gateway"]

    assert float(service["stop_grace_period"].removesuffix("s")) > gateway_stop_s(service["command"])
    assert any(word.startswith("--listing-grace=") for word in service["command"])


@pytest.mark.parametrize("name", WORKERS)
def test_worker_has_time_to_hand_back_what_it_holds(name: str):
    from workers.classify.slice import DRAIN_GRACE_S

    service = SERVICES[name]

    assert float(service["stop_grace_period"].removesuffix("s")) > 2 * DRAIN_GRACE_S
    assert service["stop_signal"] == "SIGTERM"


def test_image_of_the_server_is_pinned_and_ours_is_never_pulled():
    images = [SERVICES["server"]["image"], *(rest.split()[0] for name, rest in instructions() if name == "FROM")]
    stages = {rest.split()[-1] for name, rest in instructions() if name == "FROM" and " AS " in rest}

    for image in {image.replace("${PYTHON_IMAGE}", arguments()["PYTHON_IMAGE"]) for image in images} - stages:
        assert re.fullmatch(r"[a-z]+(/[a-z]+)?:\d+\.\d+(-slim)?", image), image
    assert {SERVICES[name]["pull_policy"] for name in OURS} == {"never"}


def test_image_is_for_every_user():
    """Nothing in the image belongs to a user of its own: who runs it is said when it is run."""
    assert [rest for name, rest in last_stage() if name == "USER"] == ["65534:65534"]
    assert not re.search(r"useradd|groupadd|chown|--owner", DOCKERFILE)
    assert "PIGEONHOLE_UID" not in DOCKERFILE
    for name in OURS:
        assert SERVICES[name]["user"] == "${PIGEONHOLE_UID:-1000}:${PIGEONHOLE_GID:-1000}"


def test_every_file_that_is_copied_exists_and_is_not_ignored():
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copies = [rest.split() for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")]
    sources = {source for words in copies for source in words[:-1]}

    assert (sources - {"${PIGEONHOLE_LOCK}"}) | {"requirements.lock", "requirements-cpu.lock"} == allowed
    assert [source for source in sorted(allowed) if not (ROOT / source).exists()] == []


def test_image_holds_what_the_locks_say_and_nothing_else():
    installs = [rest for name, rest in instructions() if name == "RUN" and re.search(r"pip .*install|uv build", rest)]

    tool, dependencies, heic, wheel, package = installs
    assert re.search(r"\buv==\d+\.\d+\.\d+$", tool)
    assert "--require-hashes --requirements requirements.lock" in dependencies
    assert '[ -n "$PIGEONHOLE_HEIC" ]' in heic
    assert "--no-deps --require-hashes --requirements heic.lock" in heic
    assert "--build-constraints requirements-dev.lock --require-hashes" in wheel
    assert "--no-cache --no-index --no-deps" in package


def test_lock_of_heic_is_cut_whole_out_of_the_development_lock():
    (expression,) = re.findall(r"sed -n '([^']+)'", DOCKERFILE)

    cut = subprocess.run(["sed", "-n", expression, "requirements-dev.lock"], cwd=ROOT, capture_output=True, text=True)

    first, *hashes = cut.stdout.splitlines()
    assert re.fullmatch(r"pillow-heif==[\d.]+ \\", first)
    assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes)
    assert len(hashes) > 1


def test_image_leaves_out_what_only_compilers_read_and_trusts_the_certificates_of_its_base():
    (dependencies,) = [rest for name, rest in instructions() if name == "RUN" and "requirements.lock" in rest]

    assert "uv pip uninstall --python /opt/venv triton" in dependencies
    assert "find /opt/venv/lib -type f -name '*.a' -delete" in dependencies
    assert "find /opt/venv/lib -type d -name include" in dependencies
    tools = next(rest for name, rest in instructions() if name == "ENV")
    assert tools == "UV_SYSTEM_CERTS=1"


def test_no_file_names_a_host_or_holds_a_secret():
    for text in (COMPOSE, DOCKERFILE, (ROOT / ".dockerignore").read_text()):
        assert re.findall(r"\w+://(?!:\$\{PIGEONHOLE_PASSWORD:\?)\S*", text) == []
        assert re.findall(r"(?i)(?:requirepass|password[=:])\s*(?!\$)[\w'\"]+", text) == []
    (script,) = SERVICES["server"]["command"]
    assert [line for line in script.splitlines() if "valkey-server" in line] == ["exec valkey-server - <<EOF"]
    assert not (ROOT / ".env").exists() or "/.env" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.integration
def test_server_keeps_its_data_refuses_strangers_and_shows_no_password(tmp_path: Path):
    from orchestrator.stack.server import find_server_program

    program = tmp_path / "bin" / "valkey-server"
    program.parent.mkdir()
    program.symlink_to(find_server_program())
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PIGEONHOLE_PASSWORD": PASSWORD}
    with running_server(lambda port: server_command(port, tmp_path), PASSWORD, environment) as (client, server):
        found = client.config_get("appendonly", "maxmemory-policy", "save", "appendfsync")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=client.connection_pool.connection_kwargs["port"], socket_timeout=5).ping()
        arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes()

    assert found == {
        "appendonly": "yes", "maxmemory-policy": "noeviction", "save": "", "appendfsync": "everysec",
    }  # fmt: skip
    assert b"valkey-server" in arguments
    assert PASSWORD.encode() not in arguments


@pytest.mark.parametrize(
    ("password", "said"), [("a b/c-0123456789abcdef", "letters and digits"), (PASSWORD[:15], "16 characters")]
)
def test_server_refuses_a_password_that_would_not_survive_a_url_or_is_short(tmp_path: Path, password: str, said: str):
    environment = {"PATH": os.environ["PATH"], "PIGEONHOLE_PASSWORD": password}

    answer = subprocess.run(server_command(1, tmp_path), env=environment, capture_output=True, text=True, timeout=20)

    assert answer.returncode == 2
    assert said in answer.stderr


def server_command(port: int, folder: Path) -> list[str]:
    """The server's own command, on another port and in another folder."""
    entrypoint, (script,) = SERVICES["server"]["entrypoint"], SERVICES["server"]["command"]
    moved = resolve(script).replace("port 6379", f"port {port}").replace("dir /data", f"dir {folder}")
    assert moved.count(str(folder)) == 1
    return [*entrypoint, moved]
