"""Connections to the Redis or Valkey server."""

import re
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from orchestrator.contract.errors import UnavailableError, UsageError

CONNECT_TIMEOUT_S = 5
SOCKET_TIMEOUT_S = 15  # without a timeout, a call to a frozen server hangs forever
SCHEMES = ("redis", "rediss", "unix")
_QUERY_PASSWORD = re.compile(r"([?&]password=)[^&]*")

# What redis-py raises if the server is away, frozen, loading, full or shutting down.
SERVER_ERRORS = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
)


def connect(url: str) -> redis.Redis:
    """A client with timeouts; it connects at its first command and again after an error.

    Raises UsageError if `url` is not the URL of a server.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise UsageError(f"server URL {redact(url)!r} must start with one of redis://, rediss://, unix://")
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            health_check_interval=10,
            decode_responses=True,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2),
        )
    except ValueError as err:
        raise UsageError(f"server URL {redact(url)!r} cannot be used: {err}") from err


def require_answer(client: redis.Redis, url: str) -> None:
    """Check that the server answers. Raises UnavailableError if it does not."""
    try:
        client.ping()
    except redis.AuthenticationError as err:
        raise UnavailableError(f"the server at {redact(url)} refuses the password: {err}") from err
    except (redis.RedisError, OSError) as err:
        raise UnavailableError(
            f"no server answers at {redact(url)} ({err}); start one, or `pigeonhole up` for a local one"
        ) from err


def redact(url: str) -> str:
    """`url` without its password, for logs and messages."""
    url = _QUERY_PASSWORD.sub(r"\1***", url)
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{parts.netloc.rpartition('@')[2]}"))


def celery_url(url: str) -> str:
    """The URL of the same server for Celery's transport, which spells database and password of a socket differently."""
    parts = urlsplit(url)
    if parts.scheme == "rediss" and "ssl_cert_reqs" not in parts.query:
        query_text = "&".join(
            filter(None, [parts.query, "ssl_cert_reqs=required"])
        )  # Celery's default does not verify certificates
        return urlunsplit(parts._replace(query=query_text))
    if parts.scheme != "unix":
        return url
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    user, password = query.get("username", ""), query.get("password")
    login = parts.netloc or (f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else "")
    database = f"?{urlencode({'virtual_host': query['db']})}" if "db" in query else ""
    return f"redis+socket://{login}{parts.path}{database}"
