"""Pages of the list of jobs, newest first, by keyset: by the time in a job's id, then by the rest of the id.

A job that is submitted or removed between two pages moves no other job to another page. The names of all jobs are kept
in memory and read again only when the folder of jobs has changed; of a page's jobs alone, the folders are opened.
"""

import os
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from orchestrator.contract.errors import MessageError, NotFoundError, UsageError
from orchestrator.contract.jobs.job_folder import active_jobs
from orchestrator.contract.jobs.requests import Kind
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.messages import JOB_ID
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import Settings
from orchestrator.jobs.follow import read_record, to_json

# A folder may change again within one tick of its file system's clock: names that were read so soon after a change are
# read again. SMB and FAT tick every two seconds.
_TICK_S = 4.0


@dataclass(frozen=True)
class JobQuery:
    """Which jobs a page has: up to `limit`, those before the job `cursor`, of a kind, or only those not ended."""

    limit: int
    cursor: str | None = None
    kind: Kind | None = None
    active: bool = False


@dataclass(frozen=True)
class JobsPage:
    """Jobs as `to_json` has them.

    unreadable: id and error of jobs whose folder cannot be read. cursor: of the next page; None: this is the last one.
    server_away: the jobs are as the disk has them.
    """

    jobs: list[dict[str, Any]]
    unreadable: list[tuple[str, str]]
    cursor: str | None
    server_away: bool


class JobIndex:
    """The ids of all jobs in the order of their creation. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._keys: list[str] = []
        self._changed_ns = -1  # when the folder had changed last, where that was long before it was read

    def page(self, ledger: Ledger | None, query: JobQuery) -> JobsPage:
        """Raises UsageError where the cursor is not a job's id."""
        keys = sorted(map(_key, active_jobs(self._settings))) if query.active else self._all()
        end = len(keys) if query.cursor is None else bisect_left(keys, _key(_checked(query.cursor)))
        chosen: list[str] = []
        while end > 0 and len(chosen) < query.limit:
            end -= 1
            if query.kind is None or keys[end][-1] == query.kind[0]:
                chosen.append(_id(keys[end]))
        return self._read(ledger, chosen, chosen[-1] if end > 0 and chosen else None)

    def _all(self) -> list[str]:
        """The keys of all jobs, oldest first. Callers must not change the list."""
        with self._lock:
            try:
                changed_ns = self._settings.jobs.stat().st_mtime_ns
            except FileNotFoundError:
                return []
            if changed_ns != self._changed_ns:
                now_ns = time.time_ns()
                self._keys = sorted(_key(name) for name in os.listdir(self._settings.jobs) if JOB_ID.fullmatch(name))
                self._changed_ns = changed_ns if changed_ns < now_ns - _TICK_S * 1e9 else -1
            return self._keys

    def _read(self, ledger: Ledger | None, jobs: list[str], cursor: str | None) -> JobsPage:
        page = JobsPage([], [], cursor, ledger is None)
        for job in jobs:
            try:
                page.jobs.append(to_json(self._settings, read_record(self._settings, ledger, job), ledger))
            except NotFoundError:
                continue  # its submission is in progress, or has failed, or it was removed
            except SERVER_ERRORS:
                return self._read(None, jobs, cursor)
            except MessageError as err:
                page.unreadable.append((job, str(err)))
        return page


def _key(job: str) -> str:
    """What orders ids: the time and the random part, then the kind."""
    return job[1:] + job[0]


def _id(key: str) -> str:
    return key[-1] + key[:-1]


def _checked(cursor: str) -> str:
    if not JOB_ID.fullmatch(cursor):
        raise UsageError(f"cursor {cursor!r} is not the one of a page")
    return cursor
