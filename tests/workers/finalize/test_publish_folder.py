"""Publishing an evaluation's folder: complete, once, and without changing other files."""

import errno
import os
from datetime import UTC, datetime

import pytest

from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import EvaluateJobRequest
from tests.support.fakes import PIN, FakeFinalizeLease, dies_at_step
from workers.finalize.errors import PublishError, TransientDiskError
from workers.finalize.evaluation import publish_evaluation
from workers.finalize.lease import FinalizeLeaseLostError

FILES = {"evaluation.json": b"{}", "report.html": b"report", "plots/curves.png": b"png"}


@pytest.fixture
def folder(settings, outbox) -> JobFolder:
    """A job whose evaluation is done."""
    return make(settings, output=str(outbox / "result"))


def make(settings, **changes) -> JobFolder:
    folder = JobFolder.create(
        settings,
        EvaluateJobRequest(
            job="e261123-143355-7f3a2b",
            created=datetime.now(UTC),
            source="in",
            model=PIN,
            data="/in",
            part="all",
            **changes,
        ),
    )
    for name, content in FILES.items():
        path = folder.evaluation / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def publish(folder, *, fence=100, lease=None):
    return publish_evaluation(folder, folder.request(), lease or FakeFinalizeLease(fence=fence))


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_appears_with_all_its_files_for_others_to_read(folder, outbox):
    assert publish(folder) == outbox / "result"

    assert content(outbox / "result") == content(folder.evaluation) == FILES
    assert (outbox / "result").stat().st_mode & 0o777 == 0o755
    assert os.listdir(outbox) == ["result"]


def test_without_an_output_it_stays_in_the_jobs_folder(settings, outbox):
    folder = make(settings)

    assert publish(folder) == folder.evaluation
    assert content(folder.evaluation) == FILES


def test_publishing_twice_is_publishing_once(folder, outbox):
    publish(folder)

    assert publish(folder, fence=101) == outbox / "result"

    assert content(outbox / "result") == FILES
    assert os.listdir(outbox) == ["result"]


@pytest.mark.parametrize("spoil", ["other", "more", "less", "file", "link"])
def test_what_appeared_under_the_name_meanwhile_is_left_as_it_is(folder, outbox, spoil):
    result = publish(folder)
    if spoil == "other":
        (result / "plots" / "curves.png").write_bytes(b"gnp")
    elif spoil == "more":
        (result / "plots" / "mine.png").touch()
    elif spoil == "less":
        (result / "plots" / "curves.png").unlink()
    else:
        result.rename(outbox / "elsewhere")
        (outbox / "elsewhere" / "mine.txt").touch()
        result.touch() if spoil == "file" else result.symlink_to(outbox / "elsewhere")
    before = content(outbox)

    with pytest.raises(PublishError, match=r"(result|elsewhere) appeared while the job ran; it was left as it is"):
        publish(folder, fence=101)

    assert content(outbox) == before


def test_a_finalizer_without_its_lease_publishes_nothing(folder, outbox):
    with pytest.raises(FinalizeLeaseLostError):
        publish(folder, lease=FakeFinalizeLease(lost_after=0))

    assert os.listdir(outbox) == []


def test_a_finalizer_that_dies_anywhere_leaves_what_the_next_one_finishes(folder, outbox):
    step = 0
    while dies_at_step(step, lambda: publish(folder, fence=100), outbox):
        assert not (outbox / "result").exists() or content(outbox / "result") == FILES

        assert publish(folder, fence=101) == outbox / "result"

        assert content(outbox) == {f"result/{name}": data for name, data in FILES.items()}
        (outbox / "result").rename(outbox.parent / f"result-{step}")
        step += 1
    assert step > 5


def test_an_output_that_cannot_be_made_is_an_error(folder, outbox):
    outbox.rmdir()

    with pytest.raises(PublishError, match=r"cannot write .*result: No such file or directory"):
        publish(folder)


def test_a_full_disk_is_a_transient_error(folder, outbox):
    class FullDisk(FakeFinalizeLease):
        def confirm(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TransientDiskError, match=r"cannot publish .* yet: No space left"):
        publish(folder, lease=FullDisk())

    assert os.listdir(outbox) == []


def test_a_link_to_nothing_stays_and_what_it_names_appears(folder, outbox, tmp_path):
    (tmp_path / "results").mkdir()
    (outbox / "result").symlink_to(tmp_path / "results" / "today")

    publish(folder)

    assert (outbox / "result").is_symlink()
    assert content(tmp_path / "results" / "today") == FILES
    assert (os.listdir(outbox), os.listdir(tmp_path / "results")) == (["result"], ["today"])
