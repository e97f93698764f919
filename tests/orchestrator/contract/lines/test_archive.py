"""Answers in files: found by key, whatever was written, merged and left half done."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from orchestrator.contract.lines.answers import decode_record
from orchestrator.contract.lines.archive import AnswerArchive, combined, key_hash, segment_names
from orchestrator.contract.lines.archive_files import (
    MERGED_AT_ONCE,
    choose_merge,
    merge_segments,
    remove_old_files,
    write_segment,
)

DAY_MS = 86_400_000


def record(key: str, answered_ms: int = 1, **facts) -> bytes:
    """A record as the scripts store it."""
    return json.dumps({"key": key, "bin": "1", "reason": None, "answered_ms": answered_ms, **facts}).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "answers"


def test_an_archive_without_a_folder_knows_nothing(folder):
    assert AnswerArchive(folder).find("1/a") is None


def test_a_record_is_found_by_its_key_byte_for_byte(folder):
    keys = [f"1/item {number} é 信" for number in range(500)]
    write_segment(folder, [(key, record(key)) for key in keys], 1, 1)
    archive = AnswerArchive(folder)

    assert [archive.find(key) for key in keys] == [record(key) for key in keys]
    assert archive.find("2/item 0") is None
    assert decode_record(archive.find(keys[0])).item == keys[0][2:]


def test_an_open_archive_finds_what_was_written_after_it_was_opened(folder):
    archive = AnswerArchive(folder)
    for number in range(20):  # faster than the clock of the file system ticks
        assert archive.find(f"1/{number}") is None
        write_segment(folder, [(f"1/{number}", record(f"1/{number}"))], number, number)
        assert archive.find(f"1/{number}") is not None


def test_keys_that_share_a_hash_are_told_apart(folder, monkeypatch):
    for module in ("archive", "archive_files"):
        monkeypatch.setattr(f"orchestrator.contract.lines.{module}.key_hash", lambda key: 7)
    write_segment(folder, [(key, record(key)) for key in ("1/a", "1/b", "1/c")], 1, 1)
    archive = AnswerArchive(folder)

    assert archive.find("1/b") == record("1/b")
    assert archive.find("1/d") is None


def test_of_two_records_the_older_counts_and_of_two_reports_the_later():
    first, second = record("1/a", 5, discharged="X"), record("1/a", 9, bin="2", discharged="Y")

    found = decode_record(combined([second, first, b'{"key": "1/a", "discharged": "Z"}']))

    assert (found.answered_ms, found.bin, found.discharged, found.delivered) == (5, "1", "Z", "2")


@pytest.mark.parametrize("reason", ["no_server", "busy", "late", None])
def test_the_bin_of_a_later_record_is_what_a_client_was_told_then(reason):
    first, second, same = record("1/a", 5), record("1/a", 9, bin="F", reason=reason), record("1/a", 9, reason=reason)

    assert decode_record(combined([first, second])).delivered == "F"
    assert decode_record(combined([second, first])).bin == "1"
    assert decode_record(combined([first, same])).delivered is None


def test_a_report_alone_is_no_answer():
    assert combined([b'{"key": "1/a", "discharged": "Z"}']) is None


def test_a_files_names_and_modes_say_nothing_of_items_and_let_nobody_in(folder):
    path = write_segment(folder, [("1/../../etc/passwd", record("1/../../etc/passwd"))], 1, 1)

    assert path.parent == folder
    assert "passwd" not in path.name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_in_a_home_of_a_group_the_group_reads_them(folder):
    folder.mkdir()
    folder.chmod(0o2770)

    path = write_segment(folder, [("1/a", record("1/a"))], 1, 1)

    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_removed_line_gets_no_files_again(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_segment(tmp_path / "gone" / "answers", [("1/a", record("1/a"))], 1, 1)


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_damaged_file_hides_only_its_own_answers(folder, damage, caplog):
    bad = write_segment(folder, [("1/a", record("1/a"))], 1, 1)
    write_segment(folder, [("1/b", record("1/b"))], 2, 2)
    data = bad.read_bytes()
    bad.write_bytes({"cut": data[:-9], "empty": b"", "foreign": b"x" * 500}[damage])
    archive = AnswerArchive(folder)

    assert archive.find("1/a") is None
    assert archive.find("1/b") == record("1/b")
    assert [message for message in caplog.messages if bad.name in message] == [caplog.messages[0]]


def test_merging_keeps_the_number_of_files_small_and_every_record(folder):
    archive = AnswerArchive(folder)
    for number in range(80):
        write_segment(folder, [(f"1/{number}", record(f"1/{number}", number))], number, number)
        if chosen := choose_merge(archive.segments(), DAY_MS):
            merge_segments(folder, chosen)
            outdate(folder)
            remove_old_files(folder, archive.segments(), 0)

    assert len(segment_names(folder)) < 3 * MERGED_AT_ONCE
    assert [archive.find(f"1/{number}") for number in range(80)] == [
        record(f"1/{number}", number) for number in range(80)
    ]


def test_replaced_files_stay_until_every_listing_shows_their_successor(folder):
    archive = AnswerArchive(folder)
    for number in range(MERGED_AT_ONCE):
        write_segment(folder, [(f"1/{number}", record(f"1/{number}"))], 1, 1)

    merge_segments(folder, choose_merge(archive.segments(), DAY_MS))

    assert remove_old_files(folder, archive.segments(), 0) == 0
    assert choose_merge(archive.segments(), DAY_MS) == ()
    outdate(folder)
    assert remove_old_files(folder, archive.segments(), 0) == MERGED_AT_ONCE
    assert len(segment_names(folder)) == 1


def test_files_of_too_long_a_time_are_not_merged_so_that_whole_files_expire(folder):
    archive = AnswerArchive(folder)
    for day in range(MERGED_AT_ONCE):
        write_segment(folder, [(f"1/{day}", record(f"1/{day}"))], day * DAY_MS, day * DAY_MS)

    assert choose_merge(archive.segments(), DAY_MS) == ()
    assert remove_old_files(folder, archive.segments(), expired_ms=3 * DAY_MS) == 3
    assert [bool(archive.find(f"1/{day}")) for day in range(5)] == [False, False, False, True, True]


def test_what_a_writer_that_died_has_left_goes_after_a_while(folder):
    write_segment(folder, [("1/a", record("1/a"))], 1, 1)
    left = folder / ".0000000000001-00.answers.ab12cd34.tmp"
    left.touch()

    remove_old_files(folder, [], 0)
    fresh = left.exists()
    outdate(folder)
    remove_old_files(folder, [], 0)

    assert (fresh, left.exists(), len(segment_names(folder))) == (True, False, 1)


def test_hashes_of_keys_never_change():
    assert key_hash("1/a") == 10939470743932660649  # files of older releases are searched by them


def outdate(folder: Path) -> None:
    """Make all files old enough for what is replaced or left to be removed."""
    for path in folder.iterdir():
        os.utime(path, (1, 1))


class ArchiveMachine(RuleBasedStateMachine):
    """A server's answers move to files; the mover dies between any two steps; readers look everything up meanwhile."""

    def __init__(self, parent: Path) -> None:
        super().__init__()
        shutil.rmtree(parent / "answers", ignore_errors=True)
        self.folder = parent / "answers"
        self.archive = AnswerArchive(self.folder)
        self.server: dict[str, bytes] = {}
        self.first: dict[str, bytes] = {}  # what every key was answered first
        self.now = 0

    @rule(keys=st.lists(st.sampled_from([f"{number % 3}/k{number}" for number in range(40)]), max_size=6))
    def answer(self, keys: list[str]) -> None:
        """An answer is new, or was forgotten by the server and is given again."""
        for key in keys:
            self.now += 1
            if key not in self.server:
                self.server[key] = record(key, self.now, bin=str(self.now))
                self.first.setdefault(key, self.server[key])

    @precondition(lambda self: self.server)
    @rule(most=st.integers(1, 5), died=st.sampled_from(["", "writing", "before it was deleted"]))
    def move(self, most: int, died: str) -> None:
        oldest = sorted(self.server.items(), key=lambda pair: json.loads(pair[1])["answered_ms"])[:most]
        if died == "writing":
            self.folder.mkdir(exist_ok=True)
            (self.folder / f".{self.now:013d}-0.answers.x.tmp").write_bytes(b"half")
            return
        write_segment(self.folder, oldest, self.now, self.now)
        for key, _ in oldest if not died else ():
            del self.server[key]

    @rule(few=st.integers(2, 4), times=st.sampled_from([1, 2]))
    def merge(self, few: int, times: int) -> None:
        """Twice: two movers at the same time."""
        chosen = choose_merge(self.archive.segments(), DAY_MS, few)
        for _ in range(times if chosen else 0):
            merge_segments(self.folder, chosen)

    @precondition(lambda self: self.folder.exists())
    @rule()
    def remove_replaced(self) -> None:
        outdate(self.folder)
        remove_old_files(self.folder, self.archive.segments(), 0)

    @rule()
    def reopen(self) -> None:
        self.archive = AnswerArchive(self.folder)

    @invariant()
    def everything_is_found(self) -> None:
        for key, first in self.first.items():
            on_server = [self.server[key]] if key in self.server else []
            found = json.loads(combined(self.archive.entries(key) + on_server))
            assert {name: value for name, value in found.items() if name != "delivered"} == json.loads(first)


def test_every_answer_is_in_the_files_or_on_the_server_whatever_happens(tmp_path):
    run_state_machine_as_test(
        lambda: ArchiveMachine(tmp_path), settings=settings(stateful_step_count=25, max_examples=20)
    )
