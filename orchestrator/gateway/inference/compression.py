"""Bodies that a client has compressed: `gzip`, and `deflate`, which means zlib's format."""

import zlib

from orchestrator.gateway.inference.errors import bad_request
from orchestrator.gateway.problems import ProblemError

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def decompress(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """The body as it was before `Content-Encoding`. encoding: empty or `identity`: as it is.

    Raises ProblemError where it is damaged, or has more than `most_bytes`: no more than that is ever in memory.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW_BITS:
        raise ProblemError(
            415, "encoded", f"Content-Encoding {encoding[:40]!r} is not supported; use gzip or deflate, or none"
        )
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = stream.decompress(body, most_bytes + 1)
    except zlib.error as err:
        raise bad_request(f"the body is not {encoding}: {err}") from err
    if len(plain) > most_bytes:
        raise ProblemError(413, "too_large", f"the body has more than {most_bytes} bytes when it is decompressed")
    if not stream.eof:
        raise bad_request(f"the {encoding} body ends too early")
    if stream.unused_data:
        raise bad_request(f"{len(stream.unused_data)} bytes follow the {encoding} body")
    return plain
