"""Runs in every process under test: wraps the calls that steps name, and strikes where a fault is armed.

`sitecustomize` of a test imports it, before anything of ours is imported. A module is changed right after it was
executed, so that every import of a function from it gets the wrapped one.
"""

import contextlib
import errno
import fnmatch
import functools
import importlib
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import shutil  # noqa: F401 when it is imported it asks which functions of `os` take descriptors: the unwrapped ones do
import signal
import socket
import sys
import tempfile  # noqa: F401 likewise
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER_VARIABLE = "STEP_FAULTS"
INNER = ("open", "fsync", "link", "rename", "replace", "unlink", "mkdir", "rmdir", "listdir", "sendmsg")
_FOREVER_S = 3600.0
SLOW_SUFFIX = ".slow.jpg"  # of images that take as long to read as a large photograph to decode, without a processor
_SLOW_READ, _SLOW_S = "workers.classify.read:ImageReader._read", 0.012
_kill = os.kill


class Injection:
    """The armed faults of this process, and the calls that are open in each thread."""

    def __init__(self, folder: str, role: str) -> None:
        self._folder, self._role = folder, role
        self._armed: tuple[tuple[int, int], list[dict[str, Any]]] = ((0, 0), [])
        self._open = threading.local()
        self._counts: dict[tuple[str, str], int] = {}

    def faults(self) -> list[dict[str, Any]]:
        """The faults that are armed now for this process."""
        try:
            facts = Path(self._folder, "armed.json").stat()
        except FileNotFoundError:
            return []
        changed = (facts.st_mtime_ns, facts.st_ino)
        if changed != self._armed[0]:
            with contextlib.suppress(FileNotFoundError), open(f"{self._folder}/armed.json", encoding="utf-8") as file:
                found = [fault for fault in json.load(file) if fault["role"] in (None, self._role)]
                self._armed = (changed, found)
        return self._armed[1]

    @property
    def open_calls(self) -> list[tuple[dict[str, Any], dict[str, int]]]:
        """Of this thread: armed faults whose call it is in, and how often their inner function was called so far."""
        if not hasattr(self._open, "calls"):
            self._open.calls = []
        calls: list[tuple[dict[str, Any], dict[str, int]]] = self._open.calls
        return calls

    # Strikes

    def strike(self, fault: dict[str, Any]) -> None:
        """Kill or freeze this process, or raise an error; nothing once the fault has struck as often as it shall."""
        for number in range(fault["times"]):
            with contextlib.suppress(FileExistsError):
                os.close(_real_open(f"{self._folder}/struck-{fault['id']}-{number}", os.O_CREAT | os.O_EXCL))
                self._note(fault, "struck")
                self._act(fault)
                return

    def _act(self, fault: dict[str, Any]) -> None:
        if fault["action"] == "kill":
            _kill(os.getpid(), signal.SIGKILL)
            time.sleep(_FOREVER_S)
        elif fault["action"] == "freeze":
            _kill(os.getpid(), signal.SIGSTOP)
            self._note(fault, "thawed")
        else:
            raise make_error(fault["error"])

    def _note(self, fault: dict[str, Any], what: str) -> None:
        line = json.dumps({"id": fault["id"], "what": what, "pid": os.getpid(), "role": self._role}) + "\n"
        descriptor = _real_open(f"{self._folder}/log.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    # Calls

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The call that steps name `name`."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if name == _SLOW_READ and _is_of_file(f"*{SLOW_SUFFIX}", args):
                time.sleep(_SLOW_S)
            faults = [fault for fault in self.faults() if fault["call"] == name]
            if not faults:
                return function(*args, **kwargs)
            faults = [fault for fault in faults if _matches(fault["arguments"], function, args, kwargs)]
            return self._called(faults, lambda: function(*args, **kwargs))

        return wrapped

    def _called(self, faults: list[dict[str, Any]], call: Callable[[], Any]) -> Any:
        """Make a call; strike before or after it, or within it."""
        due = [fault for fault in faults if fault["inner"] is None and self._is_due(fault)]
        inner: list[tuple[dict[str, Any], dict[str, int]]] = [(fault, {}) for fault in faults if fault["inner"]]
        for fault in due:
            if fault["before"]:
                self.strike(fault)
        self.open_calls.extend(inner)
        try:
            result = call()
        finally:
            del self.open_calls[len(self.open_calls) - len(inner) :]
        for fault in due:
            if not fault["before"]:
                self.strike(fault)
        return result

    def _is_due(self, fault: dict[str, Any]) -> bool:
        key = (fault["id"], fault["call"])
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key] >= fault["nth"]

    def wrap_inner(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of `os` or of sockets, which steps may be within a call."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            due = [fault for fault, counts in self.open_calls if self._is_due_within(fault, counts, name, args)]
            for fault in due:
                if fault["before"]:
                    self.strike(fault)
            result = function(*args, **kwargs)
            for fault in due:
                if not fault["before"]:
                    self.strike(fault)
            return result

        return wrapped

    def _is_due_within(self, fault: dict[str, Any], counts: dict[str, int], name: str, args: Sequence[Any]) -> bool:
        if fault["inner"] != name or not _is_of_file(fault["file"], args):
            return False
        counts[name] = counts.get(name, 0) + 1
        return counts[name] == fault["nth"]


_real_open = os.open


def make_error(name: str) -> BaseException:
    """`ENOSPC` or `redis.exceptions.ConnectionError` as an exception."""
    if name.startswith("E") and hasattr(errno, name):
        number = getattr(errno, name)
        return OSError(number, os.strerror(number))
    module, _, kind = name.rpartition(".")
    error: BaseException = getattr(importlib.import_module(module), kind)("injected by a test")
    return error


def _matches(wanted: dict[str, Any], function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    if not wanted:
        return True
    given = inspect.signature(function).bind(*args, **kwargs)
    given.apply_defaults()
    return all(given.arguments.get(name) == value for name, value in wanted.items())


def _is_of_file(pattern: str | None, args: Sequence[Any]) -> bool:
    return pattern is None or any(fnmatch.fnmatchcase(name, pattern) for name in _names(args))


def _names(args: Sequence[Any]) -> Iterator[str]:
    for arg in args:
        if isinstance(arg, int):
            with contextlib.suppress(OSError):
                yield Path(f"/proc/self/fd/{arg}").readlink().name
        elif isinstance(arg, str | bytes | os.PathLike):
            yield Path(os.fsdecode(arg)).name


# Changing modules when they are imported


class _Finder(importlib.abc.MetaPathFinder):
    """Changes the modules that steps or shorter times name, right after they were executed."""

    def __init__(self, change: Callable[[ModuleType], None], names: set[str]) -> None:
        self._change, self._names = change, names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self._change(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def role_of_process() -> str:
    """command, parent, child or training."""
    words = " ".join(sys.orig_argv)
    if "spawn_main" in words:
        return "child"
    if "modeling.training.process" in words:
        return "training"
    return "parent" if "-m workers" in words or "orchestrator worker" in words else "command"


def install() -> None:
    """Wrap what the file `calls.json` names: calls, and constants with other values."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        return
    with open(f"{folder}/calls.json", encoding="utf-8") as file:
        given = json.load(file)
    injection = Injection(folder, role_of_process())
    calls: dict[str, list[str]] = {}
    for name in {*given["calls"], _SLOW_READ}:
        calls.setdefault(name.partition(":")[0], []).append(name)

    def change(module: ModuleType) -> None:
        for name, value in given["constants"].get(module.__name__, {}).items():
            setattr(module, name, value)
        for name in calls.get(module.__name__, ()):
            _replace(module, name, injection)

    sys.meta_path.insert(0, _Finder(change, {*calls, *given["constants"]}))
    for name in INNER:
        owner = socket.socket if name == "sendmsg" else os
        setattr(owner, name, injection.wrap_inner(name, getattr(owner, name)))


def _replace(module: ModuleType, name: str, injection: Injection) -> None:
    owner: Any = module
    *outer, last = name.partition(":")[2].split(".")
    for each in outer:
        owner = getattr(owner, each)
    found = inspect.getattr_static(owner, last)
    if isinstance(found, classmethod | staticmethod):
        setattr(owner, last, type(found)(injection.wrap(name, found.__func__)))
    else:
        setattr(owner, last, injection.wrap(name, found))
