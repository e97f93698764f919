"""The manifests of deploy/kubernetes, against the schemas of Kubernetes and against the product; without a cluster."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from orchestrator.stack.server import find_server_program
from tests.support.deployed import SETTINGS, check_command, gateway_stop_s, running_server

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.28", "1.32", "1.37")
HOME, PASSWORD = "/var/lib/pigeonhole/home", "abcdef0123456789"
WORKERS = ["pigeonhole-worker-cpu", "pigeonhole-worker-gpu"]
SERVICES = ["pigeonhole-gateway", *WORKERS]
OURS = [*SERVICES, "pigeonhole-operator"]
_UNITS = {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


KUSTOMIZATION: dict[str, Any] = documents(FOLDER / "kustomization.yaml")[0]
OBJECTS = [document for name in KUSTOMIZATION["resources"] for document in documents(FOLDER / name)]
WORKLOADS = {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] in ("Deployment", "StatefulSet")}


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = WORKLOADS[name]["spec"]["template"]["spec"]
    return found


def containers(name: str) -> list[dict[str, Any]]:
    return [*pod(name).get("initContainers", []), *pod(name)["containers"]]


def main_container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    assert isinstance(found, dict)
    return found


def bytes_of(text: str) -> float:
    match = re.fullmatch(r"(\d+)(\w*)", str(text))
    assert match
    return int(match[1]) * _UNITS[match[2]]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_follows_the_schema_of_its_kind(version: str):
    validate = pytest.importorskip("kubernetes_validate").validate

    for one in OBJECTS:
        assert validate(one, version, strict=True) == version, one["metadata"]["name"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_all_of_them_in_one_namespace_and_with_one_image():
    built = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=True, timeout=60
    )
    found = list(yaml.safe_load_all(built.stdout))

    assert sorted(one["kind"] for one in found) == sorted(one["kind"] for one in OBJECTS)
    assert {one["metadata"].get("namespace") for one in found if one["kind"] != "Namespace"} == {"pigeonhole"}
    images = set(re.findall(r"image: (\S+)", built.stdout))
    image = KUSTOMIZATION["images"][0]
    assert images == {"valkey/valkey:9.1", f"{image['newName']}:{image['newTag']}"}
    numbers = {one["metadata"]["name"]: one["spec"]["replicas"] for one in found if one["kind"] == "Deployment"}
    assert [numbers[name] for name in WORKERS] == [2, 0]
    policies = [one["spec"] for one in found if one["kind"] == "NetworkPolicy"]
    (allowed,) = policies[0]["ingress"][0]["from"]
    for one in found:
        if one["kind"] in ("Deployment", "StatefulSet"):
            assert (
                allowed["podSelector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
            )


def test_every_file_is_built_but_that_which_needs_more_than_kubernetes():
    names = {path.name for path in FOLDER.iterdir()}

    assert names == {*KUSTOMIZATION["resources"], "kustomization.yaml", "scaling.yaml"}


def test_the_image_has_the_version_of_the_package():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)

    assert version
    assert KUSTOMIZATION["images"][0]["newTag"] == version[1]


@pytest.mark.parametrize("name", SERVICES)
def test_commands_and_probes_are_those_of_the_cli(name: str):
    container = main_container(name)

    check_command(["pigeonhole", *container["args"]])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if "exec" in container[probe]:
            check_command(container[probe]["exec"]["command"])


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_and_the_password_comes_from_a_secret(name: str):
    environment = {one["name"]: one for one in main_container(name)["env"]}

    assert {key for key in environment if key.startswith("PIGEONHOLE_")} - {"PIGEONHOLE_PASSWORD"} <= SETTINGS
    assert environment["PIGEONHOLE_HOME"]["value"] == HOME
    assert "secretKeyRef" in environment["PIGEONHOLE_PASSWORD"]["valueFrom"]
    names = list(environment)
    assert names.index("PIGEONHOLE_PASSWORD") < names.index("PIGEONHOLE_SERVER_URL")  # which it is expanded in
    server = next(one for one in OBJECTS if one["kind"] == "Service" and one["metadata"]["name"].endswith("server"))
    port = server["spec"]["ports"][0]["port"]
    url = f"redis://:$(PIGEONHOLE_PASSWORD)@{server['metadata']['name']}:{port}/0"
    assert environment["PIGEONHOLE_SERVER_URL"]["value"] == url
    assert pod(name)["enableServiceLinks"] is False


def test_names_lead_to_objects_that_exist():
    claims = {one["metadata"]["name"] for one in OBJECTS if one["kind"] == "PersistentVolumeClaim"}
    for one in (one for one in OBJECTS if one["kind"] == "Service"):
        name = one["spec"]["selector"]["app.kubernetes.io/name"]
        ports = {port["name"] for port in main_container(name)["ports"]}
        assert WORKLOADS[name]["spec"]["template"]["metadata"]["labels"] == one["spec"]["selector"]
        assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports
    for name in OURS:
        volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
        claimed = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes.values() if len(volume) > 1
                   and "persistentVolumeClaim" in volume}  # fmt: skip
        assert claimed == claims
        for container in containers(name):
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
    (scaled,) = documents(FOLDER / "scaling.yaml")
    assert scaled["spec"]["scaleTargetRef"]["name"] in WORKLOADS


@pytest.mark.parametrize("name", WORKERS)
def test_pods_get_more_time_than_a_worker_needs_to_start_and_to_end(name: str):
    from orchestrator.contract.health import START_S
    from orchestrator.stack.stack import WORKER_STOP_S
    from workers.classify.slice import DRAIN_GRACE_S
    from workers.lines.consumer import DRAIN_S

    start = main_container(name)["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] > START_S
    assert pod(name)["terminationGracePeriodSeconds"] > max(2 * (DRAIN_GRACE_S + DRAIN_S), WORKER_STOP_S)
    assert main_container(name)["livenessProbe"]["exec"]["command"] == ["pigeonhole", "workers", "healthcheck"]
    assert WORKLOADS[name]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_rollout_leaves_time_for_lines_and_the_number_of_workers_is_in_one_place():
    for name in WORKERS:
        assert WORKLOADS[name]["spec"]["minReadySeconds"] >= 60
        assert "replicas" not in WORKLOADS[name]["spec"]  # scaling.yaml must find no number beside its own
    assert [one["name"] for one in KUSTOMIZATION["replicas"]] == WORKERS


def test_a_pod_for_commands_is_one_that_the_server_lets_in():
    (allowed,) = next(one for one in OBJECTS if one["kind"] == "NetworkPolicy")["spec"]["ingress"][0]["from"]
    labels = {key: value for each in KUSTOMIZATION["labels"] for key, value in each["pairs"].items()}

    assert allowed["podSelector"]["matchLabels"] == labels
    assert main_container("pigeonhole-operator")["command"] == ["sleep", "infinity"]


def test_the_gateway_gets_more_time_than_it_needs_to_end_and_answers_its_probes():
    container = main_container("pigeonhole-gateway")
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod("pigeonhole-gateway")["terminationGracePeriodSeconds"] > pause + gateway_stop_s(container["args"])
    assert any(word.startswith("--listing-grace=") for word in container["args"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = container[probe]["httpGet"]
        host = next(header["value"] for header in request["httpHeaders"] if header["name"] == "Host")
        assert (request["path"], f"--allow-host={host}" in container["args"]) == ("/health/live", True)


def test_a_gpu_worker_has_one_gpu_and_never_takes_the_processor_instead():
    container = main_container("pigeonhole-worker-gpu")

    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["args"] == ["worker", "--device", "cuda:0"]
    assert "nvidia.com/gpu" not in main_container("pigeonhole-worker-cpu")["resources"]["limits"]


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_containers_have_no_rights_that_they_do_not_need_and_bounds_on_memory(name: str):
    security = pod(name)["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(name)["automountServiceAccountToken"] is False
    for container in containers(name):
        locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == locked
        resources = container["resources"]
        assert bytes_of(resources["limits"]["memory"]) >= bytes_of(resources["requests"]["memory"])
        assert "cpu" in resources["requests"]
    for volume in pod(name).get("volumes", []):
        assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""})


def test_no_secret_is_in_the_files():
    text = "".join(path.read_text() for path in FOLDER.iterdir())

    assert "kind: Secret" not in text
    assert re.findall(r"requirepass (?!\$PIGEONHOLE_PASSWORD\n)", text) == []


@pytest.mark.integration
def test_the_server_of_the_pod_keeps_its_data_and_asks_for_the_password_of_the_secret(tmp_path: Path):
    container = main_container("pigeonhole-server")
    program = tmp_path / "bin" / "valkey-server"
    program.parent.mkdir()
    program.symlink_to(find_server_program())

    def moved(port: int) -> list[str]:
        (script,) = container["args"]
        script = script.replace("port 6379", f"port {port}").replace("dir /data", f"dir {tmp_path}")
        assert script.count(str(tmp_path)) == 1
        return [*container["command"], script]

    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PIGEONHOLE_PASSWORD": PASSWORD}
    with running_server(moved, PASSWORD, environment) as (client, server):
        found = client.config_get("appendonly", "maxmemory", "maxmemory-policy", "save")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=client.connection_pool.connection_kwargs["port"], socket_timeout=5).ping()
        arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes()

    limit = bytes_of(container["resources"]["limits"]["memory"])
    assert 2 * int(found.pop("maxmemory")) < limit  # a fork that rewrites the file may need as much again
    assert found == {"appendonly": "yes", "maxmemory-policy": "noeviction", "save": ""}
    assert PASSWORD.encode() not in arguments
