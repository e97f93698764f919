"""What the parts of a gateway share: settings, clients of the server, the model store, the lines. It keeps no state
that another gateway beside it would lack.
"""

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path

import redis

from modeling.registry.store import ModelStore
from orchestrator.contract.errors import UsageError
from orchestrator.contract.home import check_server, read_home_id
from orchestrator.contract.lines.registry import LineRegistry, LinesOnDisk
from orchestrator.contract.server import connect, connect_raw, require_answer
from orchestrator.contract.settings import Settings
from orchestrator.gateway.figures import GatewayFigures
from orchestrator.gateway.lines import OpenLines
from orchestrator.gateway.submitters import Submitters
from orchestrator.gateway.threads import Questions, QuestionsOfRoots
from orchestrator.gateway.waiters import Waiters
from orchestrator.jobs.submit import JobClient

ASK_TIMEOUT_S = 2.0  # a server that does not answer within it counts as away
IMAGES_TIMEOUT_S = 5.0
NUM_LINE_THREADS = 2


@dataclass(frozen=True)
class GatewayOptions:
    """How a gateway is started.

    roots: folders below which jobs may read and write. certificate, key: files of TLS. allowed_hosts: names beside
    those of this machine by which clients may call it. listing_grace_s: for how long its end waits for jobs whose
    images are being listed.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    listing_grace_s: float = 0.0


class GatewayContext:
    """Safe to share between threads. Calls that ask the server block: routes run them in a thread.

    disk: asks the home's disk for models. images: asks the disks of images that are pushed by their path, by the
    roots of these.
    """

    def __init__(self, settings: Settings, options: GatewayOptions) -> None:
        self.settings = settings
        self.options = options
        self.models = ModelStore(settings.models)
        self.figures = GatewayFigures()
        self.stopping = asyncio.Event()  # set when the gateway stops: open streams end then
        self.disk = Questions("the home's disk")
        self.images = QuestionsOfRoots("the disk of the images", limit_s=IMAGES_TIMEOUT_S)
        self.submitters = Submitters()
        self._lock = threading.Lock()
        self._jobs_lock = threading.Lock()  # of its own: it is held while the disk is asked
        self._jobs: JobClient | None = None
        self._server: tuple[str, redis.Redis] | None = None
        self._registry: LineRegistry | None = None
        self._lines_on_disk = Questions("the home's disk", NUM_LINE_THREADS, limit_s=ASK_TIMEOUT_S)
        self.lines = OpenLines(self.server, self._is_on_disk)
        self.waiters = Waiters()

    def jobs(self) -> JobClient:
        """Raises UnavailableError where no server answers."""
        with self._jobs_lock:
            if self._jobs is None:
                self._jobs = JobClient(self.settings)
            return self._jobs

    def server(self) -> tuple[str, redis.Redis]:
        """The server's URL, and a client for small questions. Raises UnavailableError where it has never answered."""
        with self._lock:
            if self._server is None:
                url = self.settings.require_server_url()
                client = connect(url)
                require_answer(client, url)
                if read_home_id(self.settings) is not None:
                    check_server(self.settings, client)
                client.close()
                self._server = url, connect_raw(url, timeout_s=ASK_TIMEOUT_S, retries=1)
            return self._server

    def registry(self) -> LineRegistry:
        """The lines, to change them or to look their answers up. Raises UnavailableError."""
        if self._registry is None:
            self._registry = LineRegistry(self.settings, self.server()[1], own_timeout_s=ASK_TIMEOUT_S)
        return self._registry

    def _is_on_disk(self, line: str) -> bool:
        """Whether the home has a line. Raises UnavailableError where its disk does not answer."""
        return self._lines_on_disk.wait(line, lambda: LinesOnDisk(self.settings).has(line))

    def close(self) -> None:
        """Let the clients of lines end: see `OpenLines.close`."""
        self.lines.close()


def check_roots(roots: tuple[Path, ...]) -> tuple[Path, ...]:
    """The folders as absolute paths. Raises UsageError for what is not a folder."""
    for root in roots:
        if not root.is_dir():
            raise UsageError(f"--root {str(root)!r} is not a folder")
    return tuple(root.resolve() for root in roots)
