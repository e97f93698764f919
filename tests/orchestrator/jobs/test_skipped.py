"""The reasons that files are left out for: their number is bounded, whatever names a folder holds."""

import os
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.contract.jobs.listing import ListingWriter, read_facts
from orchestrator.jobs.skipped import count_file, describe_skipped
from orchestrator.jobs.sources import open_source
from orchestrator.jobs.walk import SourceOptions


def count(*names: str) -> Counter[str]:
    skipped: Counter[str] = Counter()
    for name in names:
        count_file(skipped, name, os.path.splitext(name)[1].lower())  # noqa: PTH122 as a walk parts names
    return skipped


def test_numbers_at_the_end_of_names_are_no_extensions():
    dicom = [f"1.2.840.113619.{number}" for number in range(1000)]

    assert count(*dicom, *(f"dump.{number:07d}" for number in range(1000)), "a.mp4", "b.MP4", "c") == {
        "other extension": 2000,
        ".mp4": 2,
        "no extension": 1,
    }


@pytest.mark.parametrize(
    "name",
    ["a.jpg_original", "a.jpg~", "a.7z_", "a.c++", "a.x-y", "a.\u0444\u043e\u0442\u043e", "a.mp3", "a.123456789abcdef"],
)
def test_what_may_be_an_extension_is_counted_by_its_name(name):
    assert count(name) == {name[1:]: 1}


@pytest.mark.parametrize(
    "name", ["a.123456789abcdefg", "Dr. med. Meier", "a.\x1b[31m", os.fsdecode(b"a.caf\xe9"), "a.1", "a."]
)
def test_what_is_none_is_counted_with_others(name):
    assert count(name) == {"other extension": 1}


def test_only_the_first_extensions_are_counted_by_name():
    skipped = count(*(f"a.x{number}" for number in range(1000)), "b.x29", "b.x30", "c.zip")

    assert len(skipped) == 32
    assert (skipped[".x0"], skipped[".x29"], skipped["other extension"], skipped["archive"]) == (1, 2, 971, 1)


def test_a_message_tells_the_most_frequent_reasons():
    few = count("a.txt", "b.pdf", "c.pdf")
    many = count(*(f"a.x{number}" for number in range(1000)), "b.x7")

    assert describe_skipped({}) == ""
    assert describe_skipped(few) == "; left out: 2 .pdf, 1 .txt"
    assert describe_skipped(many) == (
        "; left out: 1 .x0, 1 .x1, 1 .x10, 1 .x11, 1 .x12, 1 .x13, 1 .x14, 1 .x15, 2 .x7, "
        "970 other extension, 21 for other reasons"
    )


def test_a_listing_stays_small_and_is_written_whatever_the_names_are(tmp_path: Path):
    source, work = tmp_path / "in", tmp_path / "job"
    source.mkdir()
    work.mkdir()
    for name in ("a.png", os.fsdecode(b"b.caf\xe9"), *(f"1.2.840.{number}" for number in range(300))):
        (source / name).touch()

    opened = open_source(str(source), SourceOptions())
    with ListingWriter(work, 4) as writer:
        for path in opened.paths:
            writer.add(path)
        writer.close(opened.skipped)

    facts = read_facts(work)
    assert facts is not None
    assert facts.skipped == {"other extension": 301}
    assert (work / "listing.json").stat().st_size < 1000
