"""Which request is decoded next, and which batch is predicted next.

Work-conserving: a free stream predicts the requests that are ready, and never waits for a batch to fill. Earliest
deadline first over all lines, except where one line has used the device for much longer than another that is waiting:
then the other is next. A request that cannot meet its deadline is answered at once and not predicted.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from orchestrator.contract.lines.answers import Cause
from workers.lines.batches import Batch, Coming, answer_ms, in_time, model_now
from workers.lines.model import LineModel
from workers.lines.rates import Rates
from workers.lines.requests import OpenLine, Request

UNFAIR_S = 0.2  # of the device's time that a line may be ahead of another one that waits
_SHORT = 0.4  # of the shortest deadline: what an urgent request may have to wait for; shorter batches cost throughput
_FOLLOW = 0.02  # of the way to a longer deadline, with each request
_AHEAD = 2  # batches a stream that are held: one that is predicted and one that is ready


@dataclass(slots=True)
class _Queue:
    """What this worker holds of one line. num_held: of which no prediction has ended yet."""

    undecoded: list[tuple[float, int, Request]] = field(default_factory=list)
    decoded: list[tuple[float, int, Request]] = field(default_factory=list)
    num_held: int = 0


Overdue = Callable[[list[tuple[Request, Cause]]], None]


class Scheduler:
    """The requests that this worker holds; safe to share between threads."""

    def __init__(self, decode_threads: int, on_late: Overdue, clock: Callable[[], float] = time.monotonic) -> None:
        """on_late: called, outside of the lock, with requests that cannot be answered in time any more."""
        self._decode_threads = decode_threads
        self._on_late = on_late
        self._clock = clock
        self._queues: dict[OpenLine, _Queue] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._to_decode = threading.Condition(self._lock)
        self._to_predict = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._predicting: dict[Batch, float] = {}  # since when
        self._alone = False  # whether a request is tried alone, or is about to be
        self._closed = False
        self._shortest_ms = float("inf")  # of the deadlines lately
        self._rates = Rates(clock)

    # Readers

    def room(self, line: OpenLine) -> int:
        """How many requests may be taken for a line: as many as are begun soon; 0 while few fit."""
        with self._lock:
            return self._room_of(line)

    def wait_for_room(self, lines: Iterable[OpenLine], timeout_s: float) -> None:
        """Until a line has room, or the time is over."""
        lines = list(lines)
        with self._room:
            self._room.wait_for(lambda: self._closed or any(self._room_of(line) for line in lines), timeout_s)

    def add(self, requests: Iterable[Request]) -> None:
        """Requests that were taken."""
        with self._lock:
            for request in requests:
                queue = self._queues.setdefault(request.line, _Queue())
                if not queue.num_held:
                    self._begin_share(request.line)
                queue.num_held += 1
                self._note_deadline(request)
                heapq.heappush(queue.undecoded, (request.deadline_s, next(self._numbers), request))
                self._to_decode.notify()

    def hold_alone(self, request: Request, timeout_s: float) -> bool:
        """Begin to try a request alone, once nothing else is held; False if that does not happen in time."""
        with self._room:
            if self._alone:
                return False
            self._alone = True
            free = self._room.wait_for(
                lambda: self._closed or not self._num_held(), min(timeout_s, threading.TIMEOUT_MAX)
            )
            if not free or self._closed:
                self._alone = False
                return False
        self.add([request])
        return True

    def wait_until_free(self, timeout_s: float) -> bool:
        """Until nothing is held; whether that is so now."""
        with self._room:
            return self._room.wait_for(lambda: not self._num_held(), timeout_s)

    def end_alone(self) -> None:
        """Others may be taken again."""
        with self._room:
            self._alone = False
            self._room.notify_all()

    def take_back_untried(self) -> list[Request]:
        """Remove the requests of which nobody has begun to decode the image."""
        with self._lock:
            found = [request for queue in self._queues.values() for _, _, request in queue.undecoded]
            for queue in self._queues.values():
                queue.num_held -= len(queue.undecoded)
                queue.undecoded.clear()
            for line in list(self._queues):
                self._drop_closed(line)
            self._room.notify_all()
        return [request for request in found if not request.gone]

    @property
    def alone(self) -> bool:
        return self._alone

    @property
    def num_held(self) -> int:
        with self._lock:
            return self._num_held()

    # Decode threads

    def next_to_decode(self, timeout_s: float) -> Request | None:
        """The next request whose image is to be decoded; None if there is none for so long."""
        late: list[tuple[Request, Cause]] = []
        with self._to_decode:
            self._to_decode.wait_for(lambda: self._closed or self._has("undecoded"), timeout_s)
            found = self._pop_undecoded(late)
        self._report(late)
        return found

    def decoded(self, request: Request) -> None:
        """Its pixels are ready."""
        with self._lock:
            queue = self._queues[request.line]
            heapq.heappush(queue.decoded, (request.deadline_s, next(self._numbers), request))
            self._to_predict.notify()

    def ended(self, requests: Iterable[Request]) -> None:
        """Nothing more is done with these requests here."""
        with self._lock:
            for request in requests:
                self._end(request)
            self._room.notify_all()

    # Predict threads

    def wait_for_batch(self, timeout_s: float) -> Coming | None:
        """Until something is ready to be predicted; None if nothing is for so long."""
        with self._to_predict:
            if not self._has("decoded"):
                self._rates.starved()
                self._to_predict.wait_for(lambda: self._closed or self._has("decoded"), timeout_s)
            line = self._choose("decoded")
            if line is None:
                return None
            return Coming(model_now(self._queues[line].decoded[0][2]), all_cores=self._is_only(1))

    def next_batch(self) -> Batch | None:
        """The next batch, now that the device is free; None if there is none any more. `finished` must follow."""
        late: list[tuple[Request, Cause]] = []
        with self._lock:
            batch = self._form_batch(late)
            if batch is not None:
                self._predicting[batch] = self._clock()
                self._room.notify_all()
        self._report(late)
        return batch

    def finished(self, batch: Batch, device_s: float) -> None:
        """A batch was predicted."""
        with self._lock:
            self._predicting.pop(batch, None)
            batch.line.used_s += device_s
            self._rates.predicted(batch.line, batch.model, len(batch.requests), device_s)
            for request in batch.requests:
                self._end(request)
            self._room.notify_all()

    def largest_batch(self, line: OpenLine, model: LineModel) -> int:
        """The largest size of batches, such that an urgent request does not wait for long."""
        longest_ms = _SHORT * min(self._shortest_ms, line.line.settings.deadline_ms)
        return max((size for size in model.sizes if model.timings.expected_ms(size) <= longest_ms), default=1)

    def utilisation(self, line: OpenLine) -> float:
        """The share of the device that a line has used lately."""
        with self._lock:
            return self._rates.utilisation(line)

    def longest_prediction_s(self) -> float:
        """How long the oldest batch that is being predicted has taken until now."""
        with self._lock:
            return self._clock() - min(self._predicting.values(), default=self._clock())

    def close(self) -> None:
        """Wake all threads; nobody waits any more."""
        with self._lock:
            self._closed = True
            for condition in (self._to_decode, self._to_predict, self._room):
                condition.notify_all()

    def forget(self, line: OpenLine) -> None:
        """A line is closed: it is dropped as soon as nothing of it is held."""
        with self._lock:
            line.closed = True
            self._drop_closed(line)

    # With the lock held

    def _room_of(self, line: OpenLine) -> int:
        if line.model is None or self._alone or self._closed:
            return 0
        most = _AHEAD * line.model.streams * self.largest_batch(line, line.model) + self._decode_threads
        queue = self._queues.get(line)
        free = most - (queue.num_held if queue else 0)
        return free if free >= max(1, most // 3) else 0

    def _num_held(self) -> int:
        return sum(queue.num_held for queue in self._queues.values())

    def _has(self, stage: str) -> bool:
        return any(getattr(queue, stage) for queue in self._queues.values())

    def _begin_share(self, line: OpenLine) -> None:
        """A line that was idle has saved nothing up."""
        busy = [other.used_s for other, queue in self._queues.items() if queue.num_held]
        if busy:
            line.used_s = max(line.used_s, min(busy))

    def _note_deadline(self, request: Request) -> None:
        given_ms = request.held.tried_ms + request.waited_ms + (request.deadline_s - request.taken_s) * 1e3
        if given_ms < self._shortest_ms:
            self._shortest_ms = given_ms
        else:
            self._shortest_ms += _FOLLOW * (given_ms - self._shortest_ms)

    def _choose(self, stage: str) -> OpenLine | None:
        """The line whose turn it is."""
        waiting = {line: heap[0][0] for line, queue in self._queues.items() if (heap := getattr(queue, stage))}
        if not waiting:
            return None
        urgent = min(waiting, key=lambda line: waiting[line])
        behind = min(waiting, key=lambda line: line.used_s)
        return behind if urgent.used_s - behind.used_s > UNFAIR_S else urgent

    def _pop_undecoded(self, late: list[tuple[Request, Cause]]) -> Request | None:
        while (line := self._choose("undecoded")) is not None:
            _, _, request = heapq.heappop(self._queues[line].undecoded)
            model = line.model_for(request.held)
            needed_ms = line.decode.expected_ms + model.timings.expected_ms(1) + answer_ms(line)
            if request.gone:
                self._end(request)
            elif self._clock() + needed_ms / 1e3 > request.deadline_s:
                late.append((request, "queue"))
            else:
                request.model = model
                return request
        return None

    def _form_batch(self, late: list[tuple[Request, Cause]]) -> Batch | None:
        """The most urgent requests of the line whose turn it is, as many as one stream should take now."""
        while (line := self._choose("decoded")) is not None:
            heap = self._queues[line].decoded
            if not self._drop_untimely(heap, late):
                continue
            first = heapq.heappop(heap)[2]
            model = model_now(first)
            most = min(self._share_of_stream(model, 1 + len(heap)), self.largest_batch(line, model))
            while most > 1 and not in_time(first, model, most, self._clock()):
                most = model.largest_up_to(most - 1)
            requests = [first]
            while len(requests) < most and self._drop_untimely(heap, late) and model_now(heap[0][2]) is model:
                requests.append(heapq.heappop(heap)[2])
            return Batch(line, model, requests, all_cores=self._is_only(len(requests)))
        return None

    def _share_of_stream(self, model: LineModel, num_waiting: int) -> int:
        """Images of the next batch: those that wait are spread over all streams, also those that are free soon.

        A larger batch would use the device better, but it is larger than needed as long as few wait.
        """
        return model.largest_up_to(max(1, num_waiting // model.streams))

    def _is_only(self, num_images: int) -> bool:
        return num_images == 1 and not self._predicting and self._num_held() == 1

    def _drop_untimely(self, heap: list[tuple[float, int, Request]], late: list[tuple[Request, Cause]]) -> bool:
        """Drop what is gone or late, until the most urgent request would be ready in time in a batch of its own.

        Returns False where none is left.
        """
        while heap:
            request = heap[0][2]
            if not request.gone and in_time(request, model_now(request), 1, self._clock()):
                return True
            heapq.heappop(heap)
            if request.gone:
                self._end(request)
            else:
                late.append((request, "device"))
        return False

    def _end(self, request: Request) -> None:
        self._queues[request.line].num_held -= 1
        self._drop_closed(request.line)

    def _drop_closed(self, line: OpenLine) -> None:
        queue = self._queues.get(line)
        if line.closed and not (queue and queue.num_held):
            self._queues.pop(line, None)
            self._rates.forget(line)

    def _report(self, late: list[tuple[Request, Cause]]) -> None:
        if late:
            self._on_late(late)
            self.ended(request for request, _ in late)
