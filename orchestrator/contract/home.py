"""The home: made for its owner alone, known by an id inside it, and the only one that its server works for.

Machines mount a home where they like, so its path does not tell whether two processes share it: the id does. A server
keeps the id of the first home that uses it; two homes on one server would take each other's doorbells.
"""

import contextlib
import grp
import os
import re
import secrets
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from modeling.durable import link_once, temporary_beside, write_durable
from modeling.errors import DISK_FULL
from modeling.names import path_to_text
from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import PigeonholeError, UsageError
from orchestrator.contract.settings import Settings, limited_umask

ID_FILE = "id"
if TYPE_CHECKING:
    import redis  # the type alone: a scan needs no server

SERVER_KEY = "{pigeonhole}:home"
_ID = re.compile(r"[0-9a-f]{16}")
_TEST_BYTES = 1 << 16
OWNER_MODE, GROUP_MODE = 0o700, 0o2770  # what is made in a home of a group belongs to the group


class OtherHomeError(UsageError):
    """The server works for another home."""


def make_home(settings: Settings) -> None:
    """Make the home, unless there is one, and limit what this process makes in it to the owner or the home's group.

    An existing home keeps its mode; `doctor` warns of one that lets others in.
    """
    os.umask(limited_umask(os.umask(0o077), shared=settings.is_shared()))
    if settings.home.is_dir():
        return
    group = _group_id(settings.home_group)
    settings.home.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        settings.home.mkdir(OWNER_MODE)
        if group is not None:
            _let_in(settings.home, group)


def _let_in(home: Path, group: int) -> None:
    try:
        os.chown(home, -1, group)
        home.chmod(GROUP_MODE)
    except OSError:
        home.rmdir()  # it must not stay closed to the group without a word
        raise


def cache_folder(settings: Settings) -> Path:
    """The folder of the cache, in a home that is made if there is none; the cache says itself if that is impossible."""
    with contextlib.suppress(OSError):
        make_home(settings)
    return settings.cache


def scratch_folder(settings: Settings) -> Path:
    """The folder of the cache, for files that a command cannot do without. Raises UsageError where it holds none."""
    folder = settings.cache
    try:
        make_home(settings)
        folder.mkdir(exist_ok=True)
    except OSError as err:
        raise UsageError(
            f"the home {str(settings.home)!r}, which holds files for as long as the command runs, cannot be written: "
            f"{explain_os_error(err) or err}; or set PIGEONHOLE_HOME to another place"
        ) from err
    return folder


def library_folders(settings: Settings) -> dict[str, str]:
    """Variables by which libraries keep their files in the cache, not in the user's home or among temporary files."""
    return {
        "MPLCONFIGDIR": str(settings.cache / "matplotlib"),  # its list of fonts
        "TORCHINDUCTOR_CACHE_DIR": str(settings.cache / "torch"),  # torch's exporter makes it, and never uses it
    }


def set_library_folders(settings: Settings) -> None:
    """Set these variables for libraries that this process imports later, unless the user has set them."""
    for name, folder in library_folders(settings).items():
        os.environ.setdefault(name, folder)


def _group_id(group: str | None) -> int | None:
    """The number of a group. Raises UsageError where there is none of that name."""
    if group is None or group.isdecimal():
        return int(group) if group else None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as err:
        raise UsageError(f"home_group {group!r}: this machine has no such group; name another, or its number") from err


def describe_openness(settings: Settings) -> str:
    """Who may enter or change the home besides its owner, and how to stop that; empty where nobody may, or it is meant.

    Raises UsageError where `home_group` names no group.
    """
    home, group = settings.home, _group_id(settings.home_group)
    facts = home.stat()
    mode = stat.S_IMODE(facts.st_mode)
    if group is None and settings.is_shared() and not mode & 0o007:
        return f"its group {facts.st_gid} shares it (mode {mode:04o}): set home_group if that is meant, else " + (
            f"`chmod 700 {home}`"
        )
    if group is None:
        return f"others may enter it (mode {mode:04o}): `chmod 700 {home}`, or set home_group" if mode & 0o077 else ""
    if mode & 0o007:
        return f"everybody may enter it (mode {mode:04o}): `chmod o= {home}`"
    if facts.st_gid != group or mode & GROUP_MODE != GROUP_MODE:
        allow = (
            f"chgrp -R {settings.home_group} {home}; chmod -R g+rwX {home}; find {home} -type d -exec chmod g+s {{}} +"
        )
        return f"its group {facts.st_gid} (mode {mode:04o}) does not share it as home_group says: `{allow}`"
    return ""


def try_to_write(folder: Path) -> None:
    """Write and sync some bytes in a folder, as jobs do, and leave nothing: what the disk answers is raised."""
    with tempfile.TemporaryFile(dir=folder, prefix=".write-test-", buffering=0) as file:
        file.write(bytes(_TEST_BYTES))
        os.fsync(file.fileno())


def check_home_access(settings: Settings) -> None:
    """Make the home if there is none, and see that a worker may read its models and write what jobs need.

    A full disk is no error: space may come. Raises PigeonholeError that says whose the folder is.
    """
    try:
        make_home(settings)
        for folder in home_folders(settings):
            os.listdir(folder)
            if folder != settings.models:  # that may be read-only for workers that train nothing
                try_to_write(folder)
    except OSError as err:
        if err.errno not in DISK_FULL:
            raise PigeonholeError(f"the home {settings.home} cannot be used: {explain_os_error(err) or err}") from err


def home_folders(settings: Settings) -> list[Path]:
    """The home and the folders in it that jobs write to, as far as they exist."""
    folders = (settings.home, settings.jobs, settings.active, settings.models)
    return [folder for folder in folders if folder.is_dir()]


# Its id


def read_home_id(settings: Settings) -> str | None:
    """The id of the home; None where it has none yet."""
    path = settings.home / ID_FILE
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not _ID.fullmatch(text):
        raise PigeonholeError(f"{path} holds no id of a home; remove it, if no job is active, and it is made anew")
    return text


def make_home_id(settings: Settings) -> str:
    """The id of the home. Creates the home and its id if they are missing; the first of several processes wins."""
    make_home(settings)
    if (known := read_home_id(settings)) is not None:
        return known
    path = settings.home / ID_FILE
    with temporary_beside(path, mode=0o640) as temporary:
        write_durable(temporary, f"{secrets.token_hex(8)}\n".encode())
        link_once(temporary, path)
    made = read_home_id(settings)
    assert made is not None
    return made


# Its server


def check_server(settings: Settings, client: "redis.Redis") -> bool:
    """Whether the server knows this home; False where it was emptied, or the home has never been at work with it.

    Raises OtherHomeError where the server works for another home. Nothing is written.
    """
    return _is_joined(settings, client, read_home_id(settings))


def join_server(settings: Settings, client: "redis.Redis", own: str | None = None) -> str:
    """Make the server work for this home, if it works for none; returns the home's id.

    own: that id, if it was read before. Raises OtherHomeError where the server works for another home.
    """
    own = own or read_home_id(settings)
    if _is_joined(settings, client, own):  # asked first: a home that is only not mounted must get no id
        return cast(str, own)
    own = own or make_home_id(settings)
    if client.hsetnx(SERVER_KEY, "id", own):
        client.hset(SERVER_KEY, "path", path_to_text(str(settings.home)))
        client.hset(SERVER_KEY, "host", socket.gethostname())
    _is_joined(settings, client, own)  # another home may have been faster
    return own


def _is_joined(settings: Settings, client: "redis.Redis", own: str | None) -> bool:
    """Whether the server works for this home; False where it works for none."""
    server = cast(dict[str, str], client.hgetall(SERVER_KEY))
    if server and server.get("id") != own:
        place = f"{server.get('path', '?')} on {server.get('host', '?')}"
        raise OtherHomeError(
            f"the server belongs to another home, {server.get('id', '?')} ({place}), not to {own or 'a new one'} "
            f"({settings.home} here); set PIGEONHOLE_HOME to that home (is it mounted?), or use a server or a database "
            "number for each; if that home is gone for good, empty the server"
        )
    return bool(server)
