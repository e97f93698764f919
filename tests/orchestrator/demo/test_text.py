import pytest

from orchestrator.demo.text import LetterPair, align, character_accuracy, mark_readings, side_by_side


@pytest.mark.parametrize(
    ("original", "recognised", "accuracy"),
    [
        ("abcd", "abcd", 1.0),
        ("ab cd", "abc d", 1.0),
        ("abcd", "abxd", 0.75),
        ("abcd", "abd", 0.75),
        ("abcd", "abcdd", 0.75),
        ("abcdefgh", "bcdefgh", 0.875),
        ("abcd", "", 0.0),
        ("a", "xyz", 0.0),
    ],
)
def test_accuracy_is_one_less_the_differences_a_character(original, recognised, accuracy):
    assert character_accuracy(original, recognised) == accuracy


def test_an_empty_original_is_refused():
    with pytest.raises(ValueError, match="empty"):
        character_accuracy(" ", "a")


def test_a_missing_character_costs_its_neighbours_nothing():
    assert align("cart", "cat") == [
        LetterPair("c", "c"),
        LetterPair("a", "a"),
        LetterPair("r", None),
        LetterPair("t", "t"),
    ]


def test_a_reading_is_right_by_its_place_in_the_alignment_and_doubtful_by_its_score():
    predictions = [(("lower_a", "lower_o"), (0.9, 0.1)), (("digit_1", "lower_l"), (0.4, 0.3))]

    readings = mark_readings("al", ["a", "1"], predictions)

    assert [(r.text, r.wrong, r.doubtful) for r in readings] == [("a", False, False), ("1", True, True)]


def test_both_texts_stand_side_by_side_with_the_differences_marked():
    assert side_by_side("sort it\nwell", "s0rt it\nwel") == [
        "sort it | s0rt it",
        "        |  ^",
        "well    | wel",
        "        |   ^",
    ]
