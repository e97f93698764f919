"""What `benchmarks.chaos --lines` takes for a broken promise."""

import numpy as np
import pytest

from benchmarks.chaos_lines import judge
from benchmarks.lines.runs import Outcome

RECORD = {"bin": "bin-1", "answered_ms": 1}


def outcome(num_decisions: list[int], predicted: list[bool]) -> Outcome:
    count = len(num_decisions)
    done = [0.05 if num else np.nan for num in num_decisions]
    texts = {
        name: np.full(count, text) for name, text in (("bin", "bin-1"), ("reason", ""), ("model", "m@1"), ("error", ""))
    }
    return Outcome(
        due=np.zeros(count), deadline_ms=np.full(count, 100), sent=np.zeros(count), done=np.asarray(done),
        decisions=np.asarray(num_decisions), predicted=np.asarray(predicted), cpu_s=0.0, **texts,
    )  # fmt: skip


def broken(found, server="well", num_decisions=(1, 1), predicted=(True, True), share=0.8):
    return judge(outcome(list(num_decisions), list(predicted)), found, server, share)["broken_promises"]


def test_one_decision_and_one_record_a_push_break_nothing():
    assert broken([[RECORD], [RECORD]]) == []


def test_a_push_without_a_decision_or_with_two_is_told():
    assert broken([[RECORD], [RECORD]], num_decisions=(0, 2)) == ["1 of 2 without a decision", "1 with two decisions"]


def test_records_that_are_missing_doubled_or_different_are_told():
    other = {"bin": "bin-2", "answered_ms": 2}

    assert broken([[], [RECORD, other]]) == ["1 decisions without a record", "1 items with two records"]
    assert broken([[RECORD], [other]]) == ["1 decisions that differ from their record"]


@pytest.mark.parametrize(
    ("server", "expected"), [("lost", []), ("faulty", ["1 decisions without a record", "1 items with two records"])]
)
def test_a_server_that_lost_what_it_knew_may_lack_records(server, expected):
    other = {"bin": "bin-2", "answered_ms": 2}

    assert broken([[], [RECORD, other]], server) == expected


def test_decisions_may_differ_from_records_where_clients_decided_without_the_server():
    assert broken([[{"bin": "bin-2", "answered_ms": 2}], [RECORD]], "faulty") == []


def test_too_few_predictions_are_told():
    assert broken([[RECORD], [RECORD]], predicted=(True, False)) == ["50.0% predicted, 80% wanted"]
