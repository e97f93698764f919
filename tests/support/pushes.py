"""Pushes to a line without a client: what is sent, and the answers that come."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import redis
from PIL import Image

from orchestrator.contract.lines.answers import Answer, decode_record, request_key
from orchestrator.contract.lines.registry import LineRegistry
from orchestrator.contract.lines.requests import Admission, Push
from orchestrator.contract.lines.settings import Line, LineSettings
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from tests.support.images import encode
from tests.support.replies import Replies
from tests.support.server import wait_until
from tests.support.workers import Cluster

DIGITS = {str(digit): (f"bin-{digit}",) for digit in range(10)}
PATIENCE_MS = 60_000
_CLIENTS = itertools.count()


def digit_png(number: int) -> bytes:
    """A small image; every number has another."""
    return encode(Image.fromarray(np.random.default_rng(number).integers(0, 256, (28, 28), np.uint8)))


@dataclass
class Pusher:
    """A line and one client of it."""

    store: LineStore
    client_id: str = field(default_factory=lambda: f"test-{next(_CLIENTS)}")
    answers: dict[str, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._replies = Replies(self.store, self.client_id)

    def push(self, item: str, image: bytes, *, deadline_ms: int = PATIENCE_MS, pass_: int = 1) -> Admission:
        """Push one image."""
        digest = hashlib.sha256(image).hexdigest()
        push = Push(request_key(item, pass_), digest, deadline_ms, len(image), "image", image)
        return self.store.admit([push], self.client_id)[0]

    def wait_for(self, *items: str) -> list[Answer]:
        """The answers to these items, in their order."""

        def came() -> bool:
            for _, record in self._replies.read():
                answer = decode_record(record)
                self.answers[answer.item] = answer
            return all(item in self.answers for item in items)

        wait_until(came, what=f"answers to {len(items)} items of line {self.store.name}")
        return [self.answers[item] for item in items]

    def forget_capacity(self) -> None:
        """Admission takes what comes next as if no worker had said how long it needs: until one says so again."""
        self.store.client.delete(self.store.key("capacity"))

    def ask(self, item: str, image: bytes, **options: int) -> Answer:
        """Push one image and wait for its answer."""
        assert self.push(item, image, **options).verdict == "admitted"
        return self.wait_for(item)[0]


def registry_of(cluster: Cluster) -> LineRegistry:
    return LineRegistry(cluster.settings, connect_raw(cluster.server.url))


def make_line(cluster: Cluster, name: str, **changes: object) -> Line:
    """Create a line of the model `digits`."""
    settings = {"model": "digits", "fallback": "F", "review": "R", "deadline_ms": PATIENCE_MS, "bins": DIGITS}
    return registry_of(cluster).create(LineSettings.from_json({"name": name} | settings | changes))


def workers_of(store: LineStore) -> dict[str, str]:
    """The state of a line in each worker that reports it now: a dead one's report stays for an hour."""
    import json

    facts: dict[bytes, bytes] = store.client.hgetall(store.key("workers"))  # type: ignore[assignment]
    capacity: dict[bytes, bytes] = store.client.hgetall(store.key("capacity"))  # type: ignore[assignment]
    seconds, _ = store.client.time()
    alive = [worker for worker, text in capacity.items() if int(text.split()[0]) > seconds * 1000]
    return {worker.decode(): json.loads(facts[worker])["state"] for worker in alive if worker in facts}


def open_line(cluster: Cluster, name: str, *, workers: int = 1, **changes: object) -> Pusher:
    """Create a line, and wait until workers serve it."""
    store = registry_of(cluster).store(make_line(cluster, name, **changes))
    wait_until_open(store, workers)
    return Pusher(store)


def wait_until_open(store: LineStore, workers: int = 1) -> None:
    wait_until(
        lambda: list(workers_of(store).values()).count("open") == workers,
        what=f"{workers} workers serve line {store.name}",
        timeout_s=300,
    )


def clients_of(client: redis.Redis, names: Sequence[str]) -> list[LineStore]:
    return [LineStore(client, name) for name in names]
