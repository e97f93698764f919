from datetime import UTC, datetime

import pytest

from orchestrator.contract.errors import MessageError, NotFoundError
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, active_jobs, all_jobs, new_job_id
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


def test_an_ended_training_keeps_its_curves_and_loses_its_checkpoints(folder):
    kept = ["model/model.json", "training/curves.png", "training/history.csv", "training/tensorboard/events.1"]
    left = ["model.3/model.json", "evaluation.12/evaluation.json", "training/fit.checkpoint", "training/fit.damaged"]
    left += [".outcome.json.1.tmp", "parts/.0.csv.2.tmp", "training/.fit.checkpoint.7.tmp", "training/weights"]
    left += ["model.3.test-x/1/model.json", ".engines/0123/network.onnx"]
    before = set(folder.path.rglob("*"))
    for name in (*kept, *left):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).touch()

    folder.remove_temporaries()
    folder.remove_temporaries()

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
