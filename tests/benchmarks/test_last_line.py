"""The counts that the check of a training's last lines reads in texts."""

import pytest

from benchmarks.last_line import Counts, counts_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "1,139 of 1,140 test images right: accuracy 99.9 %\n"
            "accepted 1,035 of 1,140 test images; of these 1 wrong, 0.1 %; budget 1 %",
            Counts(1140, 1139, 1035, 1),
        ),
        ("1 of 1 test image right: accuracy 100 %\nnothing is accepted: 47 validation images", Counts(1, 1, 0, 0)),
        ("At a glance\n17 of 20 right\n3 of 14\u00a0accepted images\n", Counts(20, 17, 14, 3)),
    ],
)
def test_counts_are_read_in_sentences_and_in_the_text_of_a_report(text, expected):
    assert counts_in(text) == expected
