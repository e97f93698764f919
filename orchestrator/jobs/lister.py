"""Writes the listing of a classify job while workers already classify the images that are listed."""

import logging
import time
from collections.abc import Callable
from functools import partial

from orchestrator.contract.jobs.history import note
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import ListingFacts, ListingWriter, SourceFacts
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.ledger.ledger import LISTER_LEASE_S, Ledger
from orchestrator.contract.ledger.periodic_call import PeriodicCall
from orchestrator.contract.ledger.record import FINAL_STATES
from orchestrator.contract.queues import CLASSIFY, FINALIZE
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.jobs.sources import Source

logger = logging.getLogger(__name__)

EXTEND_EVERY_S = 0.3  # how often new shards are entered into the ledger
RENEW_S = LISTER_LEASE_S / 5
SILENT_S = 30.0  # without a further shard, after which the job's record says so

OnListing = Callable[[str, int], None]
"""Receives the job and the number of images listed so far, at intervals."""


class Lister:
    """Writes the listing of one job, and enters into the ledger how far it is.

    If the server is away, listing continues on the disk; later calls, or a worker's sweep, enter it into the ledger.
    """

    def __init__(
        self, folder: JobFolder, request: ClassifyRequest, ledger: Ledger, ring: Callable[[str, str], None]
    ) -> None:
        self._folder = folder
        self._request = request
        self._ledger = ledger
        self._ring = ring
        self._source_facts: SourceFacts | None = None  # as they are in the job folder
        self._durable = (0, 0)  # shards and images that may be entered: they are synced to the disk
        self._writer: ListingWriter | None = None
        self._silence = (0, time.monotonic())  # the number of images listed, and since when

    def run(self, source: Source, on_listing: OnListing) -> ListingFacts | None:
        """List every path of `source`; `on_listing` is called with the job and the number of images at intervals.

        Returns None if the job has ended meanwhile: cancelled, or with too many failed images.
        """
        self._note_source(source)
        with PeriodicCall(partial(self._renew_lease, source), RENEW_S, "lister"):
            return self._write(source, on_listing)

    def _write(self, source: Source, on_listing: OnListing) -> ListingFacts | None:
        last = 0.0
        with ListingWriter(self._folder.work, self._request.shard_size) as writer:
            self._writer = writer
            for path in source.paths:
                if writer.add(path) and time.monotonic() - last > EXTEND_EVERY_S:
                    writer.publish()
                    self._durable = (writer.num_shards, writer.num_images)
                    if not self._extend(listed=False):
                        return None
                    on_listing(self._request.job, writer.num_images)
                    last = time.monotonic()
            facts = writer.close(source.skipped)
        note(self._folder, "listed", num_images=facts.num_images, num_shards=facts.num_shards)
        self._note_source(source)  # again: reading a folder may mount what is below it
        self._durable = (facts.num_shards, facts.num_images)
        self._extend(listed=True)
        on_listing(self._request.job, facts.num_images)
        return facts

    def _note_source(self, source: Source) -> None:
        """Keep how the source looks now, for workers that will look at it again."""
        facts = SourceFacts.of(self._request.root, walked=source.is_walked)
        if facts != self._source_facts:
            facts.write(self._folder.work)
        self._source_facts = facts

    def _extend(self, *, listed: bool) -> bool:
        """Enter how far the listing is; ring where workers may be waiting. False if the job has ended."""
        job, (num_shards, num_images) = self._request.job, self._durable
        limit = self._folder.failure_limit(self._request, num_images if listed else None)
        try:
            state = self._ledger.extend(
                job, num_shards, num_images, listed=listed, run=self._folder.run, failure_limit=limit
            )
            if state == "finalizing":
                self._ring(FINALIZE, job)
            elif state != "paused" and self._ledger.queue_length(CLASSIFY) == 0:
                for _ in range(max(1, min(self._ledger.live_workers.num_listeners(CLASSIFY), num_shards))):
                    self._ring(CLASSIFY, job)
        except SERVER_ERRORS as err:
            logger.warning("the server is away, listing continues: %s", err)
            return True
        return state not in FINAL_STATES and state != "cancelling"

    def _renew_lease(self, source: Source) -> None:
        """Renew the lister's lease, also while the source takes long for its next path; then say so."""
        self._ledger.extend(self._request.job, *self._durable, listed=False, run=self._folder.run)
        num_images, since_s = self._writer.num_images if self._writer is not None else 0, self._silence[1]
        if num_images != self._silence[0]:
            self._silence = (num_images, time.monotonic())
        elif time.monotonic() - since_s > SILENT_S and not source.is_stream:
            silent = (
                f"{source.root} has named few images or none for {time.monotonic() - since_s:.0f} s; does it answer?"
            )
            self._ledger.report_trouble(self._request.job, silent)

    def fail(self, err: BaseException) -> None:
        """End the job, if the ledger has it: its listing will never be complete."""
        cause = "it was interrupted" if isinstance(err, KeyboardInterrupt) else str(err) or type(err).__name__
        reason = f"listing {self._request.source} ended early: {cause}"
        try:
            if self._ledger.cancel(self._request.job, run=self._folder.run, reason=reason) == "cancelling":
                self._ring(FINALIZE, self._request.job)
        except SERVER_ERRORS as away:
            logger.warning("cannot cancel the job on the server, a worker will do it: %s", away)
