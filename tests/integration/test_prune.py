"""What prune removes, and what it never touches."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from orchestrator.contract.jobs.end import conclude, make_outcome
from orchestrator.contract.jobs.job_folder import JobFolder, Resume, all_jobs
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.jobs import prune as prune_module
from orchestrator.jobs.prune import PruneOptions, prune
from orchestrator.jobs.rerun import compare, rerun_of
from orchestrator.jobs.results import find_published
from orchestrator.jobs.verification import verify
from tests.support.fakes import enter_job, make_images, make_job
from tests.support.invoke import invoke
from tests.support.published_models import publish_model
from workers.classify.slice import classify_slice
from workers.finalize.finalize import end_job

pytestmark = pytest.mark.integration

MONTH_S = 30 * 24 * 3600.0
MONTH = PruneOptions(MONTH_S)


@pytest.fixture
def make(settings, ledger, context, tmp_path):
    """Makes jobs in a state, which ended `days` ago; `inside`: the manifest is in the job's folder."""
    numbers = count()
    paths = make_images(tmp_path / "in", [0, 100, 200])

    def make(state="succeeded", *, days=40.0, inside=False, **changes):
        folder = make_job(
            settings, paths, root=tmp_path / "in", output=tmp_path / f"out-{next(numbers)}.csv", **changes
        )
        if inside:
            record = json.loads(folder.request_file.read_bytes())
            folder.request_file.write_text(json.dumps(record | {"output": str(folder.path / "manifest.csv")}))
        enter_job(folder, ledger)
        classify_slice(folder.job, context)
        if state == "succeeded":
            end_job(folder.job, context)
        elif state != "running":
            conclude(folder, make_outcome(state, ledger.record(folder.job), run=0), RecoveringLedger(ledger, settings))
        if state != "running":
            age(folder, days)
        return folder

    return make


def age(folder: JobFolder, days: float) -> None:
    """Let a job have ended so many days ago."""
    path = folder.path / "outcome.json"
    ended = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"ended": ended}))


def test_old_jobs_go_and_their_published_outputs_active_and_younger_jobs_stay(make, settings):
    old, failed, young, running = make(), make("failed"), make(days=3), make("running")
    resumable = make("cancelled", days=3)
    output = Path(old.request().output)
    before = output.read_bytes()

    planned = prune(settings, PruneOptions(MONTH_S, dry_run=True), set())
    still_there = all_jobs(settings)
    pruned = prune(settings, MONTH, set())

    assert pruned == planned
    assert len(still_there) == 5
    assert sorted(all_jobs(settings)) == sorted([young.job, running.job, resumable.job])
    assert (sorted(pruned.removed), pruned.resumable) == (sorted([old.job, failed.job]), [failed.job])
    assert (pruned.kept_for_resume, pruned.num_active, pruned.num_younger) == ([resumable.job], 1, 2)
    assert pruned.bytes > 0
    assert output.read_bytes() == before
    assert all(path.exists() for path in (resumable.path / "listing", resumable.parts / "00000000.part"))


def test_a_result_in_the_folder_of_its_job_stays_where_manifests_are_kept(make, settings):
    folder = make(inside=True)
    manifest = folder.path / "manifest.csv"
    before = manifest.read_bytes()

    kept = prune(settings, PruneOptions(MONTH_S, keep_manifests=True), set())
    again = prune(settings, PruneOptions(MONTH_S, keep_manifests=True), set())

    assert (kept.kept_manifests, kept.removed, again.kept_manifests, again.bytes) == ([folder.job], [], [], 0)
    assert manifest.read_bytes() == before
    assert not folder.parts.exists()
    verified = verify(settings, find_published(settings, folder.job))
    assert (verified.differences, [each for each in verified.unchecked if "listing" in each]) == (
        [],
        ["the job's listing (`pigeonhole jobs prune` has removed it)"],
    )
    assert JobFolder.open(settings, folder.job).outcome().state == "succeeded"
    assert prune(settings, MONTH, set()).removed == [folder.job]
    assert not manifest.exists()


def test_what_a_job_with_too_many_failures_found_stays_where_manifests_are_kept(make, settings):
    folder = make("failed")
    incomplete = folder.path / "manifest.csv.incomplete"
    incomplete.write_text("rows")
    record = json.loads((folder.path / "outcome.json").read_bytes())
    (folder.path / "outcome.json").write_text(json.dumps(record | {"incomplete": str(incomplete)}))

    kept = prune(settings, PruneOptions(MONTH_S, keep_manifests=True), set())

    assert (kept.kept_manifests, kept.resumable, incomplete.read_text()) == ([folder.job], [folder.job], "rows")
    assert not folder.parts.exists()


def test_a_result_stays_also_where_the_home_has_had_another_path(make, settings, tmp_path):
    folder = make(inside=True)
    link = tmp_path / "home by another name"
    link.symlink_to(settings.home)

    there = settings.model_copy(update={"home": link})
    assert prune(there, PruneOptions(MONTH_S, keep_manifests=True), set()).kept_manifests == [folder.job]

    assert (folder.path / "manifest.csv").is_file()


def test_a_chain_of_merges_keeps_none_of_its_jobs_but_where_one_publishes_into_the_folder_of_another(make, settings):
    first, retried = make(), make(inside=True)
    files = {"manifest": "/m.csv", "manifest_sha256": "0" * 64, "sidecar_sha256": "0" * 64, "replaced": True}
    bases = [{"kind": kind, "job": job, **files} for kind, job in (("since", first.job), ("retry", retried.job))]
    since = make(days=1)
    retry = make(days=1)
    for folder, base, changes in ((since, bases[0], {}), (retry, bases[1], {"output": retried.request().output})):
        record = json.loads(folder.request_file.read_bytes())
        folder.request_file.write_text(json.dumps(record | {"base": base} | changes))

    pruned = prune(settings, MONTH, set())

    assert (pruned.removed, pruned.in_use) == ([first.job], [retried.job])
    assert (retried.path / "manifest.csv").is_file()


def test_what_a_finalizer_of_a_job_that_was_resumed_in_that_moment_writes_stays(make, settings, monkeypatch, tmp_path):
    folder = make("cancelled")
    draft = tmp_path / f".{folder.job}.{2**41}.tmp"
    measure = prune_module._size

    def resumed_now(path):
        folder.begin_run(Resume(run=1, at=datetime.now(UTC), by="somebody"))
        draft.write_text("a manifest that is being written")
        return measure(path)

    monkeypatch.setattr(prune_module, "_size", resumed_now)

    assert prune(settings, MONTH, set()).removed == []
    assert draft.exists()


def test_what_cannot_be_deleted_is_named_by_every_prune_until_it_can(make, settings, monkeypatch):
    folder = make()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(prune_module.shutil, "rmtree", refuse)
        failed = [list(prune(settings, MONTH, set()).failed) for _ in range(2)]

    assert failed == [[folder.job], [f".pruned-{folder.job}"]]
    assert prune(settings, MONTH, set()).failed == {}


def test_jobs_that_others_refer_to_and_jobs_that_the_server_has_as_active_stay(make, settings):
    referred, in_ledger, undelivered = make(), make(), make()
    undelivered.note_undelivered()
    referring = make(days=1, rerun_of=referred.job)

    pruned = prune(settings, MONTH, {in_ledger.job})

    assert sorted(all_jobs(settings)) == sorted(each.job for each in (referred, in_ledger, undelivered, referring))
    assert sorted(pruned.in_use) == sorted([referred.job, undelivered.job])


def test_the_original_of_a_rerun_whose_manifest_is_kept_stays(make, settings):
    original, inside = make(), make(inside=True)
    reruns = [make(inside=True, rerun_of=each.job) for each in (original, inside)]

    pruned = prune(settings, PruneOptions(MONTH_S, keep_manifests=True), set())

    assert (pruned.removed, pruned.in_use) == ([], [original.job])
    assert sorted(pruned.kept_manifests) == sorted([inside.job, *(each.job for each in reruns)])
    assert [compare(settings, rerun_of(settings, each.job), each.job).identical for each in reruns] == [True, True]
    assert sorted(prune(settings, MONTH, set()).removed) == sorted([original.job, inside.job, *(r.job for r in reruns)])


def test_a_job_that_is_resumed_in_that_moment_gets_its_folder_back(make, settings, monkeypatch):
    folder = make("cancelled")
    rename = Path.rename

    def resumed_first(path, target):
        if path == folder.path:
            monkeypatch.setattr(Path, "rename", rename)
            folder.begin_run(Resume(run=1, at=datetime.now(UTC), by="somebody"))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", resumed_first)

    assert prune(settings, MONTH, set()).removed == []
    assert JobFolder.open(settings, folder.job).run == 1


def test_a_job_whose_manifest_is_kept_loses_nothing_where_it_is_resumed_in_that_moment(make, settings, monkeypatch):
    folder = make("failed")
    (folder.path / "manifest.csv.incomplete").write_text("rows")
    record = json.loads((folder.path / "outcome.json").read_bytes())
    incomplete = {"incomplete": str(folder.path / "manifest.csv.incomplete")}
    (folder.path / "outcome.json").write_text(json.dumps(record | incomplete))
    before = sorted(path.relative_to(folder.path) for path in folder.path.rglob("*"))
    goes_on = prune_module._goes_on

    def resumed_after_that(*arguments):
        answer = goes_on(*arguments)
        folder.begin_run(Resume(run=1, at=datetime.now(UTC), by="somebody"))
        return answer

    monkeypatch.setattr(prune_module, "_goes_on", resumed_after_that)
    pruned = prune(settings, PruneOptions(MONTH_S, keep_manifests=True), set())

    after = sorted(path.relative_to(folder.path) for path in folder.path.rglob("*"))
    assert (pruned.kept_manifests, pruned.failed) == ([], {})
    assert after == sorted([*before, Path("resume.1.json")])


def test_what_a_killed_prune_moved_aside_is_deleted_by_the_next(make, settings):
    folder = make(inside=True)
    (folder.path / ".pruned").mkdir()
    (folder.path / "listing").rename(folder.path / ".pruned" / "listing")

    pruned = prune(settings, PruneOptions(MONTH_S, keep_manifests=True), set())

    assert (pruned.kept_manifests, pruned.failed) == ([folder.job], {})
    assert not list(folder.path.glob(".pruned*"))
    assert not folder.parts.exists()


def test_a_prune_that_was_killed_is_finished_by_the_next(make, settings, monkeypatch):
    folder, resumed = make(), make("cancelled")
    resumed.begin_run(Resume(run=1, at=datetime.now(UTC), by="somebody"))

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prune_module.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(settings, MONTH, set())
    resumed.path.rename(resumed.path.with_name(f".pruned-{resumed.job}"))

    pruned = prune(settings, MONTH, set())

    assert (pruned.left_behind, all_jobs(settings)) == (1, [resumed.job])
    assert not list(settings.jobs.glob(".pruned-*"))
    assert not folder.path.exists()


def test_two_prunes_at_once_remove_each_job_once(make, settings):
    jobs = {make().job for _ in range(6)}

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: prune(settings, MONTH, set()), range(2))

    assert sorted(first.removed + second.removed) == sorted(jobs)
    assert [path.name for path in settings.jobs.iterdir()] == [".lock"]


def test_what_killed_processes_left_goes_too(make, settings, tmp_path):
    folder = make()
    beside = tmp_path / f".{folder.job}.123.tmp"
    beside.write_text("half of a manifest")
    version = publish_model(settings.models, "digits")
    copy = version.path.parent / ".publishing-abc"
    copy.mkdir()
    (copy / "model.safetensors").write_bytes(b"x" * 1000)
    never_begun = make_job(settings, ["a.png"], root=tmp_path, output=tmp_path / "never.csv")
    young = make_job(settings, ["a.png"], root=tmp_path, output=tmp_path / "now.csv")
    long_ago = time.time() - 40 * 24 * 3600
    os.utime(never_begun.path, (long_ago, long_ago))

    no_server = prune(settings, MONTH, None)
    pruned = prune(settings, MONTH, set())

    assert (no_server.removed, pruned.removed) == ([folder.job], [never_begun.job])
    assert (all_jobs(settings), no_server.left_behind, pruned.left_behind) == ([young.job], 1, 0)
    assert not beside.exists()
    assert not copy.exists()
    assert version.card().labels


def test_a_folder_that_cannot_be_read_stays_and_is_named(make, settings):
    folder, other = make(), make()
    (folder.path / "outcome.json").write_text("{}")
    (other.path / "outcome.json").unlink()
    (other.path / "outcome.json").mkdir()

    pruned = prune(settings, MONTH, set())

    assert sorted(pruned.failed) == sorted(all_jobs(settings)) == sorted([folder.job, other.job])


def test_the_command_says_what_it_did(make, settings, server, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(settings.home))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", server.url)
    make("cancelled")
    make("cancelled", days=1)

    dry = invoke("jobs", "prune", "--older-than", "30d", "--dry-run", "--json")
    done = invoke("jobs", "prune", "--older-than", "30d")

    facts = json.loads(dry.stdout)
    assert (facts["dry_run"], facts["older_than_s"], len(facts["removed"])) == (True, MONTH_S, 1)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1 job removed, ")
    assert lines[1:] == [
        "1 of these jobs could have been resumed until now",
        "1 younger jobs can still be resumed and are kept whole",
    ]
    assert invoke("jobs", "prune").exit_code == 2
    assert len(all_jobs(settings)) == 1
