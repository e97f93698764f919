"""Writes, merges and deletes the files of an archive of answers. A crash at any point loses and doubles no answer.

A segment appears whole under its name or not at all. Segments that were merged stay for a while beside the segment that
replaces them: who lists the folder meanwhile sees these, or that, or both.
"""

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from modeling.durable import private_mode, replaced_durably
from orchestrator.contract.lines.archive import FOOTER, MAGIC, SUFFIX, Segment, key_hash, segment_names

if TYPE_CHECKING:
    import numpy as np  # who looks an answer up writes no file
    from numpy.typing import NDArray

MERGED_AT_ONCE = 8
LARGEST_SEGMENT = 500_000  # records; what has grown to it is merged no further
REPLACED_STAY_S = 120.0  # longer than network file systems show an old listing
_TEMPORARY_STAY_S = 3600.0  # what a writer that died has left
_CHUNK = 1 << 20


def write_segment(folder: Path, entries: Sequence[tuple[str, bytes]], first_ms: int, last_ms: int) -> Path:
    """Write records by key, oldest first; they are on the disk when this returns.

    The folder's parent must exist: a line that was removed meanwhile gets no files again.
    """
    import numpy as np

    folder.mkdir(exist_ok=True)
    lines = [record + b"\n" for _, record in entries]
    hashes = np.array([key_hash(key) for key, _ in entries], dtype="<u8")
    offsets = np.concatenate([[0], np.cumsum([len(line) for line in lines])[:-1]]).astype("<u8")
    newest = max((_order_of(name) for name in segment_names(folder)), default=0)
    path = folder / _new_name(max(last_ms, newest + 1))
    with replaced_durably(path, mode=private_mode(folder)) as file:
        file.write(b"".join(lines))
        _write_index(file, hashes, offsets, (), first_ms, last_ms)
    return path


def merge_segments(folder: Path, segments: Sequence[Segment]) -> Path:
    """Write one segment with the records of several neighbours, and leave these for `remove_old_files`."""
    import numpy as np

    starts = np.cumsum([0, *(len(segment.data) for segment in segments)])
    hashes = np.concatenate([np.frombuffer(segment.hashes, dtype="<u8") for segment in segments])
    offsets = np.concatenate(
        [
            np.frombuffer(segment.offsets, dtype="<u8") + np.uint64(start)
            for segment, start in zip(segments, starts, strict=False)
        ]
    )
    first_ms, last_ms = min(each.first_ms for each in segments), max(each.last_ms for each in segments)
    path = folder / _new_name(_order_of(segments[-1].path.name))
    with replaced_durably(path, mode=private_mode(folder)) as file:
        for segment in segments:
            for start in range(0, len(segment.data), _CHUNK):
                file.write(segment.data[start : start + _CHUNK])
        _write_index(file, hashes, offsets, [segment.path.name for segment in segments], first_ms, last_ms)
    return path


def choose_merge(segments: Sequence[Segment], longest_span_ms: int, at_once: int = MERGED_AT_ONCE) -> Sequence[Segment]:
    """The neighbours to merge next; empty where there are none.

    All together have at least twice the records of the largest, so a record is copied a few times only; they are of a
    span that lets whole segments expire.
    """
    replaced = {name for segment in segments for name in segment.replaces}
    live = [segment for segment in segments if segment.path.name not in replaced]
    windows = [live[start : start + at_once] for start in range(len(live) - at_once + 1)]
    return min((window for window in windows if _may_merge(window, longest_span_ms)), key=_num_records, default=())


def remove_old_files(folder: Path, segments: Iterable[Segment], expired_ms: int) -> int:
    """Delete segments whose last answer was given before `expired_ms`, and those that a merged one has replaced.

    Returns how many were deleted.
    """
    now_s = time.time()
    gone: set[str] = set()
    for segment in segments:
        if segment.last_ms < expired_ms:
            gone.add(segment.path.name)
        elif segment.replaces and _age_s(segment.path, now_s) > REPLACED_STAY_S:
            gone.update(segment.replaces)
    present = gone.intersection(segment_names(folder))
    for name in present:
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob(f".*{SUFFIX}.*.tmp"):
        if _age_s(path, now_s) > _TEMPORARY_STAY_S:
            path.unlink(missing_ok=True)
    return len(present)


def _write_index(
    file: IO[bytes], hashes: "NDArray[np.uint64]", offsets: "NDArray[np.uint64]", replaces: Sequence[str],
    first_ms: int, last_ms: int,
) -> None:  # fmt: skip
    import numpy as np

    file.write(b"\n" * (-file.tell() % 8))
    hashes_at = file.tell()
    order = np.argsort(hashes, kind="stable")  # of one key, the older record stays first
    names = json.dumps(list(replaces)).encode()
    file.write(hashes[order].tobytes())
    file.write(offsets[order].tobytes())
    file.write(names)
    file.write(FOOTER.pack(MAGIC, len(hashes), hashes_at, len(names), first_ms, last_ms))


def _new_name(order: int) -> str:
    """Names sort in the order in which they were written: of two reports about one item the later counts.

    order: as a rule the time of the last answer in ms.
    """
    return f"{order:013d}-{secrets.token_hex(8)}{SUFFIX}"


def _order_of(name: str) -> int:
    order = name.partition("-")[0]
    return int(order) if order.isdecimal() else 0


def _num_records(segments: Sequence[Segment]) -> int:
    return sum(len(segment) for segment in segments)


def _may_merge(segments: Sequence[Segment], longest_span_ms: int) -> bool:
    total, largest = _num_records(segments), max(len(segment) for segment in segments)
    span_ms = max(each.last_ms for each in segments) - min(each.first_ms for each in segments)
    return 2 * largest <= total <= LARGEST_SEGMENT and span_ms <= longest_span_ms


def _age_s(path: Path, now_s: float) -> float:
    try:
        return now_s - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
