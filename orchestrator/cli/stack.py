"""`pigeonhole up` and `down`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import json_option, print_json, print_message, print_table
from orchestrator.cli.speaking import doing
from orchestrator.contract.addresses import GATEWAY_ADDRESS
from orchestrator.contract.devices import list_devices, list_gpus
from orchestrator.contract.errors import UsageError
from orchestrator.contract.server_url import redact

if TYPE_CHECKING:
    from orchestrator.contract.settings import Settings
    from orchestrator.contract.shared_server import SharedServer
    from orchestrator.stack.gateway import StackGateway
    from orchestrator.stack.listen import Listen


@click.command()
@click.option(
    "--device", "devices", multiple=True, help="Device of a worker: cpu or cuda:N; may be repeated. Default: all."
)
@click.option(
    "--listen",
    "address",
    metavar="ADDRESS[:PORT]",
    help="Address of this machine at which other machines reach the server, which then asks for a password (port "
    "6379 if none is given). Default: none but this machine.",
)
@click.option(
    "--gateway", "gateway", is_flag=False, flag_value=GATEWAY_ADDRESS, metavar="[ADDRESS:PORT]",
    help=f"Start a gateway, too: alone at {GATEWAY_ADDRESS}. See `pigeonhole gateway`.",
)  # fmt: skip
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="File of the gateway's tokens, mode 600: `ROLE TOKEN` lines."
)
@click.option(
    "--root", "roots", multiple=True, type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder below which jobs of the gateway may read images and write results; may be repeated. Default: none.",
)  # fmt: skip
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate, PEM, with which --listen encrypts.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key, PEM.")
@json_option
def up(
    devices: tuple[str, ...],
    address: str | None,
    gateway: str | None,
    token_file: Path | None,
    roots: tuple[Path, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    as_json: bool,
) -> None:
    """Start the local stack in the background: a server that keeps its data, and a worker for each device.

    \b
    Examples:
      pigeonhole up
      pigeonhole up --device cuda:0 --device cpu
      pigeonhole up --listen 192.168.1.10
      pigeonhole up --gateway --root /data
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.stack.stack import Stack

    settings = get_settings()
    if settings.server_url is not None:
        url = redact(settings.server_url.get_secret_value())
        raise UsageError(f"PIGEONHOLE_SERVER_URL names another server, {url}; unset it to use a local stack")
    listen = _listen(address, tls_cert, tls_key)
    place = _gateway(gateway, token_file, roots)
    stack = Stack(settings)
    with doing("starting a server and workers, which import torch"):
        processes = stack.up(_checked(devices) or list_devices(), listen, place)
    if as_json:
        print_json([{"name": process.name, "pid": process.pid, "log": process.log} for process in processes])
    else:
        print_table(
            ("process", "pid", "log"), [(process.name, process.pid or "?", process.log) for process in processes]
        )
    if (shared := stack.shared()) is not None:
        _say_how_to_join(settings, shared)
    if place is not None:
        print_message(f"the gateway listens at {place.url}; {place.url}/docs describes its calls")


@click.command()
@json_option
def down(as_json: bool) -> None:
    """Stop what `up` started, and nothing else. Active jobs continue after the next `up`.

    \b
    Example:
      pigeonhole down
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.stack.server import check_name
    from orchestrator.stack.stack import Stack

    settings = get_settings()
    stack = Stack(settings)
    was_shared = stack.shared() is not None
    with doing("stopping: workers hand back what they hold"):
        stopped = stack.down()
    if not stopped:
        check_name(settings)
    if not as_json:
        print_message(f"stopped {', '.join(process.name for process in stopped)}" if stopped else "no local stack runs")
    else:
        print_json([process.name for process in stopped])
    if was_shared:
        print_message("workers of other machines wait until the server is back; Ctrl-C ends them there")


def _listen(address: str | None, certificate: Path | None, key: Path | None) -> "Listen | None":
    """Where other machines reach the server. Raises UsageError for options that go together."""
    if address is not None:
        from orchestrator.stack.listen import parse_listen

        return parse_listen(address, certificate and certificate.absolute(), key and key.absolute())
    if certificate or key:
        raise UsageError("--tls-cert and --tls-key need --listen ADDRESS: only other machines' traffic is encrypted")
    return None


def _gateway(place: str | None, token_file: Path | None, roots: tuple[Path, ...]) -> "StackGateway | None":
    """Where the gateway is to listen. Raises UsageError, also for tokens that cannot be used."""
    if place is None:
        if token_file is not None or roots:
            raise UsageError(f"{'--root' if roots else '--token-file'} needs --gateway")
        return None
    from orchestrator.stack.gateway import parse_gateway

    gateway = parse_gateway(place, token_file, roots)
    if gateway.token_file is not None:
        from orchestrator.gateway.guard.tokens import read_tokens

        read_tokens(gateway.token_file)
    return gateway


def _say_how_to_join(settings: "Settings", shared: "SharedServer") -> None:
    """Print what to type on another machine, and who can read what goes there."""
    print_message(f"the server listens at {shared.listen}, {shared.traffic}; on another machine:")
    print_message(f"  PIGEONHOLE_HOME={shlex.quote(str(settings.home))} pigeonhole worker")
    print_message("with that folder and the images mounted there; address and password are in the folder")
    if shared.listen.startswith(("0.0.0.0:", "[::]:")):
        print_message(
            f"{shared.listen} is every address of this machine, also public ones; others look for {shared.host}",
            color="yellow",
        )
    if not shared.encrypted:
        print_message("only a trusted network should carry what is not encrypted: see --tls-cert", color="yellow")


def _checked(devices: tuple[str, ...]) -> list[str]:
    """The devices asked for, each once. Raises UsageError if this machine has no such device."""
    here = ["cpu", *(f"cuda:{index}" for index in list_gpus())] if devices else []
    for device in devices:
        if device not in here:
            raise UsageError(f"--device {device!r} is not a device of this machine; choose from {', '.join(here)}")
    return list(dict.fromkeys(devices))
