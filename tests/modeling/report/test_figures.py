import pytest

from modeling.report.figures import count, interval, percent, score, shortened


@pytest.mark.parametrize(
    ("share", "said"),
    [
        *((None, "–"), (0, "0 %"), (1.0, "100 %"), (0.5, "50.0 %"), (0.9734, "97.3 %"), (0.9987, "99.87 %")),
        *((0.005, "0.50 %"), (0.99999, "over 99.99 %"), (0.00001, "under 0.01 %")),
    ],
)
def test_shares_read_as_per_cent_and_no_rest_is_rounded_away(share, said):
    assert percent(share).replace("\u202f", " ") == said


def test_intervals_scores_and_counts_read_as_people_write_them():
    said = [
        interval((0.6, 0.876)),
        interval((0.991, 1.0)),
        interval(None),
        score(1.0),
        score(0.5),
        count(1, "image"),
        count(1234, "class", "classes"),
        count(1234),
    ]

    assert [each.replace("\u202f", " ").replace("\u00a0", " ") for each in said] == [
        *("60.0 to 87.6 %", "99.10 to 100 %", "–", "99.9 %", "50.0 %", "1 image", "1,234 classes", "1,234")
    ]


def test_a_long_text_loses_its_middle():
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert shortened("abcde", 5) == "abcde"
