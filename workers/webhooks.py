"""Sends the webhooks of jobs that have ended, in threads of a worker's parent.

The ledger says which are due, and lets one worker take each. A worker that dies while it sends costs one lease; then
another tries again. Where the receiver has answered with success before that, it gets the same webhook once more, with
the same id: what was not recorded cannot be known.
"""

import json
import logging
import threading
import time
from datetime import UTC, datetime
from typing import Any

from modeling.errors import reason_of
from orchestrator.contract.errors import MessageError, NotFoundError, PigeonholeError
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, Receipt
from orchestrator.contract.jobs.requests import AnyJobRequest, TrainJobRequest
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.periodic_call import PeriodicCall
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import Settings
from orchestrator.contract.webhooks.post import POST_S, NoAnswerError, post
from orchestrator.contract.webhooks.secret import read_secrets, sign
from orchestrator.contract.webhooks.target import RESOLVE_S, DeliveryError, WebhookTarget, parse_target

logger = logging.getLogger(__name__)

EVERY_S = 1.0
LEASE_S = RESOLVE_S + POST_S + 5.0
AT_ONCE = 4  # receivers that do not answer hold up as many threads
PAUSES_S = (2, 10, 30, 60, 120, 300, 600, 1800)  # after the attempts that failed; then an hour each
LONGEST_PAUSE_S = 3600
SILENT_S = 15.0  # a receiver that did not answer is not asked again for so long, so that it holds up no other's
GIVE_UP_S = 3 * 86_400  # after the job's end
RECORD_AGAIN_S = 5.0  # shorter than a lease
_MOST_ERROR = 2000  # characters of a job's error


class WebhookSender:
    """Sends what is due, once a second; several at a time, so that one receiver that hangs holds up few others."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._busy = 0
        self._lock = threading.Lock()
        self._silent_until_s: dict[str, float] = {}  # by receiver
        self._stopping = threading.Event()
        self._thread = PeriodicCall(self.run, EVERY_S, "webhooks")

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, wait_s: float) -> None:
        """Send nothing more; what is being sent is taken by another worker when its lease is over, if it must be."""
        self._stopping.set()
        self._thread.stop(wait_s=wait_s)

    def run(self) -> None:
        """Take what is due, as far as threads are free."""
        free = AT_ONCE - self._busy
        if free <= 0:
            return
        for job, attempt in self._ledger.deliveries.take(free, LEASE_S):
            with self._lock:
                self._busy += 1
            try:
                threading.Thread(target=self._send, args=(job, attempt), name="webhook", daemon=True).start()
            except RuntimeError as err:  # the system starts no thread now
                with self._lock:
                    self._busy -= 1
                logger.warning("webhook of job %s: %s; trying again when its lease is over", job, err)

    def _send(self, job: str, attempt: int) -> None:
        try:
            self.send(job, attempt)
        except SERVER_ERRORS as err:
            logger.warning("webhook of job %s: the server is away, trying again: %s", job, err)
        except Exception:
            logger.exception("webhook of job %s failed, trying again when its lease is over", job)
        finally:
            with self._lock:
                self._busy -= 1

    def send(self, job: str, attempt: int) -> None:
        """Try once to deliver the webhook of a job that has ended."""
        folder = JobFolder(self._settings, job)
        try:
            request = JobFolder.open(self._settings, job).request()
            outcome, receipt = folder.outcome(), folder.receipt()
        except NotFoundError:
            self._end(folder, None)  # the job was removed
            return
        except MessageError as err:
            self._ledger.deliveries.retry(job, LONGEST_PAUSE_S, str(err))
            return
        if outcome is None or request.notify is None or receipt is not None:
            self._end(folder, None)
            return
        try:
            self._post(parse_target(request.notify), request, outcome)
        except (PigeonholeError, OSError) as err:
            self._failed(folder, outcome, attempt, str(err) if isinstance(err, PigeonholeError) else reason_of(err))
        else:
            logger.info("job %s: webhook delivered", job)
            self._record_delivered(folder, Receipt(state="delivered", at=datetime.now(UTC), attempts=attempt))

    def _record_delivered(self, folder: JobFolder, receipt: Receipt) -> None:
        """Record it, until the disk takes it: meanwhile no worker sends the webhook again."""
        while True:
            try:
                return self._end(folder, receipt)
            except OSError as err:
                if not folder.path.exists():  # removed by hand
                    return self._ledger.deliveries.end(folder.job)
                logger.warning("job %s: the webhook is delivered, which cannot be recorded yet: %s", folder.job, err)
                self._ledger.deliveries.retry(folder.job, LEASE_S, f"delivered; cannot be recorded yet: {err}")
            if self._stopping.wait(RECORD_AGAIN_S):
                return None

    def _post(self, target: WebhookTarget, request: AnyJobRequest, outcome: Outcome) -> None:
        if time.monotonic() < self._silent_until_s.get(target.authority, 0.0):
            raise DeliveryError(f"webhook {target.shown}: it did not answer a moment ago")
        secrets = read_secrets(self._settings)
        delivery, seconds = delivery_id(request, outcome), int(time.time())
        body = json.dumps(payload(request, outcome)).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Pigeonhole",
            "webhook-id": delivery,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join(sign(secret, delivery, seconds, body) for secret in secrets),
        }
        try:
            post(target, body, headers, self._settings.notify_networks)
        except NoAnswerError:
            self._note_silent(target.authority)
            raise

    def _note_silent(self, receiver: str) -> None:
        now = time.monotonic()
        with self._lock:
            still_silent = {each: until_s for each, until_s in self._silent_until_s.items() if until_s > now}
            self._silent_until_s = still_silent | {receiver: now + SILENT_S}

    def _failed(self, folder: JobFolder, outcome: Outcome, attempt: int, error: str) -> None:
        self._ledger.counts.add("webhooks:failed")
        since_end_s = (datetime.now(UTC) - outcome.ended).total_seconds()
        if since_end_s > GIVE_UP_S:
            logger.error("job %s: webhook given up after %d attempts: %s", folder.job, attempt, error)
            receipt = Receipt(state="given_up", at=datetime.now(UTC), attempts=attempt, error=error)
            self._end(folder, receipt)
            return
        pause_s = PAUSES_S[attempt - 1] if attempt <= len(PAUSES_S) else LONGEST_PAUSE_S
        logger.warning("job %s: webhook not delivered, again in %d s: %s", folder.job, pause_s, error)
        self._ledger.deliveries.retry(folder.job, pause_s, error)

    def _end(self, folder: JobFolder, receipt: Receipt | None) -> None:
        """On the disk first: a server that forgets is filled from there."""
        folder.end_delivery(receipt)
        if not folder.is_undelivered():
            self._ledger.deliveries.end(folder.job)
        if receipt is not None:
            self._ledger.counts.add(f"webhooks:{receipt.state}")


def delivery_id(request: AnyJobRequest, outcome: Outcome) -> str:
    """The same for every attempt to tell one outcome."""
    return f"{request.job}-{outcome.state}-{int(outcome.ended.timestamp())}"


def payload(request: AnyJobRequest, outcome: Outcome) -> dict[str, Any]:
    """What a receiver gets."""
    return {
        "type": f"job.{outcome.state}",
        "timestamp": outcome.ended.isoformat(),
        "data": {
            "job": request.job,
            "kind": request.kind,
            "state": outcome.state,
            "source": request.source,
            "model": request.name if isinstance(request, TrainJobRequest) else request.model.ref,
            "num_images": outcome.num_images,
            "num_done": outcome.num_done,
            "num_failed": outcome.num_failed,
            "created": request.created.isoformat(),
            "ended": outcome.ended.isoformat(),
            "result": outcome.result,
            "error": outcome.error and outcome.error[:_MOST_ERROR],
        },
    }
