"""The gateway of the local stack: its address, its command, and whether it answers."""

import http.client
import ipaddress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.contract.addresses import GATEWAY_ADDRESS, is_loopback
from orchestrator.contract.errors import UsageError
from orchestrator.stack.process import Process, wait_until_ready

GATEWAY = "gateway"
START_S, STOP_S = 30.0, 15.0
_ASK_S = 2.0


@dataclass(frozen=True)
class StackGateway:
    """Where `up --gateway` lets it listen.

    token_file: needed where other machines can reach it. roots: absolute folders below which jobs may read and write.
    """

    host: str
    port: int
    token_file: Path | None = None
    roots: tuple[Path, ...] = ()

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def arguments(self) -> list[str]:
        """Of the process, after Python's name."""
        tokens = ["--token-file", str(self.token_file)] if self.token_file else []
        roots = [argument for root in self.roots for argument in ("--root", str(root))]
        return ["-m", "orchestrator", "gateway", "--host", self.host, "--port", str(self.port), *tokens, *roots]

    def answers(self) -> bool:
        """Whether a gateway answers there now."""
        address = ipaddress.ip_address(self.host)
        host = ("::1" if address.version == 6 else "127.0.0.1") if address.is_unspecified else self.host
        connection = http.client.HTTPConnection(host, self.port, timeout=_ASK_S)
        try:
            connection.request("GET", "/health/live")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def wait(self, process: Process) -> None:
        """Wait until it answers. Raises UnavailableError."""
        wait_until_ready(process, partial(StackGateway.answers, self), START_S, stop_s=STOP_S)


def parse_gateway(text: str, token_file: Path | None, roots: tuple[Path, ...] = ()) -> StackGateway:
    """The place that `--gateway` names. Raises UsageError."""
    host, _, port = text.rpartition(":")
    try:
        address = str(ipaddress.ip_address(host.strip("[]") or "127.0.0.1"))
        number = int(port) if port.isascii() and port.isdigit() else 0
    except ValueError as err:
        raise UsageError(
            f"--gateway {text!r} is not an address; write ADDRESS:PORT, such as {GATEWAY_ADDRESS}"
        ) from err
    if not 0 < number < 1 << 16:
        raise UsageError(
            f"--gateway {text!r} has no port from 1 to 65535; write ADDRESS:PORT, such as {GATEWAY_ADDRESS}"
        )
    if not is_loopback(address) and token_file is None:
        raise UsageError(f"--gateway {text} lets other machines in: name a --token-file (lines `ROLE TOKEN`, mode 600)")
    return StackGateway(address, number, token_file and token_file.absolute(), tuple(root.absolute() for root in roots))
