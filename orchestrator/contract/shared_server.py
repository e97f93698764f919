"""The server of a home that one machine runs for all: `up --listen` writes it down, and the others read it there.

The file holds the server's password, so it is as readable as the answers of the home: by its owner, or its group.
"""

from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from urllib.parse import quote

from modeling.durable import STRICT, decode_json, private_mode, replace_durably, validated
from orchestrator.contract.errors import MessageError

SHARED_FILE, _CERTIFICATE = "server.json", "server.crt"


@dataclass(frozen=True)
class SharedServer:
    """Which machine runs the server, and where it listens."""

    host: str
    listen: str  # as `up --listen` has it, port included
    url: str  # with its password; of an encrypted one without its certificate, see `url_in`

    __pydantic_config__ = STRICT

    def url_in(self, home: Path) -> str:
        """The URL for a machine that has mounted the home there."""
        if not self.encrypted:
            return self.url
        return f"{self.url}?ssl_ca_certs={quote(str(home / _CERTIFICATE))}"

    @property
    def encrypted(self) -> bool:
        return self.url.startswith("rediss:")

    @property
    def traffic(self) -> str:
        return "encrypted" if self.encrypted else "not encrypted"


def read_shared_server(home: Path) -> SharedServer | None:
    """The server that a machine runs for all; None where no machine does."""
    path = home / SHARED_FILE
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    what = f"{path}, which `pigeonhole up --listen` writes,"
    return validated(SharedServer, decode_json(data, what, error=MessageError), what, error=MessageError)


def write_shared_server(home: Path, server: SharedServer, certificate: bytes | None) -> None:
    """Write down the server, and the certificate that others are to trust."""
    if certificate is not None:
        replace_durably(home / _CERTIFICATE, certificate)
    replace_durably(home / SHARED_FILE, dumps(asdict(server)).encode(), mode=private_mode(home))


def forget_shared_server(home: Path) -> None:
    """Remove what was written down."""
    for name in (SHARED_FILE, _CERTIFICATE):
        (home / name).unlink(missing_ok=True)
