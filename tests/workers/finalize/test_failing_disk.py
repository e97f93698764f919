"""Every change to the disk that publishing makes fails once: nothing is lost, and nothing is half published."""

import contextlib
import errno
import os
import shutil

import pytest

from modeling.durable import link_once
from tests.support.fakes import FakeFinalizeLease
from tests.support.merges import Merges
from tests.support.steps.compare import differences, published
from tests.support.stopping import failing_at, stopped_at
from workers.finalize.errors import PublishError, TransientDiskError
from workers.finalize.lease import FinalizeLeaseLostError
from workers.finalize.publish import publish_manifest


@pytest.fixture
def merges(settings, tmp_path):
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox")
    merges.write(a="cat", b="bad", c="dog", d="moving", e="cat", f="owl")
    return merges


def classified(merges, kind):
    """The folder of a job that is ready to be published, of each kind."""
    if kind == "new":
        return merges.begin(merges.request(merges.output))
    first = merges.full()
    merges.write(b="cat", g="new")
    if kind == "overwrite":
        return merges.begin(merges.request(merges.output, overwrite=True))
    return merges.begin_since() if kind == "since" else merges.begin_retry(first.job)


@pytest.mark.parametrize("kind", ["new", "overwrite", "since", "retry"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EPERM], ids=errno.errorcode.get)
def test_whatever_change_fails_the_output_is_as_it_was_or_whole_and_the_next_attempt_publishes(
    merges, tmp_path, kind, error
):
    folder = classified(merges, kind)
    request, before = folder.request(), tmp_path / "before"
    shutil.copytree(merges.outbox, before)
    outputs = (merges.output, merges.output.with_name(f"{merges.output.name}.1"))
    was = published(*outputs)

    def publish(fence):
        return publish_manifest(folder, request, None, FakeFinalizeLease(fence=fence))

    with stopped_at(None) as counted:
        publish(1)
    whole = published(*outputs)

    for at in range(counted.num_steps):
        shutil.rmtree(merges.outbox)
        shutil.copytree(before, merges.outbox)
        with contextlib.suppress(TransientDiskError, PublishError, OSError), failing_at(at, error):
            publish(10 + 2 * at)
        found = {name: data for name, data in published(*outputs).items() if ".1" not in name or name in whole}

        assert not differences(was, {name: data for name, data in found.items() if ".1" not in name}) or (
            not differences(whole, found)
        ), f"half published by a failure at change {at}"
        publish(11 + 2 * at)
        assert differences(whole, published(*outputs)) == []
        assert [name for name in os.listdir(merges.outbox) if name.startswith(".")] == []


@pytest.mark.parametrize("lost", [True, False])
def test_a_finalizer_that_was_frozen_before_its_last_name_takes_nothing_back_from_the_next_one(
    merges, monkeypatch, lost
):
    folder = classified(merges, "new")
    request, first = folder.request(), FakeFinalizeLease(fence=1)

    def frozen(draft, path):
        monkeypatch.undo()
        publish_manifest(folder, request, None, FakeFinalizeLease(fence=2))  # removes the files of the first one
        if lost:
            monkeypatch.setattr(first, "confirm", FakeFinalizeLease(0).check)
        return link_once(draft, path)

    monkeypatch.setattr("workers.finalize.put.link_once", frozen)
    with pytest.raises(FinalizeLeaseLostError if lost else PublishError):
        publish_manifest(folder, request, None, first)

    assert sorted(published(merges.output)) == ["out.csv", "out.csv.sources", "out.csv.summary.json"]
    assert merges.differences() == []
