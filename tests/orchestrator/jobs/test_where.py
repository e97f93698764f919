"""The language of --where: what it means, and where it points when something is wrong."""

import operator
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.inference.prediction import Prediction
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.rows import Row
from orchestrator.jobs.where import MOST_CHARACTERS, all_of, parse_where

CAT = Row("march/IMG 1 (2).JPG", Prediction(("cat", "dog"), (0.75, 0.25), decision="accept"))
DOG = Row("april/it's.png", Prediction(("black dog", "cat"), (0.5, 0.5), decision="review"))
GONE = Row("march/gone.jpg", Prediction(error_code="missing", error="there is no such file", decision="reject"))
PLAIN = Row(os.fsdecode(b"caf\xe9.jpg"), Prediction(("cat",), (1.0,)))  # a model without a calibration
ROWS = {"cat": CAT, "dog": DOG, "gone": GONE, "plain": PLAIN}


def fitting(text: str) -> set[str]:
    where = parse_where(text)
    return {name for name, row in ROWS.items() if where.fits(row)}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("decision=review", {"dog"}),
        ('decision=""', {"plain"}),
        ("score<0.6", {"dog"}),
        ("score<=.5", {"dog"}),
        ("score >= 0.75", {"cat", "plain"}),
        ("score>0.75", {"plain"}),
        ("score=0.5", {"dog"}),
        ("score!=0.5", {"cat", "gone", "plain"}),
        ("label=cat", {"cat", "plain"}),
        ("label!=cat", {"dog", "gone"}),
        ('label="black dog"', {"dog"}),
        ("label='black dog'", {"dog"}),
        ("label=Cat", set()),
        ("label~CAT", {"cat", "plain"}),
        ('label=""', {"gone"}),
        ("path~march", {"cat", "gone"}),
        ("path~.jpg", {"cat", "gone", "plain"}),
        ("path~it's", {"dog"}),
        ("path~*", set()),
        ('path~"1 (2)"', {"cat"}),
        (r"path=caf\xe9.jpg", {"plain"}),
        ("status=error", {"gone"}),
        ("error_code=missing", {"gone"}),
        ("error~'no such'", {"gone"}),
        ("path~march and not status=error", {"cat"}),
        ("NOT path~march AND label=cat OR status=error", {"plain", "gone"}),
        ("status=error or path~april and score>0.9", {"gone"}),
        ("(status=error or path~april) and score<0.9", {"dog"}),
        ("not(label=cat)and(not not path~a)", {"dog", "gone"}),
        ("  label = cat  ", {"cat", "plain"}),
        ("label=and", set()),
    ],
)
def test_an_expression_takes_the_rows_that_it_says(text, names):
    assert fitting(text) == names


def test_quotes_and_backslashes_in_quotes_are_escaped_by_a_backslash_and_others_stay():
    label = "a \"b\" \\ 'c' \\d"
    row = Row("x", Prediction((label,), (1.0,)))

    assert parse_where(r"""label="a \"b\" \\ 'c' \d" """).fits(row)
    assert parse_where(r"""label='a "b" \\ \'c\' \d'""").fits(row)


def test_the_forms_of_one_character_are_equal():
    composed, apart = "caf\u00e9.jpg", "cafe\u0301.jpg"

    for name, wanted in ((composed, apart), (apart, composed)):
        assert parse_where(f"path={wanted}").fits(Row(name, CAT.prediction))
        assert parse_where(f"path~{wanted[:-4].upper()}").fits(Row(name, CAT.prediction))


def test_repeated_expressions_must_all_hold():
    both = all_of([parse_where("label=cat or status=error"), parse_where("path~march")])

    assert both is not None
    assert both.text == "(label=cat or status=error) and (path~march)"
    assert [both.fits(row) for row in ROWS.values()] == [True, False, True, False]
    assert all_of([]) is None


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("", "at its end", "expected a field; there are path, status, decision, label, error_code, error, score"),
        ("lable=cat", "at character 1 ('lable=cat')", "did you mean label?"),
        ("score<0.6 andd label=cat", "at character 11 ('andd label=cat')", "expected and, or, or the end"),
        ("label=black cat", "at character 13 ('cat')", "put a value that holds spaces or parentheses in quotes"),
        ("label==cat", "at character 6 ('==cat')", "expected one of = != < <= > >= ~"),
        ("label", "at its end", "expected one of = != < <= > >= ~"),
        ("label=", "at its end", 'expected a value; "" is the empty one'),
        ("label=cat and", "at its end", "expected a field"),
        ("and label=cat", "at character 1 ('and label=cat')", "expected a field; there are"),
        ("label<cat", "at character 6 ('<cat')", "label is a text; only the score is compared by <"),
        ("score~0.6", "at character 6 ('~0.6')", "the score is a number"),
        ("score<high", "at character 7 ('high')", "compared with a number such as 0.6"),
        ("score<nan", "at character 7 ('nan')", "compared with a number such as 0.6"),
        ("decision=reviewed", "at character 10 ('reviewed')", "decision is one of accept, review, reject"),
        ("status=failed", "at character 8 ('failed')", "status is one of ok, error"),
        ("(label=cat", "at its end", "the ) of the ( at character 1"),
        ("label=cat)", "at character 10 (')')", "expected and, or, or the end"),
        ('label="cat', "at character 7 ('\"cat')", 'the quote " has no end'),
        ('label="cat"s', "at character 12 ('s')", "expected and, or, or the end"),
        ("(" * 51 + "label=cat" + ")" * 51, "at character 51", "more than 50 levels"),
        ("not " * 51 + "label=cat", "at character 201", "more than 50 levels"),
        ("__import__('os')=1", "at character 1", "expected a field"),
    ],
)
def test_an_error_points_at_the_place(text, place, problem):
    with pytest.raises(UsageError) as caught:
        parse_where(text)

    assert place in str(caught.value)
    assert problem in str(caught.value)


def test_an_expression_that_no_person_wrote_is_refused():
    with pytest.raises(UsageError, match="at most 10,000"):
        parse_where("label=cat or " * 1000)


@given(st.text(alphabet="label=scortd <>!~()'\"\\0.5\u00e9\n", max_size=60))
def test_any_text_is_an_expression_or_an_error_for_the_operator(text):
    try:
        where = parse_where(text)
    except UsageError:
        return
    assert {type(where.fits(row)) for row in ROWS.values()} == {bool}


EXPRESSIONS = st.recursive(
    st.sampled_from(["label=cat", "score<0.6", "path~march", "status=error", 'decision!="accept"']).map(
        lambda text: (text, parse_where(text).fits)
    ),
    lambda inner: st.one_of(
        inner.map(lambda one: (f"not ({one[0]})", lambda row: not one[1](row))),
        st.tuples(inner, inner, st.sampled_from([("and", operator.and_), ("or", operator.or_)])).map(
            lambda two: (
                f"({two[0][0]}) {two[2][0]} ({two[1][0]})",
                lambda row: two[2][1](two[0][1](row), two[1][1](row)),
            )
        ),
    ),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_and_or_and_not_mean_what_python_means(expression):
    text, expected = expression

    assert [parse_where(text).fits(row) for row in ROWS.values()] == [expected(row) for row in ROWS.values()]


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("path~" + "a" * (MOST_CHARACTERS - 10), False),
        ('label="' + "\\" * (MOST_CHARACTERS - 10), "has no end"),
        ("not " * 40 + "label=" + "(" * 5000, "expected a value"),
        (" or ".join(["label=cat"] * 700), False),
    ],
)
def test_long_expressions_and_long_names_come_to_an_end(text, outcome):
    row = Row("a" * 4000 + "b", Prediction(("a" * 100_000,), (1.0,)))

    if isinstance(outcome, bool):
        assert parse_where(text).fits(row) is outcome  # in exponential time it would not get here
        return
    with pytest.raises(UsageError, match=outcome):
        parse_where(text)
