"""The lines of a home: on its disk, which counts, and on the server, where clients and workers see them.

`lines/NAME/line.json` in the home is the line; the ledger has a copy of each. A worker refills a server that was
emptied, and drops from it what the disk has no more.
"""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, cast

import redis

from modeling.durable import private_mode, replace_durably
from orchestrator.contract.errors import NotFoundError, UnavailableError, UsageError
from orchestrator.contract.ledger.live_workers import PREFIX
from orchestrator.contract.lines.removals import LINE_FILE, Removals, how_to_finish
from orchestrator.contract.lines.settings import Line, LineSettings, check_line_name
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import SERVER_ERRORS, SOCKET_TIMEOUT_S, connect_raw

if TYPE_CHECKING:  # clients read a line here, and have no pydantic-settings
    from orchestrator.contract.settings import Settings

logger = logging.getLogger(__name__)

LINES_KEY = f"{PREFIX}:lines"  # hash: name -> Line.encode()
VERSION_KEY = f"{PREFIX}:lines:version"  # rises with every change, so that workers ask for one number
MOST_LINES_SHOWN = 20


class LinesOnDisk:
    """The lines of one home, without a server."""

    def __init__(self, settings: "Settings") -> None:
        self._folder = settings.home / "lines"
        self._removals = Removals(self._folder)

    def folder(self, name: str) -> Path:
        """Where the line's files are: its settings, older answers, kept images."""
        return self._folder / check_line_name(name)

    def names(self) -> list[str]:
        """The lines on the disk."""
        return sorted(path.parent.name for path in self._folder.glob(f"*/{LINE_FILE}"))

    def has(self, name: str) -> bool:
        """Whether there is a line of this name, which may be broken."""
        return os.path.exists(self.folder(name) / LINE_FILE)  # noqa: PTH110 False also where the folder cannot be read

    def get(self, name: str) -> Line:
        """Raises NotFoundError, which lists the lines there are."""
        path = self.folder(name) / LINE_FILE
        try:
            return Line.decode_again(path.read_bytes(), str(path))
        except (FileNotFoundError, NotADirectoryError) as err:
            raise NotFoundError(unknown_line(name, self.names())) from err


@dataclass(frozen=True, slots=True)
class Refill:
    """The lines on the disk by name, and why others cannot be read."""

    lines: dict[str, Line]
    troubles: dict[str, str]


class LineRegistry(LinesOnDisk):
    """The lines of one home and its server. Changing one writes the disk, then the server.

    client: of the main server; it must not decode replies. own_timeout_s: of lines' own servers.
    """

    def __init__(self, settings: "Settings", client: redis.Redis, *, own_timeout_s: float = SOCKET_TIMEOUT_S) -> None:
        super().__init__(settings)
        self._client = client
        self._own_timeout_s = own_timeout_s
        self._own: dict[str, redis.Redis] = {}  # clients of the lines' own servers, by URL
        self._encoded: dict[str, tuple[Line, bytes]] = {}  # as `refill` saw them last

    def create(self, line_settings: LineSettings) -> Line:
        """Raises UsageError where the line exists already, or an interrupted removal has left something of it."""
        name = line_settings.name
        with self._locked():
            if (self.folder(name) / LINE_FILE).exists():
                raise UsageError(f"line {name!r} exists; change it with `pigeonhole lines set`")
            if self._removals.begun(name):
                raise UsageError(f"the removal of line {name!r} was interrupted; {how_to_finish(name)}")
            return self._make(line_settings)

    def ensure(self, line_settings: LineSettings) -> Line:
        """The line of this name; made with these settings where there is none. The server knows it afterwards.

        A removal that was interrupted is finished before. Raises UnavailableError where the line's server does not
        answer for that.
        """
        with self._locked():
            try:
                line = self.get(line_settings.name)
            except NotFoundError:
                if self._removals.begun(line_settings.name):
                    self._remove(line_settings.name, self.last_known(line_settings.name), server_is_gone=False)
                return self._make(line_settings)
            self._enter(line)
        return line

    def _make(self, line_settings: LineSettings) -> Line:
        self.folder(line_settings.name).mkdir(exist_ok=True)
        line = Line(line_settings, created_ms=int(time.time() * 1000))
        self._write(line)
        return line

    def change(self, name: str, changed: Callable[[Line], Line]) -> Line:
        """Apply a change; the map's version rises where what decides a bin has changed.

        Raises UnavailableError where it is on the disk only, since a server does not take it.
        """
        self.get(name)
        with self._locked():
            before = self.get(name)
            after = changed(before)
            if before.settings.of_model and after.settings != before.settings:
                raise UsageError(f"line {name} is that of a model, and cannot be changed; make one: `lines create`")
            if _decides(after) != _decides(before):
                after = replace(after, map_version=before.map_version + 1)
            try:
                self._write(after)
            except redis.RedisError as err:
                raise UnavailableError(
                    f"the change of line {name} is on the disk, and counts as soon as its server takes it: {err}"
                ) from err
        return after

    def remove(self, name: str, *, server_is_gone: bool = False, unless: Callable[[], bool] | None = None) -> None:
        """Remove a line with all that waits, its answers and its kept images; also what an interrupted removal left.

        server_is_gone: its own server is not asked, and keeps what it has of the line. unless: asked once nobody else
        can change lines; if it returns True, the line stays.

        Raises NotFoundError; UnavailableError where a server does not answer: what is left is removed by the next call.
        """
        self.last_known(name)
        with self._locked():
            line = self.last_known(name)
            if unless is not None and unless():
                return
            self._remove(name, line, server_is_gone=server_is_gone)

    def _remove(self, name: str, line: Line | None, *, server_is_gone: bool) -> None:
        """Let clients and workers see the line no more, then delete what it has. Ended anywhere, it can go on."""
        if self.has(name):
            self._removals.begin(self.folder(name))
        try:
            self._client.hdel(LINES_KEY, name)
            self._client.incr(VERSION_KEY)
            self._removals.delete_files(name)
            if not server_is_gone:
                (self.store(line) if line else LineStore(self._client, name)).remove()
        except redis.RedisError as err:
            raise UnavailableError(
                f"the removal of line {name} has begun, and a server does not answer: {err}; {how_to_finish(name)}"
            ) from err
        self._removals.end(name)

    def last_known(self, name: str) -> Line | None:
        """The line, also one whose removal was interrupted; None where its settings cannot be read.

        Where its file is broken, it is as the server has it. Raises NotFoundError.
        """
        try:
            return self.get(name)
        except UsageError:
            with contextlib.suppress(UsageError):
                return read_line(self._client, name)
        except NotFoundError:
            begun = self._removals.begun(name)
            if begun is None:
                raise
            with contextlib.suppress(UsageError):
                return Line.decode_again(begun.read_bytes(), str(begun))
        return None

    def store(self, line: Line) -> LineStore:
        """The line on its server: its own, or the main one."""
        own = line.settings.server
        if own and own not in self._own:
            self._own[own] = connect_raw(own, timeout_s=self._own_timeout_s)
        return LineStore(self._own[own] if own else self._client, line.name)

    def refill(self) -> "Refill":
        """Make the main server know the lines of the disk, and no other. Cheap where it does.

        A file that cannot be read changes nothing for its line. Servers of lines' own are left to those who sweep
        them: each may be away.
        """
        known = cast(dict[bytes, bytes], self._client.hgetall(LINES_KEY))  # before the disk, which is written first
        refill = Refill({}, {})
        for name in self.names():
            try:
                refill.lines[name] = self._refill(name, known.get(name.encode()))
            except NotFoundError:
                self._encoded.pop(name, None)
                continue  # removed just now
            except SERVER_ERRORS:
                raise
            except (UsageError, OSError, redis.ResponseError) as err:
                refill.troubles[name] = str(err)
        if self._folder.is_dir():  # else the home may not be mounted
            for gone in set(known) - {name.encode() for name in self.names()}:
                self._client.hdel(LINES_KEY, gone)
                self._client.incr(VERSION_KEY)
        return refill

    def _refill(self, name: str, known: bytes | None) -> Line:
        line = self.get(name)
        encoded = self._encoded.get(name)
        if encoded is None or encoded[0] is not line:
            encoded = self._encoded[name] = (line, line.encode().encode())
        if known != encoded[1] or (line.settings.server is None and self.store(line).epoch() is None):
            with self._locked(needed=False):
                line = self.get(name)  # it may have been removed just now
                self._enter_main(line)
        return line

    @contextlib.contextmanager
    def _locked(self, *, needed: bool = True) -> Iterator[None]:
        """Hold the lines' lock: a controller may report two bins at once, and neither change may be lost.

        needed: False: go on without where the file system gives none. An old line that is entered at the moment of a
        change elsewhere is replaced by the next refill.
        """
        import fcntl  # clients, which only read lines here, may run where there is none

        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as err:
                if needed or err.errno != errno.ENOLCK:
                    raise
            yield

    def _write(self, line: Line) -> None:
        folder = self.folder(line.name)  # the URL of a line's own server may hold a password
        replace_durably(folder / LINE_FILE, line.encode().encode(), mode=private_mode(folder))
        self._enter(line)

    def _enter(self, line: Line) -> None:
        if line.settings.server is not None:
            self.store(line).enter(line)
        self._enter_main(line)

    def _enter_main(self, line: Line) -> None:
        """Enter a line into the main server, for workers and clients; what its own server has is not touched."""
        if line.settings.server is None:
            self.store(line).enter(line)
        self._client.hset(LINES_KEY, line.name, line.encode())
        self._client.incr(VERSION_KEY)


def answers_folder(folder: Path) -> Path:
    """Where the older answers of a line are, below the line's folder."""
    return folder / "answers"


def unknown_line(name: str, known: Iterable[str]) -> str:
    """The message for a line that does not exist."""
    names = sorted(known)
    if not names:
        return f"there is no line {name!r}; none was created yet: `pigeonhole lines create`"
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    more = f" and {len(names) - MOST_LINES_SHOWN} more" if len(names) > MOST_LINES_SHOWN else ""
    return f"there is no line {name!r}; {hint}there are: {', '.join(names[:MOST_LINES_SHOWN])}{more}"


def images_folder(folder: Path) -> Path:
    """Where the kept images of a line are, below the line's folder."""
    return folder / "images"


def read_line(client: redis.Redis, name: str) -> Line | None:
    """The line as the server has it, for clients without the home; None where it has none of that name."""
    data = cast("bytes | None", client.hget(LINES_KEY, check_line_name(name)))
    return Line.decode_again(data, f"line {name}") if data else None


def line_names(client: redis.Redis) -> list[str]:
    """The names of the lines that the server has."""
    return sorted(name.decode() for name in cast(list[bytes], client.hkeys(LINES_KEY)))


def read_lines(client: redis.Redis) -> tuple[int, dict[str, Line]]:
    """The version of the lines, and all of them as the server has them; malformed ones are logged and left out."""
    version = int(cast("bytes | None", client.get(VERSION_KEY)) or 0)
    found = cast(dict[bytes, bytes], client.hgetall(LINES_KEY))
    lines = {}
    for name, data in found.items():
        try:
            lines[name.decode()] = Line.decode_again(data, f"line {name.decode()}")
        except (UsageError, UnicodeDecodeError) as err:
            logger.warning("a line is left out: %s", err)
    return version, lines


def _decides(line: Line) -> tuple[object, ...]:
    settings = line.settings
    return settings.bins, settings.fallback, settings.review, sorted(line.full), sorted(line.disabled)
