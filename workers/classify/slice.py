"""One slice of a classify job: claim shards, predict them, write their parts, commit.

The order of steps makes every crash harmless; `docs/job_lifecycle.md` explains it:
claim, predict, write the part under a temporary name, fsync, link it into place, commit, ring.
"""

import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from modeling.errors import ModelingError, trouble_of
from modeling.inference.decoders import Decoders, Source
from modeling.inference.engines.hardware import made_with
from modeling.inference.pipeline import BatchResult, predict_units
from modeling.inference.prediction import Prediction
from orchestrator.contract.errors import IntegrityError, MessageError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import read_shard
from orchestrator.contract.jobs.parts import PartTrailer, part_path, read_trailer, write_part
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.ledger.counts import shard_counts
from orchestrator.contract.ledger.ledger import Claim
from orchestrator.contract.ledger.turns import Turn
from orchestrator.contract.queues import FINALIZE
from orchestrator.contract.server import SERVER_ERRORS
from workers.classify.careful import Careful, predict_carefully
from workers.classify.decode_clock import DecodeClock, ShardImage
from workers.classify.gated import GatedPredictor
from workers.classify.journal import CAREFUL_FROM_ATTEMPT, Journal
from workers.classify.open_shard import Commits, OpenShard
from workers.classify.read import read_noted
from workers.classify.setbacks import count_attempt, pause_or_leave
from workers.classify.source import JobSource, SourceWatch
from workers.context import WorkerContext
from workers.leases import Leases
from workers.other_versions import is_of_another_version
from workers.source_folder import StorageAwayError
from workers.trouble import is_waited_for

if TYPE_CHECKING:
    from modeling.inference.classifier import Classifier

logger = logging.getLogger(__name__)

DISK_RETRY_S = 2.0
WRITES_BEFORE_HAND_BACK = 3  # attempts to write a part by a worker that lacks files or memory
DRAIN_GRACE_S = 6.0  # a stopping worker finishes a shard within this time, or hands it back, and ends within 10 s


class HandBack(Exception):  # noqa: N818 control flow, not an error
    """The slice ends in the middle of a shard: the job was cancelled, or the worker must stop."""


def classify_slice(job: str, context: WorkerContext, turn: Turn | None = None) -> int:
    """Work on `job` until the slice of time is over, nothing is left to claim, or it ends.

    turn: how long the slice is; by default as the setting has it. Returns the number of shards that it claimed; 0 also
    where this worker does not see the source.
    """
    folder = context.folder(job)
    request, run = folder.request(), folder.run
    if folder.outcome() is not None or not isinstance(request, ClassifyRequest):
        logger.info("job %s needs no classifying; its doorbell is dropped", job)
        return 0
    ledger, away = context.recovering_ledger, False
    with Leases(context, job) as leases:
        try:
            ClassifySlice(context, folder, request, leases, turn or Turn(job)).run()
        except HandBack:
            logger.info("job %s: handing back unfinished shards", job)
        except StorageAwayError as err:
            leases.state = pause_or_leave(job, context, err)
            away = True
        except (ModelingError, IntegrityError, MessageError, UnicodeError) as err:
            if trouble_of(err) or is_of_another_version(err):
                raise
            logger.exception("job %s cannot continue", job)
            leases.state = ledger.cancel(job, run=run, reason=str(err))
        except Exception as err:
            if is_waited_for(err):
                raise  # this worker hands its shards back, and waits
            if isinstance(err, SERVER_ERRORS):
                leases.abandon()  # the server was away for too long; that is no error of the job
            else:
                count_attempt(folder, context, leases, err)
            raise
    if leases.state == "paused":
        logger.info("job %s is paused", job)
    elif not leases.job_goes_on:
        context.ring(FINALIZE, job)
    return 0 if away else leases.num_claimed


class ClassifySlice:
    """The state of one slice."""

    def __init__(
        self, context: WorkerContext, folder: JobFolder, request: ClassifyRequest, leases: Leases, turn: Turn
    ) -> None:
        self._context = context
        self._turn = turn
        self._ledger = context.recovering_ledger
        self._folder = folder
        self._request = request
        self._leases = leases
        self._clock = DecodeClock(context, request.job, folder.journals, leases)
        self._source = JobSource(context, folder, request)
        self._watch = SourceWatch(self._source, leases, context.settings.stall_s)
        leases.on_tick = self._look
        self._classifier = self._load()
        self._predictor = GatedPredictor(
            self._classifier, context.gate, lambda: context.models.get_for_pushes(request.model, request.precision)
        )
        self._reader = self._source.reader
        self._deadline: float | None = None  # set at the first claim: a process's first decoder takes seconds to start
        self._draining_since: float | None = None
        self._failed_writes = 0  # in a row
        self._open: deque[OpenShard] = deque()
        self._risky: OpenShard | None = None

    def _load(self) -> "Classifier":
        """The job's model; those who follow the job read what takes seconds."""
        reported = False

        def report(words: str) -> None:
            nonlocal reported
            reported = True
            self._note(words)

        try:
            return self._context.models.get(self._request.model, self._request.precision, report=report)
        finally:
            if reported:
                self._note("")

    def _note(self, words: str) -> None:
        """Show what this worker does for the job before it has results; nothing depends on it."""
        with contextlib.suppress(*SERVER_ERRORS):
            note = json.dumps({"event": "note", "text": words}) if words else ""
            self._context.ledger.report_progress(self._request.job, note)

    def run(self) -> None:
        """Claim, predict and commit, one shard after another, reading ahead into the next.

        Raises HandBack where the job or the worker must stop before a shard is finished.
        """
        while True:
            self._predict_and_commit(self._units())
            if self._risky is None:
                return
            self._predict_carefully(self._risky)
            self._risky = None

    def _predict_and_commit(self, units: Iterable[Sequence[Source]]) -> None:
        """Predict shards, and commit each while the next is predicted."""
        with Commits(self._commit, self._between_batches) as commits:
            for result in self._predict(units):
                shard = self._open[0]
                shard.add(result)
                if shard.complete:
                    commits.add(self._open.popleft())
                commits.check()
            commits.wait()

    def _units(self) -> Iterator[Sequence[Source]]:
        """The sources of each shard; a shard is claimed when the pipeline asks for it."""
        while self._risky is None and (shard := self._claim_next()) is not None:
            if shard.claim.attempt >= CAREFUL_FROM_ATTEMPT or Journal(self._folder.journals, shard.claim).exists:
                self._risky = shard
                return
            self._open.append(shard)
            yield self._sources(shard)

    def _sources(self, shard: OpenShard) -> list[ShardImage]:
        reader, as_read = self._reader, shard.as_read
        return [
            ShardImage(read_noted, reader, path, as_read, index).of(shard.claim, index)
            for index, path in enumerate(shard.paths)
        ]

    def _claim_next(self) -> OpenShard | None:
        """The next shard to work on; None when the slice is over."""
        while not self._is_over():
            claim = self._ledger.claim(self._request.job, self._context.worker, self._context.settings.lease_s)
            if claim == "paused" and self._end_pause():
                continue
            if isinstance(claim, str):
                if claim not in ("none", "barred"):
                    self._leases.state = claim
                return None
            self._leases.add(claim)
            if not self._commit_if_written(claim):
                decides = self._classifier.calibration is not None
                paths = read_shard(self._folder.work, claim.shard)
                return OpenShard(claim, paths, decides)
        return None

    def _look(self) -> None:
        """Called whenever the leases are renewed."""
        self._clock.look()
        self._watch.look()

    def _end_pause(self) -> bool:
        """Let the job go on if it was paused because its source was away, and this worker sees it."""
        self._source.look()
        return self._ledger.unpause(self._request.job, by="storage", worker=self._context.worker) != "paused"

    def _is_over(self) -> bool:
        """Whether no further shard should be claimed."""
        if self._deadline is None:
            self._deadline = time.monotonic() + (self._turn.seconds or self._context.settings.slice_s)
        over = time.monotonic() > self._deadline or self._leases.num_claimed == self._turn.max_shards
        return over or self._context.draining() or not self._leases.job_goes_on

    def _between_batches(self) -> None:
        """Called between batches: note the progress, and stop if required."""
        self._leases.progressed()
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        """Raise HandBack if the job was cancelled, or if the worker must stop and its grace period is over."""
        if not self._leases.job_goes_on:
            raise HandBack
        if self._context.draining() and self._context.hurried():
            self._draining_since = self._draining_since or time.monotonic()
            if time.monotonic() - self._draining_since > DRAIN_GRACE_S:
                raise HandBack

    def _predict(self, units: Iterable[Sequence[Source]]) -> Iterator[BatchResult]:
        return predict_units(
            units,
            self._predictor,
            top_k=self._request.top_k,
            decode_threads=self._context.settings.decode_threads,
            max_pixels=self._context.settings.max_pixels,
            between_batches=self._between_batches,
            watch=self._clock.watch,
        )

    # The end of a shard

    def _commit_if_written(self, claim: Claim) -> bool:
        """Commit the shard if its whole part is on the disk, also one of another worker; returns whether it was."""
        try:
            trailer = read_trailer(self._folder.parts, claim.shard)
        except IntegrityError as err:
            logger.warning("job %s: doing shard %d again: %s", self._request.job, claim.shard, err)
            part_path(self._folder.parts, claim.shard).unlink(missing_ok=True)
            return False
        if trailer is not None:
            self._commit_written(claim, trailer)
        return trailer is not None

    def _commit(self, shard: OpenShard, *, given_up: bool = False) -> None:
        """Write the part unless it exists, then commit what is on the disk; repeat until a whole part is there."""
        if not self._source.confirms(shard.rows):
            raise HandBack
        while not (self._write(shard, given_up=given_up) and self._commit_if_written(shard.claim)):
            self._raise_if_stopped()

    def _write(self, shard: OpenShard, *, given_up: bool) -> bool:
        """Write the part. On a disk error, which may pass, report it in the job's record, pause, and return False."""
        try:
            write_part(
                self._folder.parts,
                shard.claim.shard,
                shard.rows,
                shard.as_read,
                row_format=self._request.output_format,
                seconds=shard.seconds,
                worker=self._context.worker,
                engine=self._classifier.engine_name,
                made_with=made_with(self._context.device),
                given_up=given_up,
                num_stopped=shard.num_stopped,
            )
        except OSError as err:
            logger.warning("cannot write part %d of %s, trying again: %s", shard.claim.shard, self._request.job, err)
            trouble = f"cannot write to {self._folder.parts}: {err.strerror}"
            self._ledger.report_trouble(self._request.job, trouble, worker=self._context.worker)
            self._failed_writes += 1
            if trouble_of(err) == "worker" and self._failed_writes >= WRITES_BEFORE_HAND_BACK:
                raise  # another worker may be able to
            time.sleep(DISK_RETRY_S)
            return False
        self._failed_writes = 0
        return True

    def _commit_written(self, claim: Claim, trailer: PartTrailer) -> None:
        verdict, state = self._ledger.commit(
            claim,
            num_rows=trailer.num_rows,
            num_failed=trailer.num_failed,
            given_up=trailer.given_up,
            seconds=trailer.seconds,
            counts=shard_counts(trailer.num_rows, trailer.errors, trailer.decisions, trailer.seconds),
        )
        self._leases.drop(claim)
        if verdict == "committed":
            self._ledger.count_images(self._context.worker, trailer.num_rows)
            if state in ("finalizing", "cancelling"):
                self._context.ring(FINALIZE, self._request.job)

    # Shards that have killed workers

    def _predict_carefully(self, shard: OpenShard) -> None:
        """Predict a shard whose workers died, or decoded one of its images for too long; give it up in the end."""
        logger.warning("shard %d of %s has ended workers; predicting it carefully", shard.claim.shard, self._folder.job)
        journal = Journal(self._folder.journals, shard.claim)
        evidence = journal.evidence()
        num_deaths = evidence.num_deaths(shard.claim.attempt)
        if num_deaths - evidence.num_explained >= self._context.settings.max_attempts:
            lost = f"{num_deaths} workers died on its shard; it was given up"
            shard.give_up(Prediction(error_code="given_up", error=lost))
            return self._commit_alone(shard, given_up=True)
        classifier = self._predictor
        decoders = Decoders(
            classifier.preprocessing, self._context.settings.max_pixels, 1, classifier.batch_decoder, self._clock.watch
        )
        careful = Careful(classifier, self._request.top_k, decoders, self._clock, self._between_batches)
        predict_carefully(shard, self._sources(shard), journal, careful)
        return self._commit_alone(shard)

    def _commit_alone(self, shard: OpenShard, *, given_up: bool = False) -> None:
        with Commits(partial(self._commit, given_up=given_up), self._between_batches) as commits:
            commits.add(shard)
            commits.wait()
