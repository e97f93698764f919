"""The TCP port: who may connect, and how many at once."""

import asyncio
import contextlib
import ipaddress
import logging
from collections import Counter
from collections.abc import Sequence

from orchestrator.contract.addresses import is_loopback
from orchestrator.contract.errors import UsageError
from orchestrator.telegrams.connection import LONGEST_TELEGRAM, Connection, Terms

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 64
MOST_PER_ADDRESS = 16
STOP_S = 2.0  # that a stop waits for answers
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks such as 10.0.0.7 or 10.0.0.0/24. Raises UsageError."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as err:
        raise UsageError(f"--allow takes an address or a network, such as 10.0.0.7 or 10.0.0.0/24: {err}") from err


def check_host(host: str, allowed: Sequence[Network]) -> None:
    """Raises UsageError for a host that others can reach, where nobody is allowed by name."""
    if not is_loopback(host) and not allowed:
        raise UsageError(f"--host {host} can be reached from other machines: say from which, with --allow ADDRESS")


class Service:
    """Listens until it is stopped."""

    def __init__(self, terms: Terms, allowed: Sequence[Network]) -> None:
        self._terms = terms
        self._allowed = allowed
        self._tasks: set[asyncio.Task[None]] = set()
        self._per_address: Counter[str] = Counter()

    async def run(self, host: str, port: int, stopping: asyncio.Event) -> None:
        """Serve connections; ends soon after `stopping` is set. Raises OSError where the port cannot be had."""
        server = await asyncio.start_server(self._accept, host, port, limit=LONGEST_TELEGRAM)
        async with server:
            await stopping.wait()
            server.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    while self._terms.items.num_unanswered:
                        await asyncio.sleep(0.02)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ("",))[0])
        if not self._may_connect(address):
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._per_address[address] += 1
        try:
            await Connection(self._terms, reader, writer, address).serve()
        finally:
            self._tasks.discard(task)
            self._per_address[address] -= 1
            if not self._per_address[address]:
                del self._per_address[address]

    def _may_connect(self, address: str) -> bool:
        if len(self._tasks) >= MOST_CONNECTIONS or self._per_address[address] >= MOST_PER_ADDRESS:
            logger.warning("a connection from %s is refused: there are too many", address)
            return False
        if not address:  # the peer has gone already
            return False
        ip = ipaddress.ip_address(address.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if ip.is_loopback or any(ip in network for network in self._allowed):
            return True
        logger.warning("a connection from %s is refused: it is not allowed", address)
        return False
