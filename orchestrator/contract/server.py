"""Connections to the Redis or Valkey server."""

from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.connection import DefaultParser
from redis.retry import Retry

from orchestrator.contract.errors import UnavailableError, UsageError
from orchestrator.contract.server_url import parse_url, redact
from orchestrator.contract.shown import without_logins

CONNECT_TIMEOUT_S = 5
SOCKET_TIMEOUT_S = 15  # without a timeout, a call to a frozen server hangs forever


class CannotServeError(redis.ResponseError):
    """The server runs but cannot serve now: its disk is full, a script blocks it, its replicas are away."""


# redis-py has no classes for these answers of its own; it finds the class of an error by the first word.
DefaultParser.EXCEPTION_CLASSES.update(dict.fromkeys(("MISCONF", "BUSY", "NOREPLICAS"), CannotServeError))


class Parser(DefaultParser):  # type: ignore[valid-type,misc]  # a variable: one of two classes
    """Without redis-py's reference of a parser to itself while it is not connected.

    That kept each lost connection, with a buffer of 64 KiB, until Python's next full garbage collection.
    """

    pubsub_push_handler_func: Any

    def on_connect(self, connection: Any, **options: Any) -> None:
        """Called by the connection."""
        super().on_connect(connection, **options)
        if self.pubsub_push_handler_func is None:
            self.pubsub_push_handler_func = self.handle_pubsub_push_response

    def on_disconnect(self) -> None:
        """Called by the connection. A handler that somebody else has set stays."""
        super().on_disconnect()
        if getattr(self.pubsub_push_handler_func, "__self__", None) is self:
            self.pubsub_push_handler_func = None


# Of every connection. The name and version of redis-py, which it tells the server, it reads from its files each time.
CONNECTION_OPTIONS: dict[str, Any] = {"parser_class": Parser, "driver_info": None}

# What redis-py raises if the server is away, frozen, loading, full, a replica, or shutting down.
SERVER_ERRORS = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.MasterDownError,
    CannotServeError,
)


def anew(err: Exception) -> Exception:
    """An error of a reply, to be raised. One that is raised while something else holds it holds that in turn, with all
    that the calls between had: until Python's next full garbage collection, and errors may come by the dozen a second.
    """
    return type(err)(*err.args)


def connect(url: str, *, timeout_s: float = SOCKET_TIMEOUT_S, retries: int = 2) -> redis.Redis:
    """A client with timeouts; it connects at its first command and again after an error.

    Raises UsageError if `url` is not the URL of a server.
    """
    parse_url(url)
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=min(timeout_s, CONNECT_TIMEOUT_S),
            health_check_interval=10,
            decode_responses=True,
            encoding_errors="backslashreplace",  # what somebody else wrote there must not end a command
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=retries),
            **CONNECTION_OPTIONS,
        )
    except ValueError as err:  # an option's value, which redis-py names without saying it
        raise UsageError(f"server URL {redact(url)!r} cannot be used: {without_logins(str(err))}") from err


def connect_raw(
    url: str, *, timeout_s: float = SOCKET_TIMEOUT_S, retries: int = 0, protocol: int | None = None
) -> redis.Redis:
    """A client for images: replies stay bytes, and nothing is sent twice unless the caller does it.

    protocol: of Redis; None: as redis-py or the URL has it.

    Raises UsageError if `url` is not the URL of a server.
    """
    parse_url(url)
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=min(timeout_s, CONNECT_TIMEOUT_S),
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=retries),
            **({} if protocol is None else {"protocol": protocol}),
            **CONNECTION_OPTIONS,
        )
    except ValueError as err:
        raise UsageError(f"server URL {redact(url)!r} cannot be used: {without_logins(str(err))}") from err


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
