"""A claimed shard while its rows come together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from modeling.inference.batches import GroupResult
from modeling.inference.prediction import Prediction
from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.ledger.ledger import Claim


@dataclass
class OpenShard:
    """A claimed shard and the rows it has so far.

    decides: whether the model has a calibration, which rejects what has no answer.
    """

    claim: Claim
    paths: list[str]
    decides: bool
    rows: list[Row] = field(default_factory=list)
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, result: GroupResult) -> None:
        """Append the next predictions."""
        self._append(result.predictions)
        self.seconds.update(result.seconds)

    def give_up(self, prediction: Prediction) -> None:
        """The same row for every image, whatever it had so far."""
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
