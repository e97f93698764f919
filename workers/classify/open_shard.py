"""A claimed shard and its rows, and the thread that commits it while the next shard is predicted."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Self

from modeling.inference.pipeline import BatchResult
from modeling.inference.prediction import Prediction
from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.jobs.sidecar import AsRead
from orchestrator.contract.ledger.ledger import Claim


@dataclass
class OpenShard:
    """A claimed shard and the rows it has so far.

    decides: whether the model is calibrated.
    as_read: size and time of each image; None until it was read.
    num_stopped: images that are `too_slow` by the clock, not by their header.
    """

    claim: Claim
    paths: list[str]
    decides: bool
    rows: list[Row] = field(default_factory=list)
    seconds: Counter[str] = field(default_factory=Counter)
    num_stopped: int = 0
    as_read: list[AsRead | None] = field(init=False)

    def __post_init__(self) -> None:
        self.as_read = [None] * len(self.paths)

    def add(self, result: BatchResult) -> None:
        """Append the predictions of the next batch."""
        self._append(result.predictions)
        self.seconds.update(result.seconds)

    def give_up(self, prediction: Prediction) -> None:
        """Replace all rows: every image gets the same prediction."""
        self.rows = []
        self._append([prediction] * len(self.paths))

    def _append(self, predictions: Sequence[Prediction]) -> None:
        start = len(self.rows)
        paths = self.paths[start : start + len(predictions)]
        self.rows += [
            Row.of(path, prediction, decides=self.decides) for path, prediction in zip(paths, predictions, strict=True)
        ]

    @property
    def complete(self) -> bool:
        """Whether every path has its row."""
        return len(self.rows) == len(self.paths)


logger = logging.getLogger(__name__)

_POLL_S = 0.5  # between calls of `while_waiting`


class Commits:
    """Commits one shard at a time in a thread; the end of the `with` block waits for it, also after an exception.

    The next call raises the error of a commit; if another exception ends the block, the error is logged.
    """

    def __init__(self, commit: Callable[[OpenShard], None], while_waiting: Callable[[], None]) -> None:
        """while_waiting: called regularly by the thread that waits for a commit; may raise."""
        self._commit = commit
        self._while_waiting = while_waiting
        self._writer = ThreadPoolExecutor(1, "write")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.shutdown(wait=True)
        failure = self._pending.exception() if self._pending else None
        if failure is not None and type(failure) is not kind:
            logger.warning("the commit of a shard failed too: %s: %s", type(failure).__name__, failure)

    def add(self, shard: OpenShard) -> None:
        """Commit a shard after the one before it."""
        self.wait()
        self._pending = self._writer.submit(self._commit, shard)

    def check(self) -> None:
        """Raise the error of the last commit, if it has failed."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the last commit."""
        if self._pending is None:
            return
        while not wait([self._pending], _POLL_S).done:  # `result` raises a commit's own TimeoutError, such as ETIMEDOUT
            self._while_waiting()
        self._pending.result()
        self._pending = None
