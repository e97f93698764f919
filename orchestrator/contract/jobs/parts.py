"""Part files: a shard's rows as the manifest will hold them, its lines of the sidecar, a trailer with their checksums.

A part appears complete or not at all, and the first one stays: a worker whose lease ran out can neither replace a
part nor leave an incomplete one.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from pydantic import Field

from modeling.durable import link_once, temporary_beside
from orchestrator.contract.errors import IntegrityError, MessageError, OtherVersionError
from orchestrator.contract.jobs.rows import FORMATS, Row
from orchestrator.contract.jobs.sidecar import AsRead, encode_lines
from orchestrator.contract.messages import Versioned
from orchestrator.contract.release import own_release

_MAX_TRAILER_BYTES = 16 << 20


class PartTrailer(Versioned):
    """The last line of a part."""

    shard: int
    num_rows: int
    num_failed: int
    labels: dict[str, int]  # rows by best label
    errors: dict[str, int]  # rows by error code
    decisions: dict[str, int] = Field(default_factory=dict)  # none without a calibration
    remarks: dict[str, int] = Field(default_factory=dict)  # rows by what the decoder remarked
    rows_bytes: int
    rows_sha256: str
    sidecar_bytes: int
    sidecar_sha256: str
    given_up: bool = False
    num_stopped: int = 0  # rows that are `too_slow` by the clock, which another machine may decode in time
    seconds: dict[str, float] = Field(default_factory=dict)  # by stage; volatile, so never in a row
    worker: str = ""
    engine: str = ""  # that answered, such as `openvino bf16`
    made_with: str = ""  # processor and versions, of which the last digits of scores may depend
    release: str = ""  # the version of Pigeonhole that made the rows


def part_path(parts: Path, shard: int) -> Path:
    return parts / f"{shard:08d}.part"


def write_part(
    parts: Path,
    shard: int,
    rows: Sequence[Row],
    as_read: Sequence[AsRead | None],
    *,
    row_format: str,
    seconds: Mapping[str, float],
    worker: str,
    engine: str,
    made_with: str = "",
    given_up: bool = False,
    num_stopped: int = 0,
) -> None:
    """Write the part of `shard` unless it exists; durable when this returns.

    as_read: size and time of each row's image; None for one that could not be read.
    seconds: by stage; `write` is added here: formatting, writing and syncing the rows, without the trailer.
    """
    started = time.perf_counter()
    data, lines = FORMATS[row_format].encode(rows), encode_lines(rows, as_read)
    errors = Counter(row.prediction.error_code for row in rows if row.prediction.error_code)
    trailer = PartTrailer(
        shard=shard,
        num_rows=len(rows),
        num_failed=sum(errors.values()),
        labels=Counter(row.prediction.labels[0] for row in rows if row.prediction.ok),
        errors=errors,
        decisions=Counter(row.prediction.decision for row in rows if row.prediction.decision),
        remarks=Counter(remark for row in rows for remark in row.prediction.remarks),
        rows_bytes=len(data),
        rows_sha256=hashlib.sha256(data).hexdigest(),
        sidecar_bytes=len(lines),
        sidecar_sha256=hashlib.sha256(lines).hexdigest(),
        given_up=given_up,
        num_stopped=num_stopped,
        worker=worker,
        engine=engine,
        made_with=made_with,
        release=own_release().version,
    )
    path = part_path(parts, shard)
    with temporary_beside(path) as temporary:
        with temporary.open("wb") as file:
            _write_through(file, b"".join((data, b"\n", lines)))
            stages = {**seconds, "write": time.perf_counter() - started}
            trailer = trailer.model_copy(update={"seconds": {name: round(value, 4) for name, value in stages.items()}})
            _write_through(file, _seal(trailer.model_dump_json().encode()))
        link_once(temporary, path)


def _write_through(file: IO[bytes], data: bytes) -> None:
    """Append to a file and wait until it is on the disk."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def read_trailer(parts: Path, shard: int) -> PartTrailer | None:
    """The trailer of a shard's part; None if there is no part.

    Raises IntegrityError if the file is not a part, or not complete, OtherVersionError if this version cannot read it.
    """
    path = part_path(parts, shard)
    try:
        with path.open("rb") as file:
            return _parse_trailer(file, path, shard)
    except FileNotFoundError:
        return None


def open_part(parts: Path, shard: int) -> tuple[IO[bytes], PartTrailer]:
    """The part of `shard`, open at its first row, and its trailer.

    The sidecar's lines begin `rows_bytes` and one line feed later. Raises IntegrityError if the part is missing, or
    not complete.
    """
    path = part_path(parts, shard)
    try:
        file = path.open("rb")
    except FileNotFoundError as err:
        raise IntegrityError(f"{path} is missing") from err
    try:
        trailer = _parse_trailer(file, path, shard)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file, trailer


def _seal(record: bytes) -> bytes:
    """A trailer's line: the trailer has the checksums of rows and sidecar, and is preceded by its own."""
    return hashlib.sha256(record).hexdigest().encode() + b" " + record


def _parse_trailer(file: IO[bytes], path: Path, shard: int) -> PartTrailer:
    """Read and verify the last line; the checksums of rows and sidecar are verified when these are read."""
    size = file.seek(0, 2)
    tail, take = b"", 4096
    while b"\n" not in tail and len(tail) < min(size, _MAX_TRAILER_BYTES):
        file.seek(max(0, size - take))
        tail, take = file.read(take), take * 4
    line = tail.rpartition(b"\n")[2]
    record = line.partition(b" ")[2]
    if line != _seal(record):
        raise IntegrityError(f"{path} has no readable trailer: its checksum is of another")
    try:
        trailer = PartTrailer.parse_json(record, what=f"the trailer of {path}")
    except OtherVersionError:
        raise  # its seal holds: it is no damage, and the part is not to be removed
    except MessageError as err:
        raise IntegrityError(f"{path} has no readable trailer: {err}") from err
    if trailer.shard != shard or trailer.rows_bytes + 1 + trailer.sidecar_bytes + len(line) != size:
        raise IntegrityError(f"{path} is not the whole part of shard {shard}")
    return trailer
