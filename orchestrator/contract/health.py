"""What the two processes of a worker write into its run folder every few seconds, and what that says of the worker.

`workers healthcheck` reads it: a container asks every few seconds. So nothing here imports pydantic, Redis or Celery,
and the files are read by hand. Times are those of the machine's monotonic clock, which nobody sets.
"""

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.contract.run_folder import PREFIX, START_FILE
from orchestrator.contract.run_folder import own_processes as own_processes

HEARTBEAT_S = 2.0
PARENT_STALE_S = 15.0  # without a sign of life; a parent's threads share one interpreter, which imports may hold
CHILD_STALE_S = 60.0  # a library may hold the interpreter of a pool child for longer
START_S = 180.0  # importing torch on a busy machine
DEAF_S = 60.0  # kombu itself reconnects after 21 s without an answer to its question for doorbells
SERVER_STALE_S = 20.0  # longer than a call that runs into its time limit
PARENT_FILE, CHILD_FILE = "parent.json", "child.json"

_STOPPED, _ENDED = "Tt", "ZX"  # states in /proc/<pid>/stat


@dataclass(frozen=True, slots=True)
class ParentState:
    """What a worker's parent says of itself.

    processes: the namespace of its pid: containers may share the folder. at_s: when it wrote this.
    server_s: when the server last answered. listening_s: when it last was certain to take doorbells: it asked the
    server for one, or was at work. Both None until the worker has started.
    """

    worker: str
    pid: int
    processes: str
    started_s: float
    at_s: float
    server_s: float | None = None
    listening_s: float | None = None
    draining: bool = False


@dataclass(frozen=True, slots=True)
class ChildState:
    """What a worker's pool child says of itself.

    ready_s: when it began to take work. quick_deaths: how many in a row of those before it died soon after their start.
    leaving: why it ends by itself; empty: it does not. before: why the one before it did.
    """

    pid: int
    started_s: float
    at_s: float
    ready_s: float | None = None
    quick_deaths: int = 0
    leaving: str = ""
    before: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """A worker on this machine. problems: why it is unhealthy. waits: why it does not take work now."""

    worker: str
    problems: tuple[str, ...]
    waits: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        return not self.problems

    @property
    def ready(self) -> bool:
        return not self.problems and not self.waits


_State = TypeVar("_State", ParentState, ChildState)


def write_state(run_folder: Path, state: ParentState | ChildState) -> None:
    """Put a state in the place of that before it, whole.

    Not by `modeling.durable`, which imports pydantic and waits for the disk: what a power cut loses says nothing.
    """
    path = run_folder / (PARENT_FILE if isinstance(state, ParentState) else CHILD_FILE)
    written = path.with_suffix(".new")
    written.write_text(json.dumps(asdict(state)), encoding="utf-8")
    written.replace(path)


def read_parent(run_folder: Path) -> ParentState | None:
    return _read(run_folder / PARENT_FILE, ParentState)


def read_child(run_folder: Path) -> ChildState | None:
    return _read(run_folder / CHILD_FILE, ChildState)


def _read(path: Path, kind: type[_State]) -> _State | None:
    """None where there is none, or none that this version reads."""
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
        return kind(**{field.name: record[field.name] for field in fields(kind)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def workers_here() -> list[Health]:
    """The health of every worker whose run folder is among the temporary files of this machine or container."""
    now, here = time.monotonic(), own_processes()
    found = []
    for folder in _run_folders():
        parent = read_parent(folder)
        if parent is None:
            found += _starting(folder, now, here)
        elif parent.processes == here:
            found.append(health_of(parent, read_child(folder), now))
    return sorted(found, key=lambda health: health.worker)


def _run_folders() -> Iterator[Path]:
    """The run folders of workers that live; one whose lock can be taken is left by a worker that was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                yield folder
            finally:
                os.close(descriptor)


def _starting(folder: Path, now: float, here: str) -> list[Health]:
    """The worker of a run folder whose parent has written nothing yet; none where it is of another container."""
    try:
        processes, began_s = json.loads((folder / START_FILE).read_bytes())
        late_s = now - began_s
    except (OSError, ValueError, TypeError):  # its disk was full
        processes, late_s = here, 0.0
    if processes != here:
        return []
    problems = (f"it has not started within {late_s:.0f} s",) if late_s > START_S else ()
    return [Health(folder.name, problems, ("it is starting",))]


def health_of(parent: ParentState, child: ChildState | None, now: float) -> Health:
    """The health of a worker by what its processes have written, at a moment of the monotonic clock."""
    problems, waits = [], []
    state = process_state(parent.pid)
    if state in _ENDED or not state:
        problems.append(f"its parent process {parent.pid} has ended")
    elif state in _STOPPED:
        problems.append(f"its parent process {parent.pid} is stopped")
    elif now - parent.at_s > PARENT_STALE_S:
        problems.append(f"its parent process {parent.pid} has shown no sign of life for {now - parent.at_s:.0f} s")
    trouble, wait = _health_of_child(child, now, parent.started_s)
    problems += [trouble] if trouble else []
    waits += [wait] if wait else []
    if parent.listening_s is None or parent.server_s is None:
        waits.append("it is starting")
        if now - parent.started_s > START_S:
            problems.append(f"it has not begun to take doorbells within {now - parent.started_s:.0f} s")
    elif now - parent.server_s > SERVER_STALE_S:
        waits.append(f"the server has not answered for {now - parent.server_s:.0f} s")
    elif not parent.draining and now - parent.listening_s > DEAF_S:
        deaf_s = now - parent.listening_s
        problems.append(f"the server answers, but it has not asked for doorbells for {deaf_s:.0f} s")
    if parent.draining:
        waits.append("it drains")
    return Health(parent.worker, tuple(problems), tuple(waits))


def _health_of_child(child: ChildState | None, now: float, parent_started_s: float) -> tuple[str, str]:
    """What is wrong with the pool child, and what it waits for."""
    if child is None:
        late_s = now - parent_started_s
        return f"no pool child has started within {late_s:.0f} s" if late_s > START_S else "", "its pool child starts"
    state = process_state(child.pid)
    if state in _ENDED or not state:
        gone_s = now - child.at_s
        gone = f"its pool child {child.pid} ended {gone_s:.0f} s ago"
        return (f"{gone}, and no other has started", "") if gone_s > START_S else ("", f"{gone}, another starts")
    if state in _STOPPED:
        return f"its pool child {child.pid} is stopped", ""
    if now - child.at_s > CHILD_STALE_S:
        return f"its pool child {child.pid} has shown no sign of life for {now - child.at_s:.0f} s", ""
    if child.ready_s is None:
        late_s = now - child.started_s
        late = f"its pool child {child.pid} is not ready {late_s:.0f} s after its start"
        return late if late_s > START_S else "", "its pool child starts"
    return "", f"its pool child leaves: {child.leaving}" if child.leaving else ""


def process_state(pid: int) -> str:
    """The letter of a process's state, as proc(5) has it; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except (OSError, IndexError):
        return ""
