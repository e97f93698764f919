"""A short run of `python -m benchmarks.fleet`, and what the stubs of `python -m benchmarks.ten_million` do."""

import pytest

from benchmarks import stub_worker
from benchmarks.fleet import Size, is_good, longest_wait, measure, shares
from benchmarks.ten_million import image_path
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.contract.ledger.turns import Turn
from tests.support.fakes import FakeFinalizeLease, FakeModelCache, enter_job, make_job
from workers.classify.read import ImageReader
from workers.classify.slice import classify_slice
from workers.finalize.publish import publish_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.mark.usefixtures("_server_program")
def test_every_job_of_a_simulated_fleet_ends_and_each_shard_is_done_once(tmp_path):
    figures = measure(tmp_path, Size(num_workers=12, num_jobs=40, num_shards=240, shard_s=0.01))

    assert (figures["errors"], figures["jobs_ended"]) == ([], 40)
    assert figures["scripts"]["commit"]["calls"] == 240
    assert figures["sweep_alone"]["calls"] == 1  # for the needs of all 40 jobs
    assert figures["most_doorbells"] <= 2 * 12


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"errors": ["a worker's"]}, False),
        ({"jobs_ended": 39}, False),
        ({"longest_wait": {"rounds": 3.1}}, False),
    ],
)
def test_a_fleet_is_good_if_all_jobs_ended_and_none_was_starved(changes, good):
    figures = {"errors": [], "jobs_ended": 40, "longest_wait": {"rounds": 2.9}}

    assert is_good(figures | changes, Size(num_workers=12, num_jobs=40, num_shards=240, shard_s=0.01)) is good


def test_shares_are_counted_until_the_first_job_has_no_work_left():
    commits = [(0.0, "a"), (1.0, "b"), (2.0, "a"), (3.0, "c"), (4.0, "a"), (5.0, "c")]

    found = shares(commits, {"a": "high", "b": "normal", "c": "normal"}, 3)

    assert found == {
        "shards": 5,
        "high": {"mean": 3, "least": 3, "most": 3},
        "normal": {"mean": 1, "least": 1, "most": 1},
    }
    assert longest_wait(commits, "abc") == 3


def test_images_that_are_not_there_are_answered_by_their_number(context, ledger, settings, tmp_path, monkeypatch):
    paths = [image_path(number) for number in range(600)]
    context.models = FakeModelCache(stub_worker.StubClassifier())
    monkeypatch.setattr(ImageReader, "read_state", stub_worker.read_state)
    folder = make_job(settings, paths, root=tmp_path, output=tmp_path / "out.csv", shard_size=256, top_k=3)
    enter_job(folder, ledger)

    classify_slice(folder.job, context, Turn(folder.job, seconds=600.0))

    publish_manifest(folder, folder.request(), None, FakeFinalizeLease())
    rows = list(FORMATS["csv"].read(tmp_path / "out.csv"))
    assert [(row.path, row.prediction) for row in rows] == [(path, stub_worker.answer_of(path, 3)) for path in paths]
