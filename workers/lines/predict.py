"""Predicts the batches of lines and makes their answers."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from modeling.errors import ImageError
from modeling.images.pixels import Pixels
from modeling.inference.prediction import Prediction
from orchestrator.contract.lines.answers import Cause, Verdict, encode_facts
from orchestrator.contract.lines.requests import GivenAnswer
from orchestrator.contract.lines.verdicts import cause_of, choose_verdict, late_verdict
from workers.device_gate import DeviceGate
from workers.lines.batches import Batch
from workers.lines.model import TOP_K, TOP_K_OF_MODELS
from workers.lines.requests import Answerer, Done, OpenLine, Request
from workers.lines.scheduler import Scheduler

logger = logging.getLogger(__name__)

BROKEN_DEVICE_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h
_POLL_S = 0.5
_FAILED_PAUSE_S = 0.5

Abandon = Callable[[Sequence[Request]], None]


class LinePredictors:
    """Threads that predict what the scheduler gives them, one for each stream."""

    def __init__(self, scheduler: Scheduler, answer: Answerer, abandon: Abandon, gate: DeviceGate, device: str) -> None:
        """abandon: called with requests that this process cannot predict, although their images may be good."""
        self._gate = gate
        self._scheduler = scheduler
        self._answer = answer
        self._abandon = abandon
        self._device = device
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def want_streams(self, number: int) -> None:
        """See that there are as many threads as the model with most streams can use."""
        while len(self._threads) < number:
            name = f"lines-predict-{len(self._threads)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._predict_next()

    def _predict_next(self) -> None:
        """Wait for a batch, predict and answer it. Afterwards its line and its model are held no longer."""
        coming = self._scheduler.wait_for_batch(_POLL_S)
        if coming is None:
            return
        stream = self._gate.slots_of(coming.model.streams)
        alone = coming.all_cores and coming.model.predictor.alone_streams > 1
        with self._gate.push(self._gate.slots if alone else stream, at_least=stream) as slots:
            batch = self._scheduler.next_batch()
            if batch is None:
                return
            batch.all_cores &= slots == self._gate.slots
            predicted = self._predict(batch)
        if predicted is not None:  # the device is free meanwhile
            self._answer_batch(batch, *predicted)

    def _predict(self, batch: Batch) -> tuple[list[Prediction], float, float] | None:
        """The predictions, and when they were begun and ended; None where the batch failed."""
        begun_s = time.monotonic()
        top_k = TOP_K_OF_MODELS if batch.line.line.settings.of_model else TOP_K
        try:
            pixels = [pixels_of(each) for each in batch.requests]
            predictions = batch.model.predict(pixels, top_k, all_cores=batch.all_cores)
        except Exception as err:
            self._failed(batch, err)
            return None
        finally:
            ended_s = time.monotonic()
            self._scheduler.finished(batch, ended_s - begun_s)
        return predictions, begun_s, ended_s

    def _answer_batch(self, batch: Batch, predictions: list[Prediction], begun_s: float, ended_s: float) -> None:
        batch.line.trouble = None
        batch.line.counts.batch(len(batch.requests))
        for request in batch.requests:
            request.stage_ms["queue"] += (begun_s - request.decoded_s) * 1e3
            request.stage_ms["device"] = (ended_s - begun_s) * 1e3
            for stage, ms in request.stage_ms.items():
                batch.line.counts.wait(stage, ms)
        self._answer([done_of(*each, batch) for each in zip(batch.requests, predictions, strict=True)])

    def _failed(self, batch: Batch, err: Exception) -> None:
        """The device or the model is at fault, not an image: others may have these requests when the leases end."""
        batch.line.trouble = f"{batch.model.name} cannot predict: {type(err).__name__}: {err}"[:300]
        logger.error("line %s: %s", batch.line.name, batch.line.trouble, exc_info=err)
        if self._device != "cpu":
            logger.critical("an error on %s may be sticky; this process ends", self._device)
            os._exit(BROKEN_DEVICE_EXIT_CODE)
        self._abandon(batch.requests)
        self._stopped.wait(_FAILED_PAUSE_S)


def pixels_of(request: Request) -> Pixels:
    """Of a request that was decoded."""
    assert request.pixels is not None
    return request.pixels


def done_of(request: Request, prediction: Prediction, batch: Batch) -> Done:
    """The answer for a prediction."""
    if not prediction.ok:
        return unreadable(request, ImageError(prediction.error_code or "", prediction.error or ""))
    line = request.line.line
    label, score = prediction.labels[0], prediction.scores[0]
    degraded = request.held.degraded and batch.model is not request.line.model
    verdict = choose_verdict(line, label, prediction.decision, degraded=degraded)
    rest = encode_facts(
        label=label,
        score=round(score, 6),
        scores=_rounded(prediction),
        decision=prediction.decision,
        model=batch.model.name,
        engine=batch.model.predictor.engine_for(len(batch.requests)),
        map_version=line.map_version,
        stage_ms=_rounded_ms(request),
    )
    return Done(request, verdict, late_verdict(line, cause_of(request.stage_ms)), rest)


def unreadable(request: Request, error: ImageError) -> Done:
    """The answer for an image that cannot be decoded or predicted."""
    line = request.line.line
    rest = encode_facts(error=str(error), map_version=line.map_version, stage_ms=_rounded_ms(request))
    verdict = Verdict(line.settings.fallback, "unreadable")
    return Done(request, verdict, late_verdict(line, cause_of(request.stage_ms)), rest)


def answer_unreadable(line: OpenLine, unreadable: Sequence[tuple[bytes, str]]) -> None:
    """Answer requests that no worker can read, given as keys with reasons: they would be taken again and again."""
    key, reason = unreadable[0]
    logger.warning("line %s: %d requests cannot be read, such as %r: %s", line.name, len(unreadable), key[:80], reason)
    verdict = Verdict(line.line.settings.fallback, "unreadable")
    late = late_verdict(line.line, "queue")
    facts = [encode_facts(error=f"unreadable: {why}", map_version=line.line.map_version) for _, why in unreadable]
    line.store.answer([GivenAnswer(key, verdict, late, rest) for (key, _), rest in zip(unreadable, facts, strict=True)])


def overdue(request: Request, cause: Cause) -> Done:
    """The answer for a request that is not predicted: it would be late."""
    line = request.line.line
    verdict = late_verdict(line, cause)
    if "queue" not in request.stage_ms:
        request.stage_ms["queue"] = request.waited_ms + (time.monotonic() - request.taken_s) * 1e3
    return Done(request, verdict, verdict, encode_facts(map_version=line.map_version, stage_ms=_rounded_ms(request)))


def _rounded(prediction: Prediction) -> Sequence[tuple[str, float]]:
    return [(label, round(score, 6)) for label, score in zip(prediction.labels, prediction.scores, strict=True)]


def _rounded_ms(request: Request) -> dict[str, float]:
    return {stage: round(ms, 2) for stage, ms in request.stage_ms.items()}
