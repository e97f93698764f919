"""`pigeonhole doctor`."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from modeling.errors import ModelingError
from modeling.images.budget import BUDGET
from modeling.images.quotas import describe_cores, describe_memory, memory_left, memory_total, num_cores
from orchestrator.cli.output import json_option, print_json, print_line
from orchestrator.contract.access import explain_os_error, explain_refused_write
from orchestrator.contract.devices import list_gpus, survey_gpus
from orchestrator.contract.errors import ExitCode, PigeonholeError
from orchestrator.contract.queues import ALL_QUEUES
from orchestrator.contract.server_url import redact
from orchestrator.contract.settings_file import describe_unread, settings_file
from orchestrator.contract.shown import without_logins

if TYPE_CHECKING:
    from orchestrator.contract.settings import Settings

LOW_DISK_BYTES = 1 << 30
WORKER_BYTES = 2 << 30  # parent, pool child with torch and a usual model, and images


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. `cure`: what to do if it failed. `warning`: what works, but should be changed."""

    name: str
    ok: bool
    found: str
    cure: str = ""
    warning: str = ""

    @property
    def mark(self) -> tuple[str, str]:
        """The word and the colour that it is shown with."""
        if not self.ok:
            return "BAD", "red"
        return ("WARN", "yellow") if self.warning else ("ok", "green")

    @property
    def advice(self) -> str:
        return f"fix: {self.cure}" if not self.ok else self.warning


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check the installation, and say how to fix what does not work. Exit 1 if a check fails.

    \b
    Example:
      pigeonhole doctor
    """
    from orchestrator.contract.settings import get_settings

    settings = get_settings()
    checks = (_python, _machine, _settings, _torch, _heic, _home, _server_program, _server, _workers, _jobs, _models)
    results = [_run(check, settings) for check in checks]
    if as_json:
        print_json([asdict(result) for result in results])
    else:
        for result in results:
            word, color = result.mark
            print_line(f"{word:5}", color=color, nl=False)
            print_line(f"{result.name:10} {result.found}")
            if result.advice:
                print_line(f"{'':16}{result.advice}")
    sys.exit(ExitCode.OK if all(result.ok for result in results) else ExitCode.FAILED)


def _run(check: Callable[["Settings"], CheckResult], settings: "Settings") -> CheckResult:
    """Run one check; an error is a failed check, and the others still run."""
    from redis import RedisError

    try:
        return check(settings)
    except (PigeonholeError, ModelingError, OSError, RedisError) as err:
        found = explain_os_error(err) or str(err) if isinstance(err, OSError) else str(err)
        name = check.__name__.removeprefix("_")
        return CheckResult(
            name, False, without_logins(" ".join(found.split())), "correct that, then run `pigeonhole doctor` again"
        )


def _python(_: "Settings") -> CheckResult:
    return CheckResult("python", True, f"{platform.python_version()} on {platform.system()}")


def _machine(_: "Settings") -> CheckResult:
    """What a process started here may use, and what follows for a worker."""
    total, threads = memory_total(), num_cores()
    follows = f"{threads} thread{'s' if threads > 1 else ''}, {BUDGET.total / 1e9:.1f} GB for decoding"
    found = f"{describe_cores()}, {describe_memory()}, {memory_left() / 1e9:.1f} GB free: {follows}"
    little = (
        f"a worker needs about {WORKER_BYTES / 1e9:.1f} GB, and more for large networks and images; raise the limit"
    )
    return CheckResult("machine", True, found, warning=little if total < WORKER_BYTES else "")


def _settings(_: "Settings") -> CheckResult:
    """Which settings file counts."""
    file = settings_file()
    if file is None:
        found = "no file: this user has no folder; --config names one"
    else:
        found = f"{file}" if file.exists() else f"no file; {file} would be read"
    return CheckResult("settings", True, found, warning=describe_unread() or "")


def _torch(_: "Settings") -> CheckResult:
    """Torch, imported in a process of its own: this one never imports it."""
    code = "import torch; print(torch.__version__, torch.cuda.device_count())"
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return CheckResult("torch", False, "its import takes over 120 s", "check the disk that it is on")
    if answer.returncode != 0:
        last = answer.stderr.strip().splitlines()[-1:] or ["no message"]
        return CheckResult("torch", False, last[0], "install Pigeonhole's requirements again: `make install`")
    version, num_visible = answer.stdout.split()
    num_gpus, reason = len(list_gpus()), survey_gpus().reason
    found = f"{version}, {num_visible} of {num_gpus} GPUs usable" + (f" ({reason})" if reason else "")
    return CheckResult(
        "torch", int(num_visible) >= num_gpus, found, "install an NVIDIA driver that this torch supports"
    )


def _heic(_: "Settings") -> CheckResult:
    """The decoder of phones' photographs, which is an extra."""
    from modeling.images.heif import EXTRA, heif_version  # imports Pillow

    found = heif_version()
    warning = "" if found else f"for the photographs of most phones: {EXTRA}"
    return CheckResult("heic", True, f"pillow-heif {found}" if found else "HEIC images are not read", warning=warning)


def _home(settings: "Settings") -> CheckResult:
    """The folder of jobs and models, tested by writing to it."""
    from orchestrator.contract.home import describe_openness, home_folders, try_to_write

    there = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    exists = there == settings.home
    free = shutil.disk_usage(there).free
    found = f"{settings.home}, {free / 1e9:.1f} GB free" + ("" if exists else ", does not exist yet")
    if not there.is_dir():
        return CheckResult("home", False, f"{there} is not a folder", "move it, or set PIGEONHOLE_HOME")
    for folder in home_folders(settings) if exists else [there]:
        try:
            try_to_write(folder)
        except OSError as err:
            refused = explain_refused_write(err, folder)
            return CheckResult("home", False, f"{found}; cannot write: {refused}", "that, or set PIGEONHOLE_HOME")
    cure = "free some space, or set PIGEONHOLE_HOME to a larger disk"
    return CheckResult("home", free > LOW_DISK_BYTES, found, cure, describe_openness(settings) if exists else "")


def _server_program(settings: "Settings") -> CheckResult:
    """A server for the local stack; not needed where another is configured."""
    from orchestrator.stack.server import find_server_program

    try:
        return CheckResult("program", True, find_server_program())
    except PigeonholeError as err:
        return CheckResult("program", settings.server_url is not None, str(err), "install Valkey")


def _server(settings: "Settings") -> CheckResult:
    from orchestrator.contract.home import OtherHomeError, check_server
    from orchestrator.contract.server import connect, require_answer
    from orchestrator.contract.shared_server import read_shared_server

    url = settings.find_server_url()
    if url is None:
        return CheckResult("server", False, "none is configured, no local stack runs", "pigeonhole up")
    try:
        client = connect(url)
        require_answer(client, url)
        check_server(settings, client)
    except OtherHomeError as err:
        return CheckResult("server", False, str(err), "see there; workers and commands of this home refuse that server")
    except PigeonholeError as err:
        cure = "pigeonhole up" if settings.server_url is None else "start that server, or correct PIGEONHOLE_SERVER_URL"
        return CheckResult("server", False, str(err), cure)
    facts = client.info("server") | client.info("persistence") | client.info("memory")
    name = facts.get("server_name", "redis")
    version = facts.get("valkey_version") or facts.get("redis_version")
    policy = facts.get("maxmemory_policy")  # not from CONFIG GET, which hosted servers refuse
    found = f"{name} {version} at {redact(url)}, append-only {'on' if facts.get('aof_enabled') else 'OFF'}, {policy}"
    if settings.server_url is None and (shared := read_shared_server(settings.home)) is not None:
        found += f", run by {shared.host} for all machines at {shared.listen}"
    if policy != "noeviction":
        return CheckResult("server", False, found, "set `maxmemory-policy noeviction`: an evicted key is a lost job")
    return CheckResult(
        "server",
        bool(facts.get("aof_enabled")),
        found,
        "set `appendonly yes`: otherwise a restart loses the order of jobs",
    )


def _workers(settings: "Settings") -> CheckResult:
    from orchestrator.contract.ledger.ledger import Ledger
    from orchestrator.contract.server import connect, require_answer

    try:
        url = settings.require_server_url()
        client = connect(url)
        require_answer(client, url)
    except PigeonholeError:
        return CheckResult("workers", False, "unknown without a server", "pigeonhole up")
    found_workers = Ledger(client).live_workers.survey()
    alive = [worker for worker in found_workers.records if worker.alive]
    without_worker = [queue for queue in ALL_QUEUES if not any(queue in worker.queues for worker in alive)]
    found = f"{len(alive)} alive" + (f"; none listens to {', '.join(without_worker)}" if without_worker else "")
    if found_workers.malformed:
        found += f"; left out, as their records cannot be read: {', '.join(found_workers.malformed)}"
    return CheckResult("workers", not without_worker, found, "pigeonhole worker")


def _jobs(settings: "Settings") -> CheckResult:
    from orchestrator.contract.jobs.job_folder import active_jobs

    return CheckResult("jobs", True, f"{len(active_jobs(settings))} active")


def _models(settings: "Settings") -> CheckResult:
    from modeling.registry.store import ModelStore

    return CheckResult("models", True, f"{len(ModelStore(settings.models).list())} versions in {settings.models}")
