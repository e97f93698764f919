"""Pages of rows hold the rows of the manifest, each once and in order."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.inference.prediction import Prediction
from orchestrator.contract.errors import IntegrityError, UsageError
from orchestrator.contract.jobs.rows import FORMATS, Row
from orchestrator.jobs import row_pages
from orchestrator.jobs.results import Published
from orchestrator.jobs.row_pages import RowQuery, read_page

ROWS = [
    Row("a.jpg", Prediction(("cat", "dog"), (0.9, 0.1), decision="accept")),
    Row("line\nend.jpg", Prediction(("dog", "cat"), (0.6, 0.4), decision="review")),
    Row(os.fsdecode(b"caf\xe9\r.jpg"), Prediction(error_code="missing", error='no "file"\nthere', decision="reject")),
    Row("é,;.jpg", Prediction(("new\nline",), (0.2,), decision="reject")),
    Row("b.jpg", Prediction(error_code="empty", error="", decision="reject")),
    Row("c.jpg", Prediction(("cat",), (0.5,), decision="review")),
]


def publish(folder: Path, row_format: str, rows: list[Row] = ROWS) -> Published:
    encoder = FORMATS[row_format]
    path = folder / f"out.{row_format}"
    parts = [encoder.encode([row]) for row in rows]
    path.write_bytes(encoder.header({"version": 1}) + encoder.separator.join(parts) + encoder.footer())
    return Published(path, {"manifest": {"format": row_format}, "counts": {"num_images": len(rows)}})


def all_pages(published: Published, limit: int, **wanted: object) -> list[list[tuple[int, Row]]]:
    pages, cursor = [], None
    while True:
        page = read_page(published, RowQuery(limit, cursor, **wanted))  # type: ignore[arg-type]
        pages.append(page.rows)
        if (cursor := page.cursor) is None:
            return pages


@pytest.mark.parametrize("row_format", FORMATS)
@given(limit=st.integers(1, 8), rows=st.lists(st.sampled_from(ROWS), max_size=8))
def test_pages_joined_are_the_manifest_with_its_numbers(row_format, limit, rows, tmp_path):
    pages = all_pages(publish(tmp_path, row_format, rows), limit)

    assert [row for page in pages for row in page] == list(enumerate(rows, start=1))
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({"decision": "review"}, [2, 6]),
        ({"label": "cat"}, [1, 6]),
        ({"label": "new\nline"}, [4]),
        ({"below": 0.55}, [4, 6]),
        ({"failed": True}, [3, 5]),
        ({"failed": False}, [1, 2, 4, 6]),
        ({"error_code": "empty"}, [5]),
        ({"decision": "reject", "failed": False}, [4]),
        ({"label": "nobody"}, []),
    ],
)
@pytest.mark.parametrize("row_format", FORMATS)
def test_rows_are_filtered_by_all_that_is_asked_for(tmp_path, row_format, wanted, numbers):
    published = publish(tmp_path, row_format)

    for limit in (1, 10):
        found = [number for page in all_pages(published, limit, **wanted) for number, _ in page]
        assert found == numbers


def test_a_page_of_a_rare_label_ends_early_and_the_next_one_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(row_pages, "MOST_READ", 2)

    pages = all_pages(publish(tmp_path, "csv"), 5, label="cat")

    assert [[number for number, _ in page] for page in pages] == [[1], [], [6]]


@pytest.mark.parametrize("cursor", ["", "x", "1-1.2", "1-1.1.1", "../../etc", "9" * 400])
def test_a_cursor_of_no_page_of_this_manifest_is_refused(tmp_path, cursor):
    with pytest.raises(UsageError, match=r"is not the one of a page|was replaced"):
        read_page(publish(tmp_path, "csv"), RowQuery(2, cursor))


def test_a_cursor_does_not_outlive_its_manifest(tmp_path):
    first = read_page(publish(tmp_path, "csv"), RowQuery(2))
    replaced = publish(tmp_path, "csv", ROWS[:-1])

    with pytest.raises(UsageError, match="was replaced; begin with the first page"):
        read_page(replaced, RowQuery(2, first.cursor))


@pytest.mark.parametrize("row_format", FORMATS)
def test_what_no_job_writes_is_damage_with_its_place(tmp_path, row_format):
    published = publish(tmp_path, row_format)
    page = read_page(published, RowQuery(1))
    version, _, rows = str(page.cursor).split(".")

    with pytest.raises(IntegrityError, match=r"is damaged|from byte"):
        read_page(published, RowQuery(1, f"{version}.{published.manifest.stat().st_size // 2}.{rows}"))
