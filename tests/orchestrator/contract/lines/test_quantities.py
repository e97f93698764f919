"""Durations, sizes and shares as operators write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contract.errors import UsageError
from orchestrator.contract.lines.quantities import duration_text, parse_duration_ms, parse_share, parse_size


@pytest.mark.parametrize(
    ("text", "ms"),
    [("500ms", 500), ("2s", 2_000), ("1.5s", 1_500), (" 5m ", 300_000), ("12h", 43_200_000), ("7d", 604_800_000)],
)
def test_a_duration_has_a_number_and_a_unit(text, ms):
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "500", "ms", "-1s", "1 s", "1e3s", "nan", "inf", "1y", "٣s", "9" * 400 + "d"])
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="is not a duration; write a number with a unit: 500ms, 2s, 5m, 12h or 7d"):
        parse_duration_ms(text)


@given(st.integers(min_value=0, max_value=10**11))
def test_the_text_of_a_duration_is_read_back(ms):
    assert parse_duration_ms(duration_text(ms)) == ms


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1000", 1000), ("64kB", 64_000), ("1.5 MB", 1_500_000), ("16MiB", 16 << 20)]
)
def test_a_size_is_bytes_or_has_a_unit(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1e9", "16mb", "16 M", "9" * 400])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(
        UsageError, match="is not a size; write bytes, or a number with a unit: 64kB, 16MB, 256MiB or 2GB"
    ):
        parse_size(text)


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.5", 0.5), ("0", 0.0), ("100%", 1.0)])
def test_a_share_may_be_nothing_or_all(text, share):
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["", "%", "-1%", "101%", "nan", "one"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError, match="is not a share from 0 to 1"):
        parse_share(text)
