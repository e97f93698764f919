"""Rows of two manifests, matched by path in any order."""

import os
import random
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling.inference.prediction import Prediction
from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.jobs.rows import Row
from orchestrator.diff.match import Answer, Pair, match_rows
from tests.support.manifests import answered, failed


def expected(before: Sequence[Row], after: Sequence[Row]) -> list[Pair]:
    """The same in memory."""
    later: defaultdict[str, list[Row]] = defaultdict(list)
    for row in after:
        later[row.path].append(row)
    pairs: list[Pair] = [
        (row.path, Answer.of(row), Answer.of(later[row.path].pop(0)) if later[row.path] else None) for row in before
    ]
    rest = [
        row for path in sorted(later, key=lambda path: path.encode("utf-8", "surrogatepass")) for row in later[path]
    ]
    return pairs + [(row.path, None, Answer.of(row)) for row in rest]


def in_any_order(pairs: Sequence[Pair]) -> Counter[Pair]:
    return Counter(pairs)


def numbered(paths: Sequence[str]) -> list[Row]:
    return [answered(path, f"label {number}") for number, path in enumerate(paths)]


def test_rows_in_one_order_are_matched_without_a_table(tmp_path):
    rows = numbered(["a", "b", "a"])

    assert list(match_rows(rows, rows, tmp_path / "is not there")) == expected(rows, rows)
    assert list(match_rows(rows[:2], rows, tmp_path / "is not there")) == expected(rows[:2], rows)
    assert list(match_rows(rows, rows[:1], tmp_path / "is not there")) == expected(rows, rows[:1])
    assert list(match_rows([], [], tmp_path / "is not there")) == []


PATHS = st.lists(st.sampled_from(["a", "b", "c", "d/e", os.fsdecode(b"caf\xe9"), "\ud800", "nul\0", "é"]), max_size=12)


@given(PATHS, PATHS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_two_lists_of_paths_are_matched(tmp_path, before, after):
    rows = numbered(before), numbered(after)

    found = list(match_rows(*rows, tmp_path))

    assert in_any_order(found) == in_any_order(expected(*rows))
    assert [path for path, one, _ in found if one is not None] == before


def test_shuffled_rows_are_matched_in_the_order_of_the_first_and_the_rest_is_sorted(tmp_path):
    before = numbered([f"{number}.jpg" for number in range(2000)])
    after = numbered([f"{number}.jpg" for number in range(1000, 3000)])
    random.Random(1).shuffle(after)

    assert list(match_rows(before, after, tmp_path)) == expected(before, after)


def test_the_table_has_no_name_while_it_is_used(tmp_path):
    rows = numbered(["a", "b"])
    matched = match_rows(rows, rows[::-1], tmp_path)

    first = next(matched)

    assert not list(tmp_path.iterdir())
    assert [first, *matched] == expected(rows, rows[::-1])


def test_what_is_compared_is_label_score_decision_and_error_code(tmp_path):
    row = Row("a", Prediction(("cat", "dog"), (0.12345649, 0.1), decision="review"))
    broken = failed("b", "truncated", "after 12 bytes")

    assert Answer.of(row) == Answer("cat", 0.123456, "review", None)
    assert Answer.of(broken) == Answer(None, None, None, "truncated")
    assert list(match_rows([row, broken], [broken, row], tmp_path)) == expected([row, broken], [broken, row])


def test_a_full_disk_is_an_error_for_the_operator(tmp_path, monkeypatch):
    connect = sqlite3.connect

    def connect_to_a_small_disk(*arguments: Any, **options: Any) -> sqlite3.Connection:
        table = connect(*arguments, **options)
        table.execute("PRAGMA max_page_count = 4")
        return table

    monkeypatch.setattr(sqlite3, "connect", connect_to_a_small_disk)
    rows = numbered([f"{number}.jpg" for number in range(1000)])

    with pytest.raises(PigeonholeError, match=r"the rows cannot be matched in .*: database or disk is full"):
        list(match_rows(rows, rows[::-1], tmp_path))
