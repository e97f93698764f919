"""Tokens: who may look, push, or operate. Kept as digests, so that no error or dump shows one."""

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import UsageError

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")  # RFC 6750's characters
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FORM = "each line is `ROLE TOKEN` or `ROLE TOKEN NAME`, with a role of view, push, operate"
_MOST_BYTES = 1 << 20


class Role(IntEnum):
    """What a client may do; each role includes those before it."""

    VIEW = 1  # everything that only shows something
    PUSH = 2  # images to lines and models
    OPERATE = 3  # jobs, and changes of lines and models


@dataclass(frozen=True, slots=True)
class Client:
    """Who sent a request. name: for the access log."""

    role: Role
    name: str = "-"


ANYBODY = Client(Role.OPERATE)  # on a loopback address without a token file


class Tokens:
    """The tokens of a gateway."""

    def __init__(self, clients: Mapping[bytes, Client]) -> None:
        """clients: by the SHA-256 digest of their token."""
        self._clients = dict(clients)

    def find(self, authorization: bytes) -> Client | None:
        """The client of an `Authorization` header; None where it is not a token of this gateway.

        All tokens are compared, each in constant time.
        """
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        digest = hashlib.sha256(token.strip()).digest()
        found = None
        for known, client in self._clients.items():
            if hmac.compare_digest(known, digest):
                found = client
        return found


def read_tokens(path: Path) -> Tokens:
    """The tokens of a file that only its owner can read.

    Raises UsageError, which names the line but never its text.
    """
    clients: dict[bytes, Client] = {}
    for number, line in enumerate(_read_private(path).splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        where = f"--token-file {path}, line {number}"
        if len(fields) not in (2, 3) or fields[0].upper() not in Role.__members__:
            raise UsageError(f"{where}: {_FORM}")
        if not _TOKEN.fullmatch(fields[1]):
            raise UsageError(f"{where}: a token has 16 to 512 letters, digits and ._~+/=-; try `openssl rand -hex 32`")
        name = fields[2] if len(fields) == 3 else f"line-{number}"
        if not _NAME.fullmatch(name):
            raise UsageError(f"{where}: a name has 1 to 64 letters, digits and ._-")
        digest = hashlib.sha256(fields[1].encode()).digest()
        if digest in clients:
            raise UsageError(f"{where}: this token stands in the file before")
        clients[digest] = Client(Role[fields[0].upper()], name)
    if not clients:
        raise UsageError(f"--token-file {path} holds no token: {_FORM}")
    return Tokens(clients)


def _is_credential(path: Path) -> bool:
    """Whether systemd made the file for this service alone (LoadCredential).

    An ACL lets the service's user read it, and `stat` shows the rights that an ACL gives as those of the group.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(folder) and path.parent == Path(str(folder))


def _read_private(path: Path) -> str:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise UsageError(f"--token-file {path} is not a regular file")
            if facts.st_mode & (0o037 if _is_credential(path) else 0o077):
                raise UsageError(f"--token-file {path} can be read by others: run `chmod 600 {path}`")
            if facts.st_uid not in (os.getuid(), 0):
                raise UsageError(f"--token-file {path} belongs to another user (uid {facts.st_uid})")
            return file.read(_MOST_BYTES).decode()
    except OSError as err:
        raise UsageError(f"--token-file cannot be read: {explain_os_error(err) or err}") from err
    except UnicodeDecodeError as err:
        raise UsageError(f"--token-file {path} is not text") from err
