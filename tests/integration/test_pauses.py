"""Pauses that an operator asks for: between batches, at no cost, and kept whatever the server forgets."""

import json
from itertools import count
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestrator.contract.errors import NotFoundError
from orchestrator.contract.jobs.end import conclude, make_outcome
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.contract.jobs.restore import restore_job
from orchestrator.jobs.pauses import pause, unpause
from orchestrator.jobs.submit import JobClient
from tests.support.fakes import FakeClassifier, FakeModelCache, enter_job, make_images, make_job
from tests.support.invoke import invoke
from tests.support.server import wait_until
from workers.classify.slice import classify_slice
from workers.context import WorkerContext
from workers.finalize.finalize import end_job

pytestmark = pytest.mark.integration

UNKNOWN = "c261123-143355-7f3a2b"


@pytest.fixture
def client(settings, server, bells):
    client = JobClient(settings.model_copy(update={"server_url": SecretStr(server.url)}))
    client.ring = bells
    yield client
    client.ledger.client.close()


@pytest.fixture
def make(settings, ledger, tmp_path):
    """Makes jobs of six images in three shards."""
    numbers = count()

    def make():
        paths = make_images(tmp_path / "in", [0, 50, 100, 150, 200, 250])
        output = tmp_path / f"out-{next(numbers)}.csv"
        folder = make_job(settings, paths, root=tmp_path / "in", output=output, shard_size=2)
        enter_job(folder, ledger)
        return folder

    return make


@pytest.fixture
def command(settings, server, monkeypatch):
    """Runs `pigeonhole jobs ...`."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(settings.home))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", server.url)
    return lambda *arguments: invoke("jobs", *arguments)


def test_a_pause_takes_effect_between_batches_and_costs_no_attempt(make, settings, ledger, bells, client, server):
    folder, undisturbed = make(), make()
    classifier = FakeClassifier()
    context = WorkerContext(settings, ledger, FakeModelCache(classifier), "w1", "cpu", bells)
    heard, renew = [], ledger.renew

    def listen(*args):
        answer = renew(*args)
        heard.append(answer[0])
        return answer

    def pause_now(brightness):
        classifier.before = lambda brightness: None
        pause(client, folder.job, "until tonight")
        wait_until(lambda: heard[-2:] == ["paused"] * 2, what="the slice has heard of it")

    ledger.renew = listen
    classifier.before = pause_now

    classify_slice(folder.job, context)

    record = ledger.record(folder.job)
    assert (record.state, record.shards_done, bells.rung) == ("paused", 0, [])
    assert record.paused_reason.endswith(": until tonight")
    assert [ledger.client.exists(f"{{pigeonhole}}:job:{folder.job}:{key}") for key in ("leases", "attempts")] == [0, 0]

    server.empty()
    restore_job(folder, ledger)
    assert ledger.record(folder.job).paused_reason == record.paused_reason
    assert ledger.claim(folder.job, "w1", 60) == "paused"

    assert unpause(client, folder.job) == "running"
    assert bells.rung == [("classify", folder.job)]
    for each in (folder, undisturbed):
        if each is undisturbed:
            restore_job(each, ledger)
        classify_slice(each.job, context)
        end_job(each.job, context)
    manifests = [Path(each.request().output).read_bytes() for each in (folder, undisturbed)]
    assert manifests[0] == manifests[1]


def test_a_job_is_paused_while_its_images_are_listed(make, ledger, client):
    folder = make()
    ledger.client.hset(f"{{pigeonhole}}:job:{folder.job}", "listed", 0)

    assert pause(client, folder.job) == "paused"
    assert ledger.extend(folder.job, 5, 10, listed=True) == "paused"
    assert unpause(client, folder.job) == "queued"
    assert ledger.record(folder.job).num_shards == 5


def test_a_job_that_waits_for_its_source_too_goes_on_when_both_are_over(make, ledger, settings, client, bells):
    folder = make()
    RecoveringLedger(ledger, settings).pause(folder.job, "away", by="storage", worker="w1", workers=["w1"])
    pause(client, folder.job)

    assert unpause(client, folder.job) == "paused"
    assert (ledger.record(folder.job).paused_reason, bells.rung) == ("away", [])
    assert ledger.unpause(folder.job, by="storage") == "queued"


def test_a_job_that_is_about_to_end_is_not_paused_later(make, ledger, client):
    folder = make()
    ledger.cancel(folder.job)

    assert (pause(client, folder.job), folder.pause("operator")) == ("cancelling", None)


def test_commands_pause_several_jobs_and_say_who_and_why(make, command, ledger):
    jobs = [make().job, make().job]

    paused = command("pause", *jobs, "--reason", "until\ntonight", "--json")

    assert json.loads(paused.stdout) == [{"job": job, "state": "paused"} for job in jobs]
    listed = command()
    for job in jobs:
        reason = ledger.record(job).paused_reason
        assert "@" in reason
        assert reason.endswith(": until tonight")
        assert f"{job} is paused: {reason}" in listed.stderr
    assert command("unpause", *jobs).stderr.splitlines() == [f"job {job} goes on" for job in jobs]


def test_a_reason_need_not_be_utf8(make, command, ledger):
    job = make().job

    assert command("pause", job, "--reason", "bis sp\udce4ter").exit_code == 0
    assert ledger.record(job).paused_reason.endswith(": bis sp\\xe4ter")


def test_a_job_that_never_was_pauses_no_other(make, command, ledger):
    job = make().job

    refused = command("pause", job, UNKNOWN)

    assert (refused.exit_code, f"there is no job {UNKNOWN}" in refused.stderr) == (NotFoundError.exit_code, True)
    assert ledger.record(job).state == "queued"


@pytest.mark.parametrize("name", ["pause", "unpause"])
def test_a_job_that_ends_or_has_ended_is_left_with_a_message(make, command, ledger, settings, name):
    ended, ending = make(), make()
    recovering = RecoveringLedger(ledger, settings)
    conclude(ended, make_outcome("cancelled", ledger.record(ended.job), run=0), recovering)
    ledger.cancel(ending.job)

    done = command(name, ended.job, ending.job)

    assert (done.exit_code, done.stderr.splitlines()) == (
        1,
        [
            f"job {ended.job} has ended: cancelled; there is nothing to {name}",
            f"job {ending.job} is cancelling: too late to {name}",
        ],
    )
