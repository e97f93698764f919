"""Ending jobs against a real ledger: exactly once, also after a death between two steps."""

import json
import os
from dataclasses import replace

import pytest

from orchestrator.contract.jobs.job_folder import active_jobs
from orchestrator.contract.jobs.parts import part_path, read_trailer
from orchestrator.contract.jobs.requests import MaxFailures
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.contract.ledger.ledger import Claim, Ledger
from orchestrator.contract.server import connect
from tests.support.fakes import (
    Bells,
    dies_at_step,
    enter_job,
    make_images,
    make_job,
    write_fake_parts,
)
from tests.support.server import wait_until
from workers.classify.slice import classify_slice
from workers.context import WorkerContext
from workers.finalize.finalize import end_job

pytestmark = pytest.mark.integration

NAMES = [f"{number}.jpg" for number in range(9)]


@pytest.fixture
def outbox(tmp_path):
    """The folder that the manifest goes to."""
    folder = tmp_path / "outbox"
    folder.mkdir()
    return folder


@pytest.fixture
def make(settings, ledger, tmp_path, outbox):
    """Makes jobs of NAMES in shards of four, entered, with all shards done and committed by default."""

    def make(name="out.csv", *, done=True, **changes):
        folder = make_job(settings, NAMES, root=tmp_path / "in", output=outbox / name, **changes)
        enter_job(folder, ledger)
        if done:
            do_all(folder, ledger)
        return folder

    return make


def do_all(folder, ledger):
    write_fake_parts(folder)
    while isinstance(claim := ledger.claim(folder.job, "w1", 60), Claim):
        trailer = read_trailer(folder.parts, claim.shard)
        ledger.commit(claim, num_rows=trailer.num_rows, num_failed=trailer.num_failed)


def end(folder):
    """The outcome without its time."""
    outcome = folder.outcome()
    return outcome and outcome.model_dump(exclude={"ended", "version"}, exclude_defaults=True)


def names(folder):
    return sorted(os.listdir(folder))


def test_a_job_that_is_done_is_published_and_ends(make, context, ledger, outbox, settings):
    folder = make()

    end_job(folder.job, context)

    record = ledger.record(folder.job)
    counts = {"num_images": 9, "num_done": 9, "num_failed": 2}
    assert end(folder) == {"state": "partial", "result": str(outbox / "out.csv"), **counts}
    assert (record.state, record.num_done, record.result) == ("partial", 9, str(outbox / "out.csv"))
    assert (ledger.active(), active_jobs(settings), ledger.owner_of_output(str(outbox / "out.csv"))) == (
        set(),
        [],
        None,
    )
    assert names(outbox) == ["out.csv", "out.csv.sources", "out.csv.summary.json"]


def test_ending_twice_is_ending_once(make, context, ledger, outbox):
    folder = make()
    end_job(folder.job, context)
    before = (outbox / "out.csv").stat(), folder.outcome(), ledger.record(folder.job)

    end_job(folder.job, context)

    assert ((outbox / "out.csv").stat(), folder.outcome(), ledger.record(folder.job)) == before


def test_a_job_that_cannot_end_yet_is_left_alone(make, context, bells, outbox):
    folder = make(done=False)

    end_job(folder.job, context)

    assert (end(folder), bells.rung, names(outbox)) == (None, [], [])


def test_a_job_whose_finalize_lease_another_worker_holds_is_left_alone(make, context, ledger, outbox):
    folder = make()
    ledger.take_finalize_lease(folder.job, "w2", 60)

    end_job(folder.job, context)

    assert (end(folder), names(outbox)) == (None, [])


def test_a_job_that_the_server_forgot_is_ended_too(make, context, server, ledger):
    folder = make()
    server.empty()

    end_job(folder.job, context)

    assert end(folder)["state"] == "partial"
    assert ledger.record(folder.job).state == "partial"


def test_an_outcome_that_the_server_forgot_is_entered_again(make, context, server, ledger):
    folder = make()
    end_job(folder.job, context)
    server.empty()
    enter_job(folder, ledger)

    end_job(folder.job, context)

    assert ledger.record(folder.job).state == "partial"
    assert ledger.active() == set()


@pytest.mark.parametrize(
    "harm", [lambda part: part.unlink(), lambda part: part.write_bytes(b"?" + part.read_bytes()[1:])]
)
def test_a_part_that_is_missing_or_damaged_is_done_again(make, context, ledger, bells, outbox, harm):
    folder = make()
    harm(part_path(folder.parts, 1))

    end_job(folder.job, context)
    first = (end(folder), list(bells.rung), ledger.record(folder.job).state, ledger.record(folder.job).shards_done)
    do_all(folder, ledger)
    end_job(folder.job, context)

    assert first == (None, [("classify", folder.job)], "running", 2)
    assert end(folder)["state"] == "partial"
    assert [row.path for row in FORMATS["csv"].read(outbox / "out.csv")] == NAMES


def test_an_output_that_appeared_meanwhile_fails_the_job_and_stays(make, context, ledger, outbox):
    folder = make()
    (outbox / "out.csv").write_text("precious")

    end_job(folder.job, context)

    assert end(folder)["state"] == "failed"
    assert end(folder)["error"] == f"{outbox}/out.csv appeared while the job ran; it was left as it is"
    assert (ledger.record(folder.job).state, (outbox / "out.csv").read_text()) == ("failed", "precious")


@pytest.fixture
def second(context):
    """Another worker; both take doorbells."""
    for worker in ("w1", "w2"):
        context.ledger.live_workers.heartbeat(worker, {"queues": "classify,finalize"})
    return replace(context, worker="w2")


@pytest.mark.parametrize("limit", [None, MaxFailures(count=1)])
def test_an_output_that_one_worker_cannot_write_is_left_to_the_others(
    make, context, second, ledger, bells, outbox, limit
):
    folder = make(max_failures=limit)
    outbox.rmdir()  # is not mounted at the first worker

    end_job(folder.job, context)
    trouble = ledger.record(folder.job).trouble
    outbox.mkdir()
    end_job(folder.job, context)
    left = (end(folder), names(outbox), list(bells.rung))
    end_job(folder.job, second)

    assert trouble.startswith(f"worker w1 cannot write {outbox}/out.csv")
    assert trouble.endswith("; it is left to another")
    assert left == (None, [], [("finalize", folder.job)])
    assert (end(folder)["state"], len(names(outbox))) == ("failed" if limit else "partial", 3)


def test_an_output_that_no_worker_can_write_fails_the_job(make, context, second, outbox):
    folder = make()
    outbox.rmdir()

    end_job(folder.job, context)
    first = end(folder)
    end_job(folder.job, second)

    assert (first, end(folder)["state"]) == (None, "failed")
    assert end(folder)["error"].startswith(f"cannot write {outbox}/out.csv: No such file or directory")


def test_an_output_that_no_other_worker_has_tried_for_a_while_fails_the_job(make, context, second, ledger, outbox):
    folder = make()
    outbox.rmdir()

    end_job(folder.job, context)
    ledger.client.hset(f"{{pigeonhole}}:job:{folder.job}:avoided", "end w1", 1)  # the while is over
    end_job(folder.job, context)

    assert end(folder)["state"] == "failed"


def test_a_cancelled_job_publishes_nothing_and_keeps_its_counts(make, context, ledger, outbox):
    folder = make(done=False)
    claim = ledger.claim(folder.job, "w1", 60)
    ledger.commit(claim, num_rows=4, num_failed=1)
    ledger.cancel(folder.job)

    end_job(folder.job, context)

    assert end(folder) == {"state": "cancelled", "num_images": 9, "num_done": 4, "num_failed": 1}
    assert names(outbox) == []


def test_a_job_that_stopped_for_a_reason_fails_with_it(make, context, ledger):
    folder = make(done=False)
    ledger.cancel(folder.job, reason="the model is gone")

    end_job(folder.job, context)

    assert end(folder) == {"state": "failed", "num_images": 9, "error": "the model is gone"}


@pytest.mark.parametrize("limit", [MaxFailures(count=1), MaxFailures(share=0.2)])
def test_too_many_failures_end_the_job_without_a_manifest_and_keep_its_rows_beside_it(
    make, context, ledger, outbox, limit
):
    folder = make(max_failures=limit)

    end_job(folder.job, context)

    assert end(folder)["state"] == "failed"
    assert end(folder)["too_many_failures"]
    assert end(folder)["error"].endswith("images failed, more than the 1 allowed by --max-failures")
    assert end(folder)["incomplete"] == str(outbox / "out.csv.incomplete")
    assert names(outbox) == [f"out.csv.incomplete{suffix}" for suffix in ("", ".sources", ".summary.json")]
    assert [row.path for row in FORMATS["csv"].read(outbox / "out.csv.incomplete")] == NAMES


def test_rows_that_cannot_be_kept_cost_the_outcome_nothing(make, context, outbox):
    folder = make(max_failures=MaxFailures(count=1))
    (outbox / "out.csv.incomplete").write_text("precious")

    end_job(folder.job, context)

    assert end(folder)["too_many_failures"]
    assert end(folder)["error"].endswith(
        "what was found so far is not kept: "
        f"{outbox}/out.csv.incomplete appeared while the job ran; it was left as it is"
    )
    assert (names(outbox), (outbox / "out.csv.incomplete").read_text()) == (["out.csv.incomplete"], "precious")


def test_after_a_death_at_any_step_the_next_worker_ends_the_job(
    make, context, ledger, server, outbox, tmp_path, monkeypatch
):
    for module in ("workers.finalize.finalize", "workers.finalize.lease"):
        monkeypatch.setattr(f"{module}.FINALIZE_LEASE_S", 0.01)
    end_job(make("undisturbed.csv").job, context)
    expected = (outbox / "undisturbed.csv").read_bytes()
    step, dies = 0, True

    while dies:
        folder = make(f"{step}.csv")
        dies = dies_at_step(step, lambda folder=folder: end_by_another(folder, context, server), tmp_path)

        def ended(folder=folder):
            end_job(folder.job, context)
            return folder.outcome() is not None

        wait_until(ended, what="the job has ended")

        assert (outbox / f"{step}.csv").read_bytes() == expected
        assert end(folder)["state"] == ledger.record(folder.job).state == "partial"
        assert (ledger.active(), ledger.owner_of_output(folder.request().output)) == (set(), None)
        assert [left for left in names(outbox) if left.startswith(".")] == []
        step += 1

    assert step > 20


def end_by_another(folder, context, server):
    """Runs in a child process with its own connection."""
    other = WorkerContext(context.settings, Ledger(connect(server.url)), context.models, "w2", "cpu", Bells())
    end_job(folder.job, other)


def test_the_summary_agrees_with_manifest_listing_and_model(settings, ledger, context, bells, tmp_path, outbox):
    paths = make_images(tmp_path / "in", [0, 250, 128])
    folder = make_job(
        settings, [*paths, "gone.png"], root=tmp_path / "in", output=outbox / "out.jsonl", output_format="jsonl"
    )
    enter_job(folder, ledger)

    classify_slice(folder.job, context)
    end_job(folder.job, context)

    summary = json.loads((outbox / "out.jsonl.summary.json").read_text())
    assert bells.rung == [("finalize", folder.job)]
    assert summary["counts"] == {
        "num_images": 4,
        "num_done": 4,
        "num_failed": 1,
        "status": {"ok": 3, "error": 1},
        "decisions": {},
        "labels": {"dark": 1, "light": 2},
        "error_codes": {"missing": 1},
        "remarks": {},
    }
    timings = summary["timings"]
    assert set(timings["stage_seconds"]) == {"read", "decode", "wait", "predict", "write"}
    assert set(timings["stage_images_per_sec"]) == {"read", "decode", "predict", "write"}
    assert summary["engines"] == ["fake"]
    assert timings["bound"] in ("storage", "decode", "device", "write")
