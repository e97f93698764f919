"""The Host of a request: which names this gateway answers to.

A page of another site can make a browser connect to a loopback address under the site's own name (DNS rebinding). Its
requests then have that name as their Host.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable

from orchestrator.contract.addresses import is_loopback
from orchestrator.contract.errors import UsageError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]{1,5})?", re.IGNORECASE)


class Hosts:
    """The names and addresses that a request may be for; the port does not matter."""

    def __init__(self, listen: str, allowed: Iterable[str] = ()) -> None:
        names = {*LOOPBACK_NAMES, listen, *allowed}
        self._any_local_address = False
        if not is_loopback(listen):
            names.add(socket.gethostname())  # no full name: asking for it may wait for a name server
            self._any_local_address = ipaddress.ip_address(listen).is_unspecified
        self._names = frozenset(name.lower().rstrip(".") for name in names)

    def allows(self, host: bytes, server: tuple[str, int | None] | None) -> bool:
        """Whether a Host header names this gateway. server: the address at which the request came in."""
        found = _HOST.fullmatch(host.decode("latin-1"))
        if found is None:
            return False
        name = (found["six"] or found["name"]).lower().rstrip(".")
        if name in self._names:
            return True
        return self._any_local_address and server is not None and name == server[0].removeprefix("::ffff:")


def check_host_name(name: str) -> str:
    """A name or address as a Host header has it, without its port. Raises UsageError."""
    found = _HOST.fullmatch(name)
    if found is None or name.rpartition("]")[2].count(":") == 1:
        raise UsageError(f"--allow-host {name!r} is not a name or address, such as sorter.example or [fd00::5]")
    return found["six"] or found["name"]
