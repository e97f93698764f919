"""What is shown of a job over HTTP is what `status --json` shows."""

from datetime import UTC, datetime

import pytest

from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import EvaluateJobRequest, TrainJobRequest
from orchestrator.contract.settings import Settings
from orchestrator.gateway.jobs.views import JobView
from orchestrator.jobs.follow import show_job
from tests.support.fakes import PIN, make_job

NOW = datetime.now(UTC)
TRAIN = {"data": "/in", "architecture": "cnn"}


@pytest.fixture
def jobs(settings: Settings, tmp_path) -> list[JobFolder]:
    """A job of each kind."""
    requests = [
        TrainJobRequest(job="t000000-000000-000000", created=NOW, source="in", name="pets", train=TRAIN),
        EvaluateJobRequest(job="e000000-000000-000000", created=NOW, source="in", model=PIN, data="/in", part="all"),
    ]
    classify = make_job(settings, ["1.png"], root=tmp_path, output=tmp_path / "out.csv")
    return [classify, *(JobFolder.create(settings, request) for request in requests)]


def test_a_view_has_every_member_of_every_kind_of_job_and_no_other(settings: Settings, jobs: list[JobFolder]):
    facts = [show_job(settings, None, folder.job)[1] for folder in jobs]

    assert [JobView.of(each).model_dump(exclude_unset=True) for each in facts] == facts
    assert set().union(*facts) == set(JobView.model_fields)
