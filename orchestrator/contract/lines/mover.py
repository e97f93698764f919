"""Moves answers from the server to files of the home, so that the server's memory stays bounded.

A worker calls it some times a minute. An answer is on the disk before the server forgets it; a crash between the two
leaves it in both, which look-ups expect. Two movers at a time would only write answers twice.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from orchestrator.contract.lines.archive import AnswerArchive, combined, with_reports
from orchestrator.contract.lines.archive_files import choose_merge, merge_segments, remove_old_files, write_segment
from orchestrator.contract.lines.store import LineStore

_SLICE = 500  # answers in one call: the server does nothing else for a millisecond or two
_KEEPER_MS = 15_000  # after this another worker may move: moving takes too long, or its worker died


@dataclass(frozen=True, slots=True)
class MoveBounds:
    """When answers leave the server.

    From `move_from` answers on, all but `keep` leave; and those that are older than half of `age_ms`, when one is older
    than `age_ms`. most: answers in one file and one call. grace_s: how long the server keeps what is in a file, so that
    workers have seen the file before it forgets.
    """

    keep: int = 20_000
    move_from: int = 30_000
    age_ms: int = 3_600_000
    most: int = 20_000
    most_discharges: int = 10_000
    grace_s: float = 1.0


BOUNDS = MoveBounds()


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer as the server has it; empty where nothing was reported. Bytes: a foreign client may send no text."""

    key: bytes
    record: bytes
    discharged: bytes
    delivered: bytes
    answered_ms: int

    def entry(self) -> tuple[str, bytes]:
        return _text(self.key), with_reports(self.record, _text(self.discharged), _text(self.delivered))


def stay_keeper(store: LineStore, worker: str) -> int | None:
    """Let this worker be the one that keeps the line for the next seconds: the server's time in ms, None: another is.

    It is no more than a way to save work: two at a time do no harm.
    """
    key = store.key("keeper")
    if not store.client.set(key, worker, nx=True, px=_KEEPER_MS):
        if store.client.get(key) != worker.encode():
            return None
        store.client.pexpire(key, _KEEPER_MS)
    seconds, microseconds = store.client.time()
    return seconds * 1000 + microseconds // 1000


@dataclass(frozen=True, slots=True)
class _Written:
    """What is in a file, and still on the server."""

    answers: Sequence[_Answer]
    discharges: Mapping[bytes, bytes]
    at_s: float


class AnswerMover:
    """Moves the answers of one line, merges its files and deletes those that have expired."""

    def __init__(self, store: LineStore, archive: AnswerArchive, bounds: MoveBounds = BOUNDS) -> None:
        self._store = store
        self._archive = archive
        self._bounds = bounds
        self._written: _Written | None = None

    def move(self, now_ms: int) -> int:
        """Write what is too much or too old to a file, and let the server forget what the last call wrote.

        Returns how many answers the server has forgotten.
        """
        forgotten = self._forget_written()
        if self._written is None:
            self._write(now_ms)
            forgotten += self._forget_written()
        return forgotten

    def _write(self, now_ms: int) -> None:
        wanted = self._num_wanted(now_ms)
        discharges = self._late_discharges() if wanted or self._has_many_discharges() else {}
        answers = self._oldest(wanted)
        entries = [answer.entry() for answer in answers]
        entries += [(_text(key), _report(_text(key), bin_)) for key, bin_ in discharges.items()]
        if not entries:
            return
        first_ms = min((answer.answered_ms for answer in answers), default=now_ms)
        last_ms = max((answer.answered_ms for answer in answers), default=now_ms)
        if discharges:
            last_ms = now_ms  # the files where the answers lie cannot be older
        elsewhere = self._num_elsewhere(discharges)
        write_segment(self._archive.folder, entries, first_ms, last_ms)
        self._written = _Written(answers, discharges, time.monotonic())
        if elsewhere:  # after the file, which a full disk refuses again and again
            self._store.count({"discharged_elsewhere": elsewhere})

    def drop(self, before_ms: int) -> int:
        """Let the server forget the answers before a time; no file has them. Returns how many."""
        num = int(self._store.client.zcount(self._store.key("answered"), "-inf", before_ms))
        return self._forget(self._oldest(min(num, self._bounds.most)))

    def expire(self, now_ms: int, keep_s: int) -> None:
        """Delete the files that are too old."""
        remove_old_files(self._archive.folder, self._archive.segments(), now_ms - keep_s * 1000)

    def merge(self, keep_s: int) -> None:
        """Merge files, so that their number stays small."""
        if chosen := choose_merge(self._archive.segments(), longest_span_ms=keep_s * 1000 // 8):
            merge_segments(self._archive.folder, chosen)

    def _num_wanted(self, now_ms: int) -> int:
        """How many of the oldest answers are to leave now."""
        bounds, answered = self._bounds, self._store.key("answered")
        with self._store.client.pipeline(transaction=False) as pipeline:
            pipeline.zcard(answered)
            pipeline.zcount(answered, "-inf", now_ms - bounds.age_ms)
            pipeline.zcount(answered, "-inf", now_ms - bounds.age_ms // 2)
            num, num_too_old, num_old = cast(list[int], pipeline.execute())
        excess = num - bounds.keep if num >= bounds.move_from else 0
        return min(bounds.most, max(excess, num_old if num_too_old else 0))

    def _oldest(self, wanted: int) -> list[_Answer]:
        """The oldest answers on the server."""
        client, found = self._store.client, list[_Answer]()
        for start in range(0, wanted, _SLICE):
            stop = min(start + _SLICE, wanted) - 1
            pairs = cast(list[Any], client.zrange(self._store.key("answered"), start, stop, withscores=True))
            keys = [key for key, _ in pairs]
            if not keys:
                break
            with client.pipeline(transaction=False) as pipeline:
                for name in ("answers", "discharged", "delivered"):
                    pipeline.hmget(self._store.key(name), keys)
                columns = pipeline.execute()
            found += [
                _Answer(key, record, discharged or b"", delivered or b"", int(score))
                for (key, score), record, discharged, delivered in zip(pairs, *columns, strict=True)
                if record is not None  # the server was emptied meanwhile
            ]
        return found

    def _has_many_discharges(self) -> bool:
        return self._store.client.hlen(self._store.key("late_discharged")) >= self._bounds.most_discharges

    def _late_discharges(self) -> dict[bytes, bytes]:
        """Where items went whose answers had left the server before that was reported."""
        return dict(self._store.client.hscan_iter(self._store.key("late_discharged"), count=_SLICE))

    def _num_elsewhere(self, discharges: Mapping[bytes, bytes]) -> int:
        """How many went to another bin than their record says: the script did not have the record."""
        records = ((_text(bin_), self._archive.find(_text(key))) for key, bin_ in discharges.items())
        return sum(record is not None and json.loads(record)["bin"] != bin_ for bin_, record in records)

    def _forget_written(self) -> int:
        """Let the server forget what is in the last file, once workers have seen that."""
        written = self._written
        if written is None or time.monotonic() < written.at_s + self._bounds.grace_s:
            return 0
        forgotten = self._forget(written.answers)
        pairs = list(written.discharges.items())
        for start in range(0, len(pairs), _SLICE):
            self._store.run("forget_discharges", [value for pair in pairs[start : start + _SLICE] for value in pair])
        self._written = None
        return forgotten

    def _forget(self, answers: Sequence[_Answer]) -> int:
        forgotten = 0
        for start in range(0, len(answers), _SLICE):
            some = answers[start : start + _SLICE]
            args = [value for each in some for value in (each.key, each.discharged, each.delivered)]
            forgotten += int(self._store.run("forget_answers", args))
        return forgotten


def find_record(store: LineStore, archive: AnswerArchive, key: str) -> bytes | None:
    """The record of a key with what was reported later, from the server and the files; None where there is none.

    The server is asked first: an answer that moves meanwhile is in a file before the server forgets it.
    """
    record, discharged, delivered = store.run("look_up", [key])
    entries = archive.entries(key)
    if record is not None:
        entries.append(with_reports(record, _text(discharged), _text(delivered)))
    elif discharged is not None:
        entries.append(_report(key, discharged))
    return combined(entries)


def restore_answer(store: LineStore, key: str, record: bytes) -> None:
    """Answer a request with the record that it got before; a client that pushed another image learns `conflict`."""
    conflict = json.dumps(json.loads(record) | {"reason": "conflict"})
    store.run("restore_answer", [key, record, conflict])


def _report(key: str, discharged: bytes) -> bytes:
    return json.dumps({"key": key, "discharged": _text(discharged)}).encode()


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="backslashreplace")
