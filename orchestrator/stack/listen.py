"""Where the local stack's server listens for other machines: `up --listen`, checked before anything starts."""

import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import UsageError

DEFAULT_PORT = 6379
_TEXT = re.compile(r"(\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[^:\s]+))(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Listen:
    """An address of this machine, and the files of TLS if the traffic is to be encrypted."""

    address: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    @property
    def place(self) -> str:
        return f"{_in_url(self.address)}:{self.port}"

    @property
    def everywhere(self) -> bool:
        """Whether it stands for every address of the machine."""
        return ipaddress.ip_address(self.address).is_unspecified

    @property
    def url_place(self) -> str:
        """Host and port for other machines."""
        return f"{socket.gethostname()}:{self.port}" if self.everywhere else self.place


def parse_listen(text: str, certificate: Path | None, key: Path | None) -> Listen:
    """The place that `--listen` names. Raises UsageError for what is none of this machine, or is taken."""
    if (certificate is None) != (key is None):
        raise UsageError("--tls-cert and --tls-key belong together: name both, or none")
    listen = Listen(*_address(text), certificate, key)
    for file in (certificate, key):
        try:
            if file is not None:
                file.read_bytes()
        except OSError as err:
            raise UsageError(f"the file of TLS cannot be read: {explain_os_error(err) or err}") from err
    return listen


def check_free(listen: Listen) -> None:
    """Raises UsageError where the address is none of this machine, or its port is taken."""
    family = socket.AF_INET6 if ":" in listen.address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: closed connections do not count
        try:
            probe.bind((listen.address, listen.port))
        except OSError as err:
            raise UsageError(f"--listen {listen.place}: {_explain(err, listen)}") from err


def _address(text: str) -> tuple[str, int]:
    """Address and port."""
    bare = text if text.count(":") < 2 or text.startswith("[") else f"[{text}]"  # an IPv6 address without a port
    found = _TEXT.fullmatch(bare)
    try:
        address = str(ipaddress.ip_address((found["six"] or found["four"]) if found else text))
    except ValueError as err:
        raise UsageError(
            f"--listen {text!r} is not an address; name one of this machine, such as {_example()}, with a port if "
            f"{DEFAULT_PORT} is taken: {_example()}:6380"
        ) from err
    port = int(found["port"] or DEFAULT_PORT) if found else DEFAULT_PORT
    if not 0 < port < 1 << 16:
        raise UsageError(f"--listen {text!r} has no port from 1 to 65535")
    return address, port


def _explain(err: OSError, listen: Listen) -> str:
    if err.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no such address; it has {', '.join(_addresses())}"
    if err.errno == errno.EADDRINUSE:
        return f"the port is taken; name another, such as {_in_url(listen.address)}:{listen.port % 65535 + 1}"
    return os.strerror(err.errno or 0)


def _addresses() -> list[str]:
    """The IPv4 addresses of this machine, loopback last; where it has none, those of IPv6."""
    every = [each for interface in psutil.net_if_addrs().values() for each in interface]
    for family in (socket.AF_INET, socket.AF_INET6):
        if found := {each.address.partition("%")[0] for each in every if each.family == family}:
            return sorted(found, key=lambda address: (ipaddress.ip_address(address).is_loopback, address))
    return ["none"]


def _example() -> str:
    first = _addresses()[0]
    return first if "." in first else "192.168.1.10"


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address
