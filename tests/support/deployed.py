"""What files of a deployment name: commands, settings and a server, checked against the product."""

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from subprocess import DEVNULL, Popen

import click
import redis

from orchestrator.contract.settings import Settings
from tests.support.server import answers, wait_until

SETTINGS = {f"PIGEONHOLE_{field.upper()}" for field in Settings.model_fields}


def check_command(words: Sequence[str]) -> None:
    """Fails unless `words` is a command line that the CLI understands; nothing is run."""
    from orchestrator.cli import main

    assert words[0] == "pigeonhole"
    group: click.Command = main
    context = click.Context(main)
    rest = list(words[1:])
    while isinstance(group, click.Group) and rest and not rest[0].startswith("-"):
        _, command, rest = group.resolve_command(context, rest)
        assert command is not None
        group, context = command, click.Context(command, parent=context)
    if rest != ["--help"]:
        group.make_context(words[-1], list(rest))


def gateway_stop_s(words: Sequence[str]) -> float:
    """The seconds that a gateway with these arguments needs to end, at most."""
    from orchestrator.gateway.guard.connection import ConnectionLimits

    graces = [float(word.partition("=")[2]) for word in words if word.startswith("--listing-grace=")]
    return ConnectionLimits().stop_s + sum(graces)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_server(
    command: Callable[[int], Sequence[str]], password: str, environment: dict[str, str]
) -> Iterator[tuple[redis.Redis, "Popen[bytes]"]]:
    """A server that a deployment's own command starts on the port that it is given; it ends by SIGTERM, with 0."""
    port = free_port()
    server = Popen(list(command(port)), env=environment, stdout=DEVNULL)
    try:
        client = redis.Redis(port=port, password=password, socket_timeout=5)
        wait_until(lambda: answers(client), what="the server answers")
        yield client, server
    finally:
        server.terminate()
        ended = server.wait(timeout=20)
    assert ended == 0
