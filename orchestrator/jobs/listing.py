"""Listing a source into its job's folder, while workers already begin with what is listed."""

import logging
import threading
import time
from collections.abc import Callable

from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import ListingFacts, ListingWriter
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.ledger.ledger import FINAL_STATES, LISTER_LEASE_S, Ledger
from orchestrator.contract.queues import CLASSIFY, FINALIZE
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.jobs.sources import Source

logger = logging.getLogger(__name__)

EXTEND_EVERY_S = 0.3  # how often the ledger hears of new shards
SIGN_OF_LIFE_S = LISTER_LEASE_S / 5


class Lister:
    """Writes the listing of one job, and lets the ledger know how far it is.

    A server that is away meanwhile is no reason to stop: the listing grows on the disk, and the ledger hears of
    it later, if need be from a worker's sweep.
    """

    def __init__(
        self, folder: JobFolder, request: ClassifyRequest, ledger: Ledger, ring: Callable[[str, str], None]
    ) -> None:
        self._folder = folder
        self._request = request
        self._ledger = ledger
        self._ring = ring
        self._durable = (0, 0)  # shards and images that the ledger may know of
        self._ended = threading.Event()

    def run(self, source: Source, on_listing: Callable[[str, int], None]) -> ListingFacts | None:
        """List every path of `source`; `on_listing` hears the job and the number of images now and then.

        Returns None if the job was ended meanwhile: cancelled, or too many of its images failed.
        """
        pulse = threading.Thread(target=self._keep_alive, name="lister", daemon=True)
        pulse.start()
        try:
            return self._write(source, on_listing)
        finally:
            self._ended.set()
            pulse.join()

    def _write(self, source: Source, on_listing: Callable[[str, int], None]) -> ListingFacts | None:
        last = 0.0
        with ListingWriter(self._folder.path, self._request.shard_size) as writer:
            for path in source.paths:
                if writer.add(path) and time.monotonic() - last > EXTEND_EVERY_S:
                    writer.publish()
                    self._durable = (writer.num_shards, writer.num_images)
                    if not self._extend(listed=False):
                        return None
                    on_listing(self._request.job, writer.num_images)
                    last = time.monotonic()
            facts = writer.close(source.skipped)
        self._durable = (facts.num_shards, facts.num_images)
        self._extend(listed=True)
        on_listing(self._request.job, facts.num_images)
        return facts

    def _extend(self, *, listed: bool) -> bool:
        """Let the ledger know how far the listing is; ring where workers may be waiting. False if the job ended."""
        job, (num_shards, num_images) = self._request.job, self._durable
        limit = self._request.failure_limit(num_images) if listed else self._request.failure_limit(None)
        try:
            state = self._ledger.extend(job, num_shards, num_images, listed=listed, failure_limit=limit)
            if state == "finalizing":
                self._ring(FINALIZE, job)
            elif self._ledger.queue_length(CLASSIFY) == 0:
                for _ in range(max(1, min(self._ledger.live_workers.num_listeners(CLASSIFY), num_shards))):
                    self._ring(CLASSIFY, job)
        except SERVER_ERRORS as err:
            logger.warning("the server is away, going on listing: %s", err)
            return True
        return state not in FINAL_STATES and state != "cancelling"

    def _keep_alive(self) -> None:
        """Say that this process lives, however long the source takes for its next path."""
        while not self._ended.wait(SIGN_OF_LIFE_S):
            try:
                self._ledger.extend(self._request.job, *self._durable, listed=False)
            except SERVER_ERRORS as err:
                logger.info("the server is away: %s", err)

    def fail(self, err: BaseException) -> None:
        """The listing will never be whole: the job, if the ledger has it, must end."""
        cause = "it was interrupted" if isinstance(err, KeyboardInterrupt) else str(err) or type(err).__name__
        reason = f"listing {self._request.source} ended early: {cause}"
        try:
            if self._ledger.cancel(self._request.job, reason=reason) == "cancelling":
                self._ring(FINALIZE, self._request.job)
        except SERVER_ERRORS as away:
            logger.warning("cannot tell the server, a worker will notice: %s", away)
