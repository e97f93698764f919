from datetime import UTC, datetime

import pytest

from orchestrator.contract.errors import MessageError, NotFoundError
from orchestrator.contract.jobs.end import remove_temporaries
from orchestrator.contract.jobs.job_folder import (
    JobFolder,
    Outcome,
    Receipt,
    Resume,
    active_jobs,
    all_jobs,
    new_job_id,
)
from orchestrator.contract.jobs.requests import MaxFailures
from orchestrator.contract.messages import JOB_ID
from tests.support.fakes import make_job

ENDED = datetime(2026, 11, 23, 14, 33, 55, tzinfo=UTC)


@pytest.fixture
def folder(settings, tmp_path):
    return make_job(settings, ["a.jpg"], root=tmp_path, output=tmp_path / "out.csv")


@pytest.mark.parametrize(("kind", "letter"), [("classify", "c"), ("train", "t"), ("evaluate", "e")])
def test_a_new_id_has_the_kind_and_is_unique(kind, letter):
    ids = {new_job_id(kind) for _ in range(50)}

    assert len(ids) == 50
    assert all(JOB_ID.fullmatch(job) and job.startswith(letter) for job in ids)


def test_a_job_comes_back_from_its_folder(folder, settings):
    again = JobFolder.open(settings, folder.job)

    assert again.request() == folder.request()
    assert (again.outcome(), again.cancel_requested()) == (None, False)


@pytest.mark.parametrize("job", ["../escape", "", "c1", "/etc", "c261123-143355-7f3a2b/../x"])
def test_what_is_no_job_id_never_becomes_a_path(job, settings):
    with pytest.raises(NotFoundError, match="is not a job id; `pigeonhole jobs` lists them"):
        JobFolder.open(settings, job)


def test_a_job_that_does_not_exist_is_an_error(settings):
    with pytest.raises(NotFoundError, match=r"there is no job c261123-143355-7f3a2b in .*/home/jobs"):
        JobFolder.open(settings, "c261123-143355-7f3a2b")


def test_a_cancel_is_recorded(folder, settings):
    folder.request_cancel()
    folder.request_cancel()

    assert JobFolder.open(settings, folder.job).cancel_requested()


def test_the_first_outcome_stays(folder, settings):
    first = Outcome(state="succeeded", ended=ENDED, num_images=1, num_done=1, result="/out.csv")

    answers = [folder.write_outcome(first), folder.write_outcome(Outcome(state="failed", ended=ENDED, error="late"))]

    assert answers == [first, first]
    assert JobFolder.open(settings, folder.job).outcome() == first
    assert list(folder.path.glob(".*")) == []


def test_an_outcome_of_another_version_is_refused(folder):
    (folder.path / "outcome.json").write_text('{"version": 9}')

    with pytest.raises(MessageError, match=r"outcome\.json has version 9"):
        folder.outcome()


def test_a_job_is_active_from_its_entry_to_its_end(folder, settings):
    before = active_jobs(settings)
    folder.activate()
    during = active_jobs(settings)
    folder.retire()
    folder.retire()

    assert (before, during, active_jobs(settings)) == ([], [folder.job], [])


@pytest.mark.parametrize("keep_checkpoints", [False, True])
def test_an_ended_training_keeps_its_curves_and_its_checkpoints_only_for_a_resume(folder, keep_checkpoints):
    kept = ["model/model.json", "training/curves.png", "training/history.csv", "training/tensorboard/events.1"]
    left = ["model.3/model.json", "evaluation.12/evaluation.json", "training/fit.1.9.checkpoint.damaged"]
    (kept if keep_checkpoints else left).extend(["training/fit.1.9.checkpoint", "training/weights"])
    left += [".outcome.json.1.tmp", "parts/.0.csv.2.tmp", "training/.fit.1.9.checkpoint.7.tmp"]
    left += ["model.3.test-x/1/model.json", ".engines/0123/network.onnx"]
    before = set(folder.path.rglob("*"))
    for name in (*kept, *left):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).touch()

    remove_temporaries(folder, keep_checkpoints=keep_checkpoints)
    remove_temporaries(folder, keep_checkpoints=keep_checkpoints)

    added = {path.relative_to(folder.path).as_posix() for path in set(folder.path.rglob("*")) - before}
    assert added == {*kept, "model", "training", "training/tensorboard"}


def test_lists_are_by_time_and_pass_over_what_is_no_job(settings):
    jobs = ["t261123-000001-aaaaaa", "c261123-000002-aaaaaa", "t261124-000000-aaaaaa"]
    for name in [*reversed(jobs), "notes.txt", ".DS_Store"]:
        (settings.jobs / name).mkdir(parents=True)
        (settings.active / name).mkdir(parents=True)

    assert active_jobs(settings) == jobs
    assert all_jobs(settings) == jobs[::-1]


def test_before_the_first_job_there_are_none(settings):
    assert (active_jobs(settings), all_jobs(settings)) == ([], [])


def test_a_job_that_never_became_one_leaves_nothing(folder, settings):
    folder.discard()

    assert list(settings.jobs.iterdir()) == []


@pytest.mark.parametrize(
    ("max_failures", "num_images", "limit"),
    [
        (MaxFailures(count=3), None, 3),
        (MaxFailures(count=3), 10, 3),
        (MaxFailures(count=0), 10, 0),
        (MaxFailures(share=0.5), None, None),
        (MaxFailures(share=0.5), 5, 2),
        (MaxFailures(share=0.0), 5, 0),
        (None, 5, None),
    ],
)
def test_a_failure_limit_is_a_count_or_a_share_of_a_known_number(folder, max_failures, num_images, limit):
    request = folder.request().model_copy(update={"max_failures": max_failures})

    assert folder.failure_limit(request, num_images) == limit


def resume(folder, run, **changes):
    return folder.begin_run(Resume(run=run, at=ENDED, by="ada@office", **changes))


def test_a_resume_begins_another_run_once_and_the_end_of_the_one_before_stays(folder, settings):
    first = folder.write_outcome(Outcome(state="cancelled", ended=ENDED))
    folder.request_cancel()
    before = (folder.run, folder.outcome(), folder.cancel_requested())

    begun = [resume(folder, 1), resume(folder, 1)]
    late = folder.write_outcome(Outcome(state="failed", ended=ENDED, error="a worker that was slow"))
    again = JobFolder.open(settings, folder.job)

    assert (before, begun, late) == ((0, first, True), [True, False], first)
    assert (again.run, again.outcome(), again.cancel_requested()) == (1, None, False)
    assert (again.outcome_of(0), [each.by for each in again.resumes()]) == (first, ["ada@office"])


def test_a_resume_that_lists_again_has_a_listing_and_parts_of_its_own(folder, settings):
    resume(folder, 1)
    kept = JobFolder.open(settings, folder.job)
    resume(folder, 2, work="run.2")
    resume(folder, 3)
    again = JobFolder.open(settings, folder.job)

    assert (kept.work, kept.parts) == (folder.path, folder.path / "parts")
    assert (again.work, again.parts) == (folder.path / "run.2", folder.path / "run.2" / "parts")
    assert folder.parts == folder.path / "parts"


def test_the_last_resume_that_names_a_limit_of_failures_counts(folder, settings):
    request = folder.request().model_copy(update={"max_failures": MaxFailures(count=1)})
    resume(folder, 1, max_failures=MaxFailures(count=7))
    resume(folder, 2)

    assert JobFolder.open(settings, folder.job).failure_limit(request, None) == 7


def test_the_webhook_of_a_run_that_was_resumed_does_not_count_as_that_of_the_next(folder, settings):
    folder.note_undelivered()
    resume(folder, 1)
    again = JobFolder.open(settings, folder.job)
    again.note_undelivered()

    folder.end_delivery(Receipt(state="delivered", at=ENDED, attempts=1))

    assert (again.receipt(), again.is_undelivered()) == (None, True)
    assert (folder.is_last_run(), again.is_last_run()) == (False, True)
