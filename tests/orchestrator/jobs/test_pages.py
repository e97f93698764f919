"""Pages of jobs over folders on the disk, without a server."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import Kind, TrainJobRequest
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.settings import Settings
from orchestrator.jobs.pages import JobIndex, JobQuery
from tests.support.opened import count_opened


def add_job(settings: Settings, job: str) -> JobFolder:
    request = TrainJobRequest(
        job=job, created=datetime.now(UTC), source="photos", name="birds", train={"architecture": "cnn"}
    )
    return JobFolder.create(settings, request)


def job_id(second: int, kind: str = "t", rest: str = "000000") -> str:
    return f"{kind}261129-10{second // 60:02d}{second % 60:02d}-{rest}"


def all_ids(index: JobIndex, limit: int, *, kind: Kind | None = None) -> list[list[str]]:
    pages, cursor = [], None
    while True:
        page = index.page(None, JobQuery(limit, cursor, kind))
        pages.append([facts["job"] for facts in page.jobs])
        if (cursor := page.cursor) is None:
            return pages


def test_every_job_is_on_one_page_newest_first(settings: Settings):
    jobs = [job_id(second) for second in range(7)]
    for job in jobs:
        add_job(settings, job)

    assert all_ids(JobIndex(settings), 3) == [jobs[6:3:-1], jobs[3:0:-1], jobs[:1]]
    assert all_ids(JobIndex(settings), 7) == [jobs[::-1]]


def test_jobs_of_the_same_second_are_ordered_by_the_rest_of_their_id(settings: Settings):
    jobs = [job_id(1, "t", "00000a"), job_id(1, "c", "00000b"), job_id(1, "e", "00000b"), job_id(1, "c", "00000c")]
    for job in jobs[::-1]:
        add_job(settings, job)

    assert all_ids(JobIndex(settings), 1) == [[job] for job in jobs[::-1]]


def test_a_job_that_comes_or_goes_between_two_pages_moves_no_other(settings: Settings):
    jobs = [job_id(second) for second in range(4)]
    for job in jobs:
        add_job(settings, job)
    index = JobIndex(settings)
    first = index.page(None, JobQuery(2))

    add_job(settings, job_id(9))
    JobFolder(settings, jobs[2]).discard()  # the one that the cursor names
    second = index.page(None, JobQuery(2, first.cursor))

    assert [facts["job"] for facts in first.jobs + second.jobs] == jobs[::-1]


def test_a_page_of_one_kind_and_a_page_of_what_has_not_ended(settings: Settings):
    for second in range(4):
        add_job(settings, job_id(second, "te"[second % 2]))
    JobFolder(settings, job_id(1, "e")).activate()
    index = JobIndex(settings)

    assert all_ids(index, 5, kind="evaluate") == [[job_id(3, "e"), job_id(1, "e")]]
    assert all_ids(index, 5, kind="classify") == [[]]
    assert [facts["job"] for facts in index.page(None, JobQuery(5, active=True)).jobs] == [job_id(1, "e")]


def test_of_many_jobs_only_those_of_the_page_are_opened_and_their_names_are_read_once(settings: Settings):
    settings.jobs.mkdir(parents=True)
    for second in range(3000):
        (settings.jobs / job_id(second)).mkdir()
    add_job(settings, job_id(3100))
    os.utime(settings.jobs, (1_000_000_000, 1_000_000_000))  # unchanged for long
    index = JobIndex(settings)
    index.page(None, JobQuery(10))

    with count_opened() as opened:
        page = index.page(None, JobQuery(10))

    assert [facts["job"] for facts in page.jobs] == [job_id(3100)]
    assert page.cursor is not None
    assert {Path(path).parent.name for path in opened} == {job_id(3100)}


def test_a_new_job_is_seen_also_within_a_tick_of_the_file_systems_clock(settings: Settings):
    add_job(settings, job_id(1))
    index = JobIndex(settings)
    before = settings.jobs.stat()
    index.page(None, JobQuery(5))

    add_job(settings, job_id(2))
    os.utime(settings.jobs, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a coarse clock has it

    assert all_ids(index, 5) == [[job_id(2), job_id(1)]]


def test_a_folder_that_cannot_be_read_is_named_beside_the_others(settings: Settings):
    add_job(settings, job_id(1))
    add_job(settings, job_id(2)).request_file.write_text("{}")

    page = JobIndex(settings).page(None, JobQuery(5))

    assert [facts["job"] for facts in page.jobs] == [job_id(1)]
    assert [job for job, _ in page.unreadable] == [job_id(2)]


def test_without_a_server_the_jobs_are_shown_as_the_disk_has_them(settings: Settings):
    add_job(settings, job_id(1))
    nobody = Ledger(redis.Redis.from_url("unix:///nowhere/s.sock"))

    page = JobIndex(settings).page(nobody, JobQuery(5))

    assert (page.server_away, [facts["state"] for facts in page.jobs]) == (True, ["unknown"])


def test_a_home_without_jobs_has_an_empty_page(settings: Settings):
    assert all_ids(JobIndex(settings), 5) == [[]]


def test_a_cursor_is_a_jobs_id(settings: Settings):
    with pytest.raises(UsageError, match="is not the one of a page"):
        JobIndex(settings).page(None, JobQuery(5, "../../etc"))
