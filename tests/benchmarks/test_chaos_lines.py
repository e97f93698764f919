"""What `benchmarks.chaos --lines` takes for a broken promise."""

import numpy as np

from benchmarks import chaos_lines
from benchmarks.chaos_lines import Conditions, judge, run_workers
from benchmarks.lines.runs import Outcome

RECORD, OTHER = {"bin": "bin-1", "answered_ms": 1}, {"bin": "bin-2", "answered_ms": 2}


def outcome(num_decisions: list[int], predicted: list[bool], done_s: list[float]) -> Outcome:
    count = len(num_decisions)
    done = [at if num else np.nan for num, at in zip(num_decisions, done_s, strict=True)]
    texts = {
        name: np.full(count, text) for name, text in (("bin", "bin-1"), ("reason", ""), ("model", "m@1"), ("error", ""))
    }
    return Outcome(
        due=np.zeros(count), deadline_ms=np.full(count, 100), sent=np.zeros(count), done=np.asarray(done),
        decisions=np.asarray(num_decisions), predicted=np.asarray(predicted), cpu_s=0.0, **texts,
    )  # fmt: skip


def broken(found, *, num_decisions=(1, 1), predicted=(True, True), done_s=(0.05, 0.05), **conditions):
    made = outcome(list(num_decisions), list(predicted), list(done_s))
    return judge(made, found, Conditions(predicted_share=0.8, **conditions))["broken_promises"]


def test_one_decision_and_one_record_a_push_break_nothing():
    assert broken([[RECORD], [RECORD]]) == []


def test_a_push_without_a_decision_or_with_two_is_told():
    assert broken([[RECORD], [RECORD]], num_decisions=(0, 2)) == ["1 of 2 without a decision", "1 with two decisions"]


def test_records_that_are_missing_or_doubled_are_told_unless_the_server_lost_them():
    found = [[], [RECORD, OTHER]]

    assert broken(found) == ["1 decisions without a record", "1 items with two records"]
    assert broken(found, server_lost=True) == []


def test_a_decision_may_differ_from_its_record_where_that_was_reported():
    found = [[RECORD], [OTHER]]

    assert broken(found) == ["1 decisions differ from their record, and nobody has reported it"]
    assert broken(found, reported=1) == []


def test_too_few_predictions_are_told():
    assert broken([[RECORD], [RECORD]], predicted=(True, False)) == ["50.0% predicted, 80% wanted"]


def test_decisions_long_after_their_deadline_are_told_unless_the_server_was_struck_meanwhile():
    found = [[RECORD], [RECORD]]
    told = ["1 decisions came later than 20 ms after their deadline"]

    assert broken(found, done_s=(0.115, 0.125)) == told  # the deadline is at 0.1 s
    assert broken(found, done_s=(0.05, 0.2), strikes=[(1.0, 2.0)]) == told
    assert broken(found, done_s=(0.05, 0.2), strikes=[(0.07, 0.08)]) == []


class FakeRun:
    """Stands for the workers and for the load generator: the line is open on so many workers, at each look."""

    def __init__(self, num_open: list[int]) -> None:
        self._num_open = num_open
        self._now = 0
        self.open_at_kills: list[int] = []

    @property
    def sending(self) -> bool:
        return bool(self._num_open)

    def num_open(self) -> int:
        self._now = self._num_open.pop(0)
        return self._now

    def living(self) -> list[object]:  # what a kill looks at first
        self.open_at_kills.append(self._now)
        return []


def test_a_worker_is_killed_only_when_the_other_has_the_line_open(monkeypatch):
    monkeypatch.setattr(chaos_lines, "KILL_EVERY_S", 0.0)
    run = FakeRun([1, 2, 0, 1, 2])

    run_workers(run, run)

    assert run.open_at_kills == [2, 2]
