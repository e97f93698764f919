"""Which rows a sheet shows."""

import pytest

from orchestrator.contract.jobs.rows import Row
from orchestrator.jobs.where import parse_where
from orchestrator.sheets.select import SheetRows, Wanted, select
from tests.support.manifests import answered, failed

ROWS = [answered(f"{number}.jpg", "cat" if number % 10 else "dog") for number in range(100)] + [failed("broken.jpg")]


def selected(rows: list[Row], **wanted: object) -> SheetRows:
    return select(rows, len(rows), Wanted(**({"where": None, "by": None, "limit": 10} | wanted)))


def groups_of(selection: SheetRows) -> dict[str, tuple[int, list[str]]]:
    return {group.name: (group.num_fitting, [row.path for row in group.rows]) for group in selection.groups}


def test_without_a_filter_only_the_first_rows_are_read():
    def rows():
        yield from ROWS[:10]
        raise AssertionError("a row more was read")

    selection = select(rows(), 101, Wanted(None, None, 10))

    assert groups_of(selection) == {"": (101, [row.path for row in ROWS[:10]])}
    assert (selection.num_shown, selection.num_fitting) == (10, 101)


def test_all_rows_that_fit_a_filter_are_counted():
    selection = selected(ROWS, where=parse_where("label=dog"), limit=3)

    assert groups_of(selection) == {"": (10, ["0.jpg", "10.jpg", "20.jpg"])}


def test_no_row_that_fits_gives_no_group():
    assert selected(ROWS, where=parse_where("label=cow")) == SheetRows([], 0, 0)
    assert selected([], by="label") == SheetRows([], 0, 0)


def test_groups_share_the_limit_and_show_their_first_rows():
    selection = selected(ROWS, by="label", limit=7)

    assert groups_of(selection) == {
        "cat": (90, ["1.jpg", "2.jpg", "3.jpg"]),
        "dog": (10, ["0.jpg", "10.jpg", "20.jpg"]),
        "": (1, ["broken.jpg"]),
    }


def test_a_small_group_leaves_its_share_to_others():
    rows = [answered(f"{number}.jpg", "cat") for number in range(50)] + [answered("x.jpg", "dog")]

    assert groups_of(selected(rows, by="label", limit=9)) == {
        "cat": (50, [f"{number}.jpg" for number in range(8)]),
        "dog": (1, ["x.jpg"]),
    }


def test_groups_by_decision():
    rows = [
        answered("a", "cat", decision="review"),
        answered("b", "cat"),
        answered("c", "cat", decision="accept"),
        answered("d", "cat", decision="review"),
    ]

    shown = groups_of(selected(rows, by="decision"))

    assert shown == {"review": (2, ["a", "d"]), "": (1, ["b"]), "accept": (1, ["c"])}


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_more_groups_than_pictures_show_one_each_and_the_rest_is_counted(limit):
    rows = [answered(f"{number}.jpg", f"label {number % 500}") for number in range(5000)]

    selection = selected(rows, by="label", limit=limit)

    assert (selection.num_shown, selection.num_fitting, selection.num_groups) == (limit, 5000, 500)
    assert [len(group.rows) for group in selection.groups] == [1] * limit


@pytest.mark.parametrize("seed", range(20))
def test_shares_differ_by_one_at_most_among_groups_that_have_more(seed):
    import random

    order = random.Random(seed)
    rows = [answered(str(number), f"label {int(order.paretovariate(0.5)) % 40}") for number in range(2000)]

    selection = selected(rows, by="label", limit=100)

    assert selection.num_shown == 100
    cut_off = [len(group.rows) for group in selection.groups if len(group.rows) < group.num_fitting]
    assert max(cut_off) - min(cut_off) <= 1
    whole = [len(group.rows) for group in selection.groups if len(group.rows) == group.num_fitting]
    assert max(whole, default=0) <= max(cut_off)
    for group in selection.groups:
        first = [row for row in rows if row.prediction.labels[0] == group.name][: len(group.rows)]
        assert group.rows == first
