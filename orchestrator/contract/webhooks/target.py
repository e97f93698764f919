"""Where a webhook goes: its URL, checked, and the addresses of its host, which must not be private ones.

The name is resolved once, and the connection goes to an address that was checked: so a name that resolves to another
address the next time reaches nothing. Redirects are not followed.
"""

import re
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from orchestrator.contract.errors import PigeonholeError, UsageError
from orchestrator.contract.settings import Network

RESOLVE_S = 5.0
_LONGEST_URL = 2000
_URL = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")  # a name, or an IPv6 address without its brackets
_PORTS = {"http": 80, "https": 443}
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")  # of IPv4, deprecated

Address = IPv4Address | IPv6Address


class DeliveryError(PigeonholeError):
    """A webhook was not delivered; it may be later."""


@dataclass(frozen=True)
class WebhookTarget:
    """The parts of a URL. path: with the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """For people: without path and query, which often are the receiver's password."""
        return f"{self.scheme}://{self.authority}"


def parse_target(url: str) -> WebhookTarget:
    """The parts of a URL that a webhook may have.

    Raises UsageError, which never has the URL's path, query or login.
    """
    if len(url) > _LONGEST_URL or not _URL.fullmatch(url):
        raise UsageError(f"a webhook's URL is 1 to {_LONGEST_URL} printable ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as err:
        raise UsageError("a webhook's URL has no valid host and port; write it as https://host/path") from err
    if parts.scheme not in _PORTS or not _HOST.fullmatch(host) or port == 0:
        raise UsageError("a webhook's URL begins with https:// or http:// and a host, such as https://host/path")
    if "@" in parts.netloc:
        raise UsageError(f"a webhook's URL holds no user and password: use the signature ({parts.scheme}://{host})")
    if parts.fragment:
        raise UsageError(f"a webhook's URL holds no '#': write it as %23 ({parts.scheme}://{host})")
    query = f"?{parts.query}" if parts.query else ""
    return WebhookTarget(parts.scheme, host, port or _PORTS[parts.scheme], (parts.path or "/") + query)


def check_target(url: str, allowed: Sequence[Network]) -> WebhookTarget:
    """The target, as far as it can be checked without connecting to it.

    A name that cannot be resolved at the moment is accepted: it may be when the job ends. Raises UsageError.
    """
    target = parse_target(url)
    try:
        resolve(target, allowed)
    except _UnresolvedNowError:
        return target
    except DeliveryError as err:
        raise UsageError(str(err)) from err
    return target


def resolve(target: WebhookTarget, allowed: Sequence[Network]) -> list[Address]:
    """The addresses of the host, in the system's order.

    Raises DeliveryError where it has none, or where one of them is private and not within `allowed`.
    """
    found = _within(RESOLVE_S, lambda: _look_up(target))
    for address in found:
        if not _is_allowed(address, allowed):
            raise DeliveryError(
                f"webhook {target.shown}: {address} is not a public address; if it is meant, add it to the setting "
                "notify_allow"
            )
    return found


class _UnresolvedNowError(DeliveryError):
    """The resolver did not answer."""


def _look_up(target: WebhookTarget) -> list[Address]:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except socket.gaierror as err:
        if err.errno == socket.EAI_AGAIN:
            raise _UnresolvedNowError(f"webhook {target.shown}: the host's name cannot be resolved now") from err
        raise DeliveryError(f"webhook {target.shown}: there is no such host") from err
    except UnicodeError as err:
        raise DeliveryError(f"webhook {target.shown}: the host's name is not valid") from err
    return list(dict.fromkeys(ip_address(str(place[0]).partition("%")[0]) for *_, place in found))


def _within(seconds: float, call: Callable[[], list[Address]]) -> list[Address]:
    """The result of a call that has no time limit of its own."""
    results: list[list[Address] | BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as err:
            results.append(err)

    thread = threading.Thread(target=run, name="resolve", daemon=True)
    thread.start()
    thread.join(seconds)
    result = results[0] if results else _UnresolvedNowError(f"the resolver gave no answer within {seconds:g} s")
    if isinstance(result, BaseException):
        raise result
    return result


def _is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    inner = _embedded(address)
    if any(each is not None and each in network for each in (address, inner) for network in allowed):
        return True
    return _is_public(inner) if inner is not None else _is_public(address)


def _is_public(address: Address) -> bool:
    site_local = isinstance(address, IPv6Address) and address.is_site_local
    return address.is_global and not address.is_multicast and not address.is_reserved and not site_local


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if not isinstance(address, IPv6Address):
        return None
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
