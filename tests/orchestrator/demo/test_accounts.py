"""The accounts of a belt."""

from dataclasses import replace

from orchestrator.contract.lines.answers import Answer
from orchestrator.demo.accounts import account, bins_and_reasons

ONE, TWO, THREE = (Answer(f"card-{number}", 1, f"bin-{number}") for number in (1, 2, 3))
PUSHED = ["card-1", "card-2", "card-3"]


def test_accounts_are_balanced_where_each_item_has_one_decision_and_the_same_record():
    accounts = account(PUSHED, [TWO, ONE, THREE], {"card-1": ONE, "card-2": TWO, "card-3": THREE}, num_counted=3)

    assert accounts.balanced
    assert accounts.wrong == ()


def test_what_is_lost_doubled_or_different_is_named():
    other = replace(ONE, bin="fallback")

    accounts = account(PUSHED, [ONE, THREE, THREE], {"card-1": other, "card-2": TWO, "card-3": None}, num_counted=3)

    assert not accounts.balanced
    assert accounts.wrong == (
        "card-2 has 0 decisions",
        "card-3 has 2 decisions",
        "card-1 went to bin bin-1, and its record says fallback",
        "card-3 has no record",
    )


def test_an_answer_too_many_in_the_lines_own_counts_is_no_balance():
    accounts = account(["card-1"], [ONE], {"card-1": ONE}, num_counted=2)

    assert (accounts.wrong, accounts.balanced) == ((), False)


def test_a_decision_about_what_was_never_pushed_is_named():
    assert account(["card-1"], [ONE, TWO], {"card-1": ONE}, 1).wrong == ("card-2 was decided and never pushed",)


def test_bins_come_in_order_with_their_reasons():
    late = Answer("card-4", 1, "fallback", "late", "device")

    assert bins_and_reasons([THREE, ONE, late, replace(ONE, reason="next_bin"), ONE]) == [
        ("bin-1", "accept", 2),
        ("bin-1", "next_bin", 1),
        ("bin-3", "accept", 1),
        ("fallback", "late", 1),
    ]
