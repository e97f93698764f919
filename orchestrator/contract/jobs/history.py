"""The history of a job: who did what, and when; one event a line in `history.jsonl` of its folder.

Best effort, and bounded: nothing depends on it. An event that cannot be written is lost, so that a full disk delays
no job; and once the file is large, troubles are left out, then everything.
"""

import getpass
import json
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modeling.names import path_to_text
from orchestrator.contract.jobs.job_folder import JobFolder

logger = logging.getLogger(__name__)

MOST_BYTES = 1 << 20
MOST_TROUBLE_BYTES = 256 << 10
_MOST_TEXT = 1000  # characters of a fact
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. at: ISO 8601 in UTC. by: an operator as user@host, or a worker."""

    at: str
    by: str
    event: str
    facts: Mapping[str, Any]


def note(folder: JobFolder, event: str, *, by: str | None = None, **facts: object) -> None:
    """Append an event: `submitted`, `cancelled`, `resumed`, ...

    by: None: the user of this process. facts: what JSON can hold; None is left out.
    """
    _append(folder, event, by, facts, most_bytes=MOST_BYTES)


def note_trouble(folder: JobFolder, trouble: str, *, by: str) -> None:
    """Append what keeps the job from making progress, unless it was the last trouble already."""
    troubles = [event for event in _read(folder, last_bytes=_TAIL_BYTES) if event.event == "trouble"]
    if not troubles or troubles[-1].facts.get("text") != trouble[:_MOST_TEXT]:
        _append(folder, "trouble", by, {"text": trouble}, most_bytes=MOST_TROUBLE_BYTES)


def read_history(folder: JobFolder) -> list[Event]:
    """All events, oldest first; lines that cannot be read are left out."""
    return _read(folder, last_bytes=2 * MOST_BYTES)


def operator() -> str:
    """The user of this process, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container often has no name for its user
        user = str(os.getuid())
    return path_to_text(f"{user}@{socket.gethostname()}")  # a name in the environment need not be UTF-8


def _append(folder: JobFolder, event: str, by: str | None, facts: Mapping[str, object], *, most_bytes: int) -> None:
    head = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "by": by or operator(), "event": event}
    kept = {name: value[:_MOST_TEXT] if isinstance(value, str) else value for name, value in facts.items()}
    record = head | {name: value for name, value in kept.items() if value is not None}
    try:
        with folder.history.open("ab", buffering=0) as file:
            if file.tell() < most_bytes:
                file.write(json.dumps(record, default=str).encode() + b"\n")  # in one call: others append too
    except OSError as err:
        logger.info("job %s: %r is not in its history: %s", folder.job, event, err)


def _read(folder: JobFolder, *, last_bytes: int) -> list[Event]:
    """The events in the last bytes of the file."""
    try:
        with folder.history.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - last_bytes))
            return [event for line in file.read().splitlines() if (event := _parse(line))]
    except OSError:
        return []


def _parse(line: bytes) -> Event | None:
    """The event in a line; None where it is half a line."""
    try:
        record = json.loads(line)  # not by pydantic: half a line counts as none, and other facts are free
        facts = {name: value for name, value in record.items() if name not in ("at", "by", "event")}
        return Event(str(record["at"]), str(record["by"]), str(record["event"]), facts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
