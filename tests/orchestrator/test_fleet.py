"""Workers found by what an operator types."""

import pytest

from orchestrator.contract.errors import NotFoundError, PigeonholeError, UsageError
from orchestrator.contract.ledger.live_workers import WorkerRecord
from orchestrator.fleet import find_workers


def worker(name: str, *, age_s: float = 1.0) -> WorkerRecord:
    return WorkerRecord(name, "host", 1, "cpu", ("classify",), "idle", 0.0, 0, age_s)


FLEET = [
    worker("gpu1-cuda0-aaaaaa"),
    worker("gpu1-cuda1-bbbbbb"),
    worker("gpu2-cpu-cccccc"),
    worker("old-cpu-dddddd", age_s=43),
]


def test_a_worker_is_found_by_its_name_or_by_a_beginning_that_only_it_has():
    names = [record.worker for record in find_workers(FLEET, ["gpu1-cuda1", "gpu2", "gpu1-cuda0-aaaaaa", "gpu2-cpu"])]

    assert names == ["gpu1-cuda1-bbbbbb", "gpu2-cpu-cccccc", "gpu1-cuda0-aaaaaa"]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("gpu1", UsageError, "ambiguous: gpu1-cuda0-aaaaaa, gpu1-cuda1-bbbbbb; give more of the name"),
        ("gpu9", NotFoundError, "there are gpu1-cuda0-aaaaaa, gpu1-cuda1-bbbbbb, gpu2-cpu-cccccc"),
        ("", NotFoundError, "there is no worker ''"),
        ("old", PigeonholeError, "old-cpu-dddddd is frozen or dead: it was last seen 43 s ago"),
    ],
)
def test_a_name_that_is_of_no_worker_or_of_several_says_which_there_are(name, error, words):
    with pytest.raises(error, match=words):
        find_workers(FLEET, [name])


def test_without_any_worker_the_error_says_so():
    with pytest.raises(NotFoundError, match="no worker is alive"):
        find_workers([], ["gpu1"])
