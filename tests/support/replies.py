"""The answers to a client's pushes, as the server publishes them."""

from orchestrator.contract.lines.channel import open_channel
from orchestrator.contract.lines.commands import read_published
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw


class Replies:
    """Hears what is published from now on."""

    def __init__(self, store: LineStore, client_id: str) -> None:
        self._heard: list[tuple[str, bytes]] = []
        kwargs = store.client.connection_pool.connection_kwargs
        self._client = connect_raw(_url(kwargs), protocol=3)
        subscribe = store.commands.subscribe(client_id)
        self._channel, _ = open_channel(
            self._client, [subscribe], lambda told: self._heard.append(read_published(told))
        )

    def read(self) -> list[tuple[str, bytes]]:
        """Keys and records that have come since the last call, after a round trip to the server."""
        asked: list[object] = []
        self._channel.send([("PING",)], asked.extend)
        while not asked:
            self._channel.receive()
        heard, self._heard = self._heard, []
        return heard

    def close(self) -> None:
        self._channel.close()
        self._client.close()


def _url(kwargs: dict[str, object]) -> str:
    return f"unix://{kwargs['path']}" if "path" in kwargs else f"redis://{kwargs['host']}:{kwargs['port']}"
