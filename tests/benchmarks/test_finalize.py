"""A short run of `python -m benchmarks.finalize`, in this process."""

import pytest

from benchmarks.finalize import FAILED_EVERY, Case, publish
from benchmarks.spent import in_process
from orchestrator.jobs.results import find_published
from orchestrator.jobs.verification import verify


@pytest.mark.parametrize("name", ["csv-7", "jsonl-64"])
def test_a_job_and_its_retry_are_published_and_agree_with_their_summaries(name, tmp_path):
    case = Case(name, tmp_path / "home", 10 * FAILED_EVERY)
    jobs = []
    for make in (Case.make, Case.make_retry):
        jobs.append(make(case))
        publish(case, jobs[-1])

    published = [find_published(case.settings, job) for job in jobs]

    assert [verify(case.settings, each).differences for each in published] == [[], []]
    assert [each.summary["counts"]["num_failed"] for each in published] == [10, 10]
    assert published[0].manifest.read_bytes() == published[1].manifest.read_bytes()
    assert published[1].summary["merge"]["num_new"] == 10


def test_a_step_is_measured_in_a_process_of_its_own():
    held = b"x" * 300_000_000  # by this process, whose memory does not count

    found, spent = in_process(divmod, 7, 2)

    assert (found, len(held)) == ((3, 1), 300_000_000)
    assert 0 < spent.rss_mb < 300
