"""Where a request of a browser comes from: pages of other sites may not do anything here, nor listen.

Programs that are not browsers send neither Sec-Fetch-Site nor Origin, and pass. Browsers send Sec-Fetch-Site over TLS
and to loopback addresses; else Origin with everything but GET and HEAD.
"""

from collections.abc import Mapping

_OWN_SITE = (b"same-origin", b"none")  # none: the user typed the address


def from_elsewhere(method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request that acts, or opens a stream of events, comes from a page of another site."""
    if method in ("GET", "HEAD") and not (_is_stream(path, headers) or _opens_a_model(path)):
        return False
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site not in _OWN_SITE
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower()


def _is_stream(path: str, headers: Mapping[bytes, bytes]) -> bool:
    return path.endswith("/events") or b"text/event-stream" in headers.get(b"accept", b"")


def _opens_a_model(path: str) -> bool:
    return path.startswith("/v2/models/") and path.endswith("/ready")
