"""The first call for a job that the server forgot restores it."""

import pytest
import redis

from orchestrator.contract.errors import NotFoundError
from orchestrator.contract.jobs.job_folder import new_job_id
from orchestrator.contract.jobs.recovering_ledger import RESTORES, Patience, RecoveringLedger
from orchestrator.contract.ledger.ledger import Claim, Ledger
from orchestrator.contract.server import connect
from tests.support.fakes import enter_job, make_job, write_fake_parts

pytestmark = pytest.mark.integration

LONG_S = 60


@pytest.fixture
def folder(settings, ledger, tmp_path):
    """A job of ten images in three shards, entered."""
    names = [f"{number}.png" for number in range(10)]
    folder = make_job(settings, names, root=tmp_path, output=tmp_path / "out.csv")
    enter_job(folder, ledger)
    return folder


@pytest.fixture
def recovering(settings, ledger):
    return RecoveringLedger(ledger, settings)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda ledger, job: ledger.claim(job, "w1", LONG_S).shard, 0),
        (lambda ledger, job: ledger.cancel(job, run=0, reason="an error"), "cancelling"),
        (lambda ledger, job: ledger.need(job, LONG_S, run=0), "claim"),
        (lambda ledger, job: ledger.take_finalize_lease(job, "w1", LONG_S), ("running", None)),
        (lambda ledger, job: ledger.extend(job, 3, 10, listed=True, run=0), "running"),
    ],
    ids=["claim", "cancel", "need", "take_finalize_lease", "extend"],
)
def test_a_call_restores_the_job_that_the_server_forgot(folder, recovering, ledger, server, call, answer):
    server.empty()

    assert call(recovering, folder.job) == answer

    record = ledger.record(folder.job)
    assert (record.num_shards, record.num_images, record.listed) == (3, 10, True)


def test_a_pause_is_kept_by_the_folder_until_who_paused_lifts_it(folder, recovering, ledger, server):
    assert recovering.pause(folder.job, "away", by="storage", worker="w1", workers=["w1", "w2"]) == "queued"
    assert folder.pause("storage") is None
    assert recovering.pause(folder.job, "away", by="storage", worker="w2", workers=["w1", "w2"]) == "paused"
    pause = folder.pause("storage")
    server.empty()

    assert (pause.by, pause.reason) == ("storage", "away")
    assert recovering.unpause(folder.job, by="operator") == "paused"
    assert recovering.unpause(folder.job, by="storage") == "running"
    assert folder.pause("storage") is None


def test_one_worker_that_does_not_see_the_source_leaves_no_pause_in_the_folder(folder, recovering):
    recovering.pause(folder.job, "until tonight", by="operator")

    recovering.pause(folder.job, "away", by="storage", worker="w1", workers=["w1", "w2"])

    assert folder.pause("storage") is None


def test_a_part_whose_commit_finds_the_job_forgotten_is_counted_once(folder, recovering, ledger, server):
    claim = ledger.claim(folder.job, "w1", LONG_S)
    write_fake_parts(folder, [claim.shard])
    server.empty()

    verdict = recovering.commit(claim, num_rows=4, num_failed=1)

    record = ledger.record(folder.job)
    assert verdict == ("already", "running")
    assert (record.shards_done, record.num_done, record.num_failed) == (1, 4, 1)


def test_a_job_that_the_server_knows_is_not_restored(folder, recovering, ledger):
    write_fake_parts(folder, [0])

    claim = recovering.claim(folder.job, "w1", LONG_S)

    assert isinstance(claim, Claim)
    assert ledger.record(folder.job).shards_done == 0


def test_a_finalizer_restores_a_job_over_what_the_ledger_has(folder, recovering, ledger):
    write_fake_parts(folder, [0])

    recovering.restore(folder.job, replace=True)

    assert ledger.record(folder.job).shards_done == 1


def test_a_job_that_is_on_no_disk_is_not_found(recovering):
    with pytest.raises(NotFoundError):
        recovering.claim(new_job_id("classify"), "w1", LONG_S)


def test_restoring_stops_if_the_server_forgets_repeatedly(folder, settings, server):
    class ForgetfulLedger(Ledger):
        claims = 0

        def claim(self, *args):
            self.claims += 1
            server.empty()
            return super().claim(*args)

    ledger = ForgetfulLedger(connect(server.url))

    assert RecoveringLedger(ledger, settings).claim(folder.job, "w1", LONG_S) == "unknown"
    assert ledger.claims == RESTORES + 1
    ledger.client.close()


def test_restoring_waits_for_a_server_that_is_away(folder, settings, server):
    class UnreliableLedger(Ledger):
        refusals = 2

        def restore(self, *args, **kwargs):
            if self.refusals:
                self.refusals -= 1
                raise redis.ConnectionError("gone")
            return super().restore(*args, **kwargs)

    ledger = UnreliableLedger(connect(server.url))
    server.empty()

    claim = RecoveringLedger(ledger, settings, Patience(LONG_S)).claim(folder.job, "w1", LONG_S)

    assert (claim.shard, ledger.refusals) == (0, 0)
    ledger.client.close()


def test_a_job_that_is_not_active_is_not_restored(folder, settings, server):
    folder.retire()
    server.empty()
    ledger = Ledger(connect(server.url))

    assert RecoveringLedger(ledger, settings).claim(folder.job, "w1", LONG_S) == "unknown"
    assert ledger.record(folder.job) is None
    ledger.client.close()


def test_a_submission_that_is_withdrawn_while_a_worker_restores_its_job_leaves_nothing_in_the_ledger(
    folder, settings, server
):
    output = folder.request().output

    class SlowLedger(Ledger):
        def restore(self, *args, **kwargs):
            folder.discard()  # as the command does, once the ledger has forgotten the job
            return super().restore(*args, **kwargs)

    ledger = SlowLedger(connect(server.url))
    server.empty()

    with pytest.raises(NotFoundError):
        RecoveringLedger(ledger, settings).claim(folder.job, "w1", LONG_S)

    assert ledger.record(folder.job) is None
    assert ledger.active() == set()
    assert ledger.owner_of_output(output) is None
    ledger.client.close()
