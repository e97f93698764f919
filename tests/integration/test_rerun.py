"""A job that is run again, and compared with its manifest."""

import json
from itertools import count
from pathlib import Path

import pytest

from orchestrator.contract.errors import IntegrityError, NotFoundError, UsageError
from orchestrator.contract.jobs.end import conclude, make_outcome
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.jobs.rerun import ManifestComparison, compare, prepare_rerun
from tests.support.fakes import enter_job, make_images, make_job, predict_brightness
from tests.support.published_models import make_pngs
from tests.support.workers import Cluster
from workers.classify.slice import classify_slice
from workers.finalize.finalize import end_job

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def classified(cluster: Cluster, folder: Path, num_images: int = 30) -> tuple[str, Path]:
    """A job that has ended, and its manifest."""
    make_pngs(folder / "in", num_images)
    output = folder / "out.csv"
    job = cluster.submit("classify", str(folder / "in"), "--model", "digits", "-o", str(output))
    assert cluster.outcome(job).state == "succeeded"
    return job, output


def test_a_rerun_is_identical_and_leaves_nothing_and_one_of_changed_images_says_which(
    running_cluster: Cluster, tmp_path: Path
):
    job, output = classified(running_cluster, tmp_path)
    before, jobs = output.read_bytes(), set(running_cluster.jobs())

    same = running_cluster.run("jobs", "rerun", job)

    assert (same.returncode, same.stdout) == (0, "identical: 30 rows, to the byte\n"), same.stderr
    assert set(running_cluster.jobs()) == jobs
    assert not any("-" in name for name in (path.name for path in running_cluster.settings.active.iterdir()))

    image = tmp_path / "in" / "00000" / "00000007.png"
    image.unlink()  # a hard link
    image.write_bytes(b"no image")
    detached = json.loads(running_cluster.run_ok("jobs", "rerun", job, "--detach", "--json"))["job"]
    found = running_cluster.run("jobs", "rerun", detached, "--json")

    facts = json.loads(found.stdout)
    assert (found.returncode, facts["identical"], facts["num_different"]) == (1, False, 1)
    assert (facts["job"], facts["rerun"], facts["first_different"]) == (job, detached, ["00000/00000007.png"])
    assert facts["reasons"] == [
        "images were changed since: 1 have another size, time or digest, or cannot be read any more"
    ]
    assert output.read_bytes() == before


@pytest.fixture
def make(settings, ledger, context, tmp_path):
    """Makes jobs of three images that have ended, in folders `in` and `out-0.csv`, `out-1.csv`, ..."""
    numbers, paths = count(), make_images(tmp_path / "in", [0, 100, 200])

    def make(**changes):
        output = tmp_path / f"out-{next(numbers)}.csv"
        folder = make_job(settings, paths, root=tmp_path / "in", output=output, **changes)
        enter_job(folder, ledger)
        classify_slice(folder.job, context)
        end_job(folder.job, context)
        return folder

    return make


def output_of(folder: JobFolder) -> Path:
    return Path(folder.request().output)


def change_summary(folder: JobFolder, **changes: object) -> None:
    path = summary_path(output_of(folder))
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_manifests_of_another_processor_and_engine_may_be_the_same(make, settings):
    first, second = make(), make()
    [made_with] = json.loads(summary_path(output_of(second)).read_bytes())["made_with"]
    assert "pigeonhole " in made_with
    change_summary(first, made_with=["a Z80; pigeonhole 0.0.1"], engines=[])

    found = compare(settings, first.job, second.job)

    reasons = [
        f"another processor or versions: a Z80; pigeonhole 0.0.1; now {made_with}",
        "another engine: unknown; now fake",
    ]
    assert found == ManifestComparison(first.job, second.job, True, 3, 0, [], reasons)


def test_rows_that_differ_are_counted_and_the_first_are_named(make, settings, context):
    first = make()
    context.models.classifier.calibration = None
    context.models.classifier.predict = lambda images, top_k: [predict_brightness(17) for _ in images]

    found = compare(settings, first.job, make().job)

    assert (found.identical, found.num_different, found.first_different) == (
        False,
        3,
        ["000.png", "001.png", "002.png"],
    )
    assert found.reasons == []


def test_what_else_may_differ_is_said(make, settings):
    first, second = make(), make()
    change_summary(first, repeats={"too_slow_by_clock": 2, "byte_identical": False}, attempts=[{}, {}])
    sidecar_path(output_of(second)).unlink()

    assert compare(settings, first.job, second.job).reasons == [
        "whether images were changed is unknown: a sidecar is missing",
        "then, the clock stopped 2 images, which a faster machine may decode",
        "the manifest was merged from several jobs: its images were in other batches",
    ]


def test_what_cannot_be_run_again_is_refused_with_the_reason(make, settings, ledger, tmp_path):
    folder, running = make(), make_job(settings, ["a.png"], root=tmp_path, output=tmp_path / "new.csv")
    cancelled = make_job(settings, ["a.png"], root=tmp_path, output=tmp_path / "new.csv")
    conclude(cancelled, make_outcome("cancelled", None, run=0), RecoveringLedger(ledger, settings))

    def refuses(job: str, error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words):
            prepare_rerun(settings, job, need_worker=False)

    refuses("c261123-143355-7f3a2b", NotFoundError, "there is no job")
    refuses(running.job, UsageError, "has not ended; `pigeonhole wait")
    refuses(cancelled.job, UsageError, "is cancelled and has no manifest; `pigeonhole jobs resume")
    refuses(folder.job, NotFoundError, "fake")
    (tmp_path / "in").rename(tmp_path / "away")
    refuses(folder.job, NotFoundError, "is not there; mount it, or put it back")
    data = output_of(folder).read_bytes()
    output_of(folder).write_bytes(data.replace(b"ok", b"OK", 1))
    refuses(folder.job, IntegrityError, "was changed since")
