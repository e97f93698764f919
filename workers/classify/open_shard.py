"""A claimed shard that collects its rows, and its commit while the next shard is predicted."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from modeling.inference.pipeline import BatchResult
from modeling.inference.prediction import Prediction
from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.ledger.ledger import Claim


@dataclass
class OpenShard:
    """A claimed shard and the rows it has so far.

    decides: whether the model is calibrated; an image that failed is then rejected.
    """

    claim: Claim
    paths: list[str]
    decides: bool
    rows: list[Row] = field(default_factory=list)
    seconds: Counter[str] = field(default_factory=Counter)

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
            Row(path, prediction if prediction.ok or not self.decides else replace(prediction, decision="reject"))
            for path, prediction in zip(paths, predictions, strict=True)
        ]

    @property
    def complete(self) -> bool:
        """Whether every path has its row."""
        return len(self.rows) == len(self.paths)


logger = logging.getLogger(__name__)

_LOOK_S = 0.5  # between calls of `while_waiting`


class Commits:
    """Commits one shard at a time in a thread; the end of the `with` block waits for it, also after an exception.

    What a commit raises is raised by the next call, or logged if another exception ends the block.
    """

    def __init__(self, commit: Callable[[OpenShard], None], while_waiting: Callable[[], None]) -> None:
        """while_waiting: called regularly by the thread that waits for a commit; may raise."""
        self._commit = commit
        self._while_waiting = while_waiting
        self._writer = ThreadPoolExecutor(1, "write")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(wait=True)
        lost = self._pending.exception() if self._pending else None
        if lost is not None and type(lost) is not kind:
            logger.warning("the commit of a shard failed too: %s: %s", type(lost).__name__, lost)

    def add(self, shard: OpenShard) -> None:
        """Commit a shard after the one before it."""
        self.settle()
        self._pending = self._writer.submit(self._commit, shard)

    def check(self) -> None:
        """Raise what the last commit raised, if it has ended."""
        if self._pending is not None and self._pending.done():
            self.settle()

    def settle(self) -> None:
        """Wait for the last commit."""
        while self._pending is not None:
            try:
                self._pending.result(timeout=_LOOK_S)
            except TimeoutError:
                self._while_waiting()
            else:
                self._pending = None
