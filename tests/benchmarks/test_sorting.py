"""A short run of `python -m benchmarks.sorting`, and that it would find what it looks for."""

from pathlib import Path

from benchmarks.sorting import run_cases, sort_rows
from benchmarks.sorting_cases import Case, Outcome, Places, run_case, stop_at_a_change


def test_trees_are_as_before_whatever_is_stopped_or_killed():
    outcome = run_cases(range(40), num_kills=6)

    assert outcome.faults == []
    assert outcome.cases == 40
    assert outcome.stops > 20


def test_the_memory_of_a_sort_and_its_undoing_is_measured(tmp_path):
    figures = sort_rows(1_500, tmp_path)

    assert figures["num_rows"] == 1_500
    assert 0 < figures["sort"]["peak_mb"] < 300
    assert 0 < figures["unsort"]["peak_mb"] < 300


def test_a_tree_that_is_not_as_before_is_found(tmp_path: Path):
    case = Case(1, Places(tmp_path / "a", None))
    outcome = Outcome()

    def spoil(case: Case, call: object) -> bool:
        (case.tree.root / "new").write_text("not there before")
        return False

    run_case(case, spoil, outcome)
    run_case(Case(1, Places(tmp_path / "a", None)), stop_at_a_change, outcome)

    assert [number for number, _ in outcome.faults] == [1]
