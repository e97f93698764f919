"""The first pool child, started before its parent imports Celery: it imports torch meanwhile.

Celery's pool starts its child when the parent has imported all that it needs, and the child then takes longer to import
torch than for anything else before the first answer. So the parent's first step starts an interpreter that imports
torch, and then waits for what `billiard` would have started it with: a program, and the descriptors that the program
expects under their numbers. Only the first pool child is started this way; `billiard` starts those that replace it.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from fcntl import F_DUPFD_CLOEXEC, fcntl
from typing import Any

from modeling.images.quotas import limit_threads
from modeling.networks.dynamo import deferred_meta_kernels
from orchestrator.contract.imports import uncollected_imports

_MOST_DESCRIPTORS = 64
_MOST_BYTES = 1 << 20
_ABOVE = 512  # numbers that no descriptor of the parent's reaches
TORCH = "modeling.inference.classifier"  # with what each model needs
OCCUPIED_EXIT_CODE = 71  # EX_OSERR of sysexits.h


def environment_of_child(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a pool child that libraries read when they are imported."""
    # Busy waiting starves the decode threads of shared cores.
    return {"OMP_WAIT_POLICY": environment.get("OMP_WAIT_POLICY", "PASSIVE"), **limit_threads(environment)}


class EarlyChild:
    """A process that imports torch, and becomes the pool child when `billiard` starts one."""

    def __init__(self, environment: Mapping[str, str], module: str = TORCH) -> None:
        """environment: what libraries need to find in it when they are imported. module: what is imported."""
        self._link, theirs = socket.socketpair()
        with theirs:
            theirs.set_inheritable(True)
            code = f"from {__name__} import import_and_spawn_main as run; run({module!r}, {theirs.fileno()})"
            command = [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-c", code]
            self._pid: int | None = os.posix_spawn(sys.executable, command, {**os.environ, **environment})

    def install(self) -> None:
        """Let the next child that `billiard` starts be this process."""
        from billiard import popen_spawn_posix

        usual = popen_spawn_posix.spawnv_passfds

        def start(path: str, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
            pid = self._become(list(arguments), sorted(set(descriptors)))
            return usual(path, arguments, descriptors) if pid is None else pid

        popen_spawn_posix.spawnv_passfds = start

    def end(self) -> None:
        """End the process if no child was started."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _become(self, arguments: list[str], descriptors: list[int]) -> int | None:
        """Give the process its program, once; None where it has one already, or has ended."""
        if self._pid is None or len(descriptors) > _MOST_DESCRIPTORS:
            return None
        pid, self._pid = self._pid, None
        message = json.dumps({"arguments": arguments, "descriptors": descriptors, "environment": dict(os.environ)})
        data = message.encode(errors="surrogateescape")
        try:
            socket.send_fds(self._link, [len(data).to_bytes(8, "big")], descriptors)
            self._link.sendall(data)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        finally:
            self._link.close()
        return pid


def import_and_spawn_main(module: str, link: int) -> None:
    """Run in the process: import, take the program, which is billiard's `spawn_main`, and run it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent
    os.closerange(3, link)
    os.closerange(link + 1, os.sysconf("SC_OPEN_MAX"))  # also the lock that tells that the parent lives
    with uncollected_imports(), deferred_meta_kernels():
        importlib.import_module(module)
    with socket.socket(fileno=link) as connection:
        program = _receive(connection)
    if program is None:
        return  # the parent has ended
    os.environ.clear()
    os.environ.update(program["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _, *options, code, mark = program["arguments"]
    assert options[-1] == "-c", program["arguments"]
    sys.argv[:] = ["-c", mark]
    exec(code, {"__name__": "__main__"})  # noqa: S102 what billiard's interpreter would run


def _receive(connection: socket.socket) -> dict[str, Any] | None:
    """The program; its descriptors are open under their numbers then."""
    head, received, *_ = socket.recv_fds(connection, 8, _MOST_DESCRIPTORS)
    if not head:
        return None
    size, data = int.from_bytes(head, "big"), b""
    while len(data) < size:
        part = connection.recv(min(_MOST_BYTES, size - len(data)))
        if not part:
            return None
        data += part
    program: dict[str, Any] = json.loads(data.decode(errors="surrogateescape"))
    moved = [fcntl(descriptor, F_DUPFD_CLOEXEC, _ABOVE) for descriptor in (*received, connection.fileno())]
    for descriptor in received:
        os.close(descriptor)
    os.close(connection.detach())
    for descriptor, number in zip(moved, program["descriptors"], strict=False):
        _require_free(number)
        os.dup2(descriptor, number)
    for descriptor in moved:
        os.close(descriptor)
    return program


def _require_free(number: int) -> None:
    """End this process where a library holds that number: the pool then starts another child."""
    with contextlib.suppress(OSError):
        os.fstat(number)
        os._exit(OCCUPIED_EXIT_CODE)
