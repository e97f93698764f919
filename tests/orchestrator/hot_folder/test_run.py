"""The loop of a hot folder, with a client and a submitter that a test answers for."""

import errno
import os
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from orchestrator.contract.errors import PigeonholeError, UnavailableError
from orchestrator.hot_folder import jobs, run, watch
from orchestrator.hot_folder.claims import Claim
from orchestrator.hot_folder.folders import open_hot_folder
from orchestrator.hot_folder.owners import Owner
from tests.support.hot_folder_runs import FakeClient, FakeSubmit, make_runner, run_to_the_end
from tests.support.hot_folders import Scans


@pytest.fixture
def scans(tmp_path):
    open_hot_folder(tmp_path / "scans")
    return Scans(tmp_path / "scans")


@pytest.fixture
def said():
    return []


@pytest.fixture
def client():
    return FakeClient()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(watch, "FOLDER_SETTLES_S", 0.0)
    monkeypatch.setattr(jobs, "AGAIN_S", 0.01)
    monkeypatch.setattr(run, "RECOVER_S", 0.05)


def test_a_file_that_is_written_to_after_it_was_ready_is_answered_for_its_new_content(scans, client, said):
    runner = make_runner(scans, said, client=client)
    for name in ("a.jpg", "b.jpg"):
        scans.drop(name, b"first")

    def write(item):
        client.before = lambda item: None
        other = "b.jpg" if item.startswith("a.jpg") else "a.jpg"
        (scans.path / "in" / other).write_bytes(b"second version")

    client.before = write
    runner.run(once=True)

    assert scans.names("done") == ["a.jpg", "a.jpg.json", "b.jpg", "b.jpg.json"]
    assert len(client.items) == 2
    assert scans.names("working") == []


def test_what_a_killed_process_left_is_finished_under_the_same_name(scans, client, said):
    claim = Claim.make(open_hot_folder(scans.path), "6a2b", 7, "image")
    (claim.data / "a.jpg").write_bytes(b"x")
    runner = make_runner(scans, said, client=client)
    stopper = threading.Timer(60, runner.stop)
    stopper.start()
    client.before = lambda item: runner.stop()
    runner.run()  # the record of 6a2b is gone: two looks find its claim
    stopper.cancel()

    assert client.items == ["a.jpg@6a2b-7"]
    assert scans.names("done") == ["a.jpg", "a.jpg.json"]
    assert scans.hidden("working") == []


def test_what_was_going_back_when_its_process_was_killed_has_one_result(scans, client, said):
    claim = Claim.make(open_hot_folder(scans.path), "6a2b", 7, "image")
    (claim.data / "a.jpg").write_bytes(b"x")
    (scans.path / "in" / "a.jpg").hardlink_to(claim.data / "a.jpg")
    runner = make_runner(scans, said, client=client)
    runner._owner.adopt_unknown("6a2b")
    run_to_the_end(runner)

    assert len(client.items) == 1
    assert scans.names("done") == ["a.jpg", "a.jpg.json"]


def test_a_stop_leaves_what_is_unanswered_for_the_next_start(scans, said, monkeypatch):
    monkeypatch.setattr(run, "STOP_S", 0.0)

    class Silent(FakeClient):
        def submit(self, image, item, *, deadline):
            self.items.append(item)
            runner.stop()
            return Future()

    silent = Silent()
    runner = make_runner(scans, said, client=silent)
    scans.drop("a.jpg", b"x")
    runner.run()
    assert runner.claims_left == 1

    client = FakeClient()
    make_runner(scans, said, client=client).run(once=True)

    assert client.items == silent.items
    assert scans.names("done") == ["a.jpg", "a.jpg.json"]
    assert scans.names("working") == scans.hidden("working") == []


def test_a_full_disk_is_waited_for(scans, client, said, monkeypatch):
    runner = make_runner(scans, said, client=client)
    scans.drop("a.jpg", b"x")
    monkeypatch.setattr("orchestrator.hot_folder.pushing.AGAIN_S", 0.0)
    refused = iter([OSError(28, "No space left on device")])
    end = Claim.end

    def refuse_once(self, name, ending):
        for err in refused:
            raise err
        return end(self, name, ending)

    monkeypatch.setattr(Claim, "end", refuse_once)
    runner.run(once=True)

    assert said == ["a.jpg: its result cannot be written: No space left on device; it is tried again"]
    assert scans.names("done") == ["a.jpg", "a.jpg.json"]
    assert len(set(client.items)) == 1


def test_a_folder_that_no_job_can_be_made_of_gets_the_reason(scans, said, settings):
    submit = FakeSubmit(UnavailableError("no server answers"), PigeonholeError("'batch' holds no images"))
    (scans.path / "in" / "batch").mkdir()
    (scans.path / "in" / "batch" / "a.txt").write_bytes(b"x")

    make_runner(scans, said, submit=submit, settings=settings).run(once=True)

    assert said == ["batch: no server answers; it is tried again"]
    assert scans.sidecar("batch", "error")["error"] == "'batch' holds no images"
    assert len({spec.idempotency_key for spec in submit.specs}) == 1
    assert scans.names("working") == []


def test_a_folder_with_a_link_is_refused(scans, said, settings):
    (scans.path / "in" / "batch").mkdir()
    (scans.path / "in" / "batch" / "a.jpg").symlink_to("/etc/passwd")

    make_runner(scans, said, submit=FakeSubmit(), settings=settings).run(once=True)

    assert scans.sidecar("batch", "error")["error"] == "it holds 'batch/a.jpg', which is a link"
    assert (scans.path / "error" / "batch" / "a.jpg").is_symlink()


def test_a_result_that_cannot_be_carried_out_after_a_kill_is_tried_again_and_holds_up_no_other(
    scans, client, said, monkeypatch
):
    folder = open_hot_folder(scans.path)
    for number in (7, 8):
        claim = Claim.make(folder, "6a2b", number, "image")
        (claim.data / f"{number}.jpg").write_bytes(b"x")
    finish, refused = Claim.finish_moves, iter([OSError(5, "Input/output error")])

    def refuse_once(self):
        if self.tag == "6a2b-7":
            for err in refused:
                raise err
        return finish(self)

    monkeypatch.setattr(Claim, "finish_moves", refuse_once)
    runner = make_runner(scans, said, client=client)
    stopper = threading.Timer(60, runner.stop)
    stopper.start()
    client.before = lambda item: runner.stop() if item.startswith("7") else None
    runner.run()
    stopper.cancel()

    assert client.items == ["8.jpg@6a2b-8", "7.jpg@6a2b-7"]
    assert scans.names("working") == []
    assert any("Input/output error" in text for text in said)


def test_a_stop_does_not_wait_for_a_submission_that_hangs(scans, said, monkeypatch):
    monkeypatch.setattr(run, "STOP_S", 0.0)
    asked, let = threading.Event(), threading.Event()

    def submit(spec):
        runner.stop()
        asked.set()
        let.wait(60)
        raise UnavailableError("the server has gone")

    runner = make_runner(scans, said, submit=submit)
    scans.drop("a.jpg", b"x")
    try:
        runner.run()
        assert asked.is_set()
        assert not let.is_set()
        assert runner.claims_left == 1
    finally:
        let.set()


@pytest.mark.parametrize("by_bin", [False, True])
@pytest.mark.parametrize("call", ["mkdir", "link", "unlink", "replace", "rename", "rmdir"])
def test_a_call_that_the_disk_refuses_once_costs_no_file_its_result(call, by_bin, scans, client, said, monkeypatch):
    monkeypatch.setattr("orchestrator.hot_folder.pushing.AGAIN_S", 0.01)
    runner = make_runner(scans, said, client=client, by_bin=by_bin)
    expected = {f"{name}.jpg" for name in "abc"}
    for name in expected:
        scans.drop(name, name.encode())
    real, refused = getattr(os, call), []

    def refuse(*arguments, **options):
        if client.items and call not in refused and "owner" not in str(arguments[0]):
            refused.append(call)
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), arguments[0])
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, refuse)
    runner.run(once=True)

    found = {Path(name).name for name in scans.names("done") if not Path(scans.path / "done" / name).is_dir()}
    assert found == (expected if by_bin else expected | {f"{name}.json" for name in expected})
    assert scans.names("working") == scans.hidden("working") == scans.names("in") == []
    assert runner.counts.done == 3


class Stale:
    """Calls into claims whose handle is stale: those that `strikes` picks, by their number and name."""

    def __init__(self, monkeypatch, working, strikes):
        self._working = f"{working}{os.sep}"
        self._strikes = strikes
        self._count = 0
        self._lock = threading.Lock()
        self.struck = []
        for name in ("listdir", "scandir", "stat", "lstat", "open", "mkdir", "link", "unlink", "replace", "rename"):
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name, real):
        def call(path=".", *arguments, **options):
            if isinstance(path, str | Path) and self._is_struck(name, str(path)):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
            return real(path, *arguments, **options)

        return call

    def _is_struck(self, name, path):
        inside = path.removeprefix(self._working)
        if inside == path or inside.startswith("."):
            return False
        with self._lock:
            self._count += 1
            strikes = self._strikes(self._count, f"{name} {inside}")
            self.struck += [f"{name} {inside}"] * strikes
        return strikes


def stale_once_each(tmp_path, monkeypatch):
    """A hot folder for each call of a run into a claim, whose handle is stale then; ends after one without."""
    for nth in range(1, 200):
        scans = Scans(open_hot_folder(tmp_path / str(nth)).path)
        with monkeypatch.context() as patch:
            stale = Stale(patch, scans.path / "working", lambda number, _, nth=nth: number == nth)
            yield scans, stale
        assert scans.names("working") == scans.hidden("working") == scans.names("in") == [], stale.struck
        if not stale.struck:
            break
    assert 10 < nth < 199


def test_a_stale_handle_of_a_claim_costs_no_image_its_result(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.hot_folder.pushing.AGAIN_S", 0.01)
    for scans, stale in stale_once_each(tmp_path, monkeypatch):
        runner = make_runner(scans, [], client=FakeClient())
        scans.drop("a.jpg", b"a")
        scans.drop("b.jpg", b"b")
        run_to_the_end(runner)

        assert scans.names("done") == ["a.jpg", "a.jpg.json", "b.jpg", "b.jpg.json"], stale.struck
        assert [scans.sidecar(f"{name}.jpg")["file"] for name in "ab"] == ["done/a.jpg", "done/b.jpg"]
        assert runner.counts.done == 2


def test_a_stale_handle_of_a_claim_costs_no_folder_its_result(tmp_path, settings, monkeypatch):
    for scans, stale in stale_once_each(tmp_path, monkeypatch):
        submit = FakeSubmit(*[PigeonholeError("no such model")] * 3)
        runner = make_runner(scans, [], submit=submit, settings=settings)
        (scans.path / "in" / "batch").mkdir()
        (scans.path / "in" / "batch" / "a.jpg").write_bytes(b"a")
        run_to_the_end(runner)

        assert scans.names("error") == ["batch", "batch.json", "batch/a.jpg"], stale.struck
        assert runner.counts.failed == 1


def test_a_claim_whose_handle_stays_stale_is_told_once_and_holds_up_no_other(scans, client, said, monkeypatch):
    claim = Claim.make(open_hot_folder(scans.path), "6a2b", 7, "image")
    (claim.data / "a.jpg").write_bytes(b"a")
    runner = make_runner(scans, said, client=client)
    with monkeypatch.context() as patch:
        stale = Stale(patch, scans.path / "working", lambda _, call: call == "listdir 6a2b-7.image/data")
        client.before = lambda item: runner.stop() if len(stale.struck) > 2 else scans.drop("b.jpg", b"b")
        scans.drop("b.jpg", b"b")
        run_to_the_end(runner, once=False)

    assert said == ["working/6a2b-7.image cannot be used: Stale file handle; it is tried again"]
    assert scans.names("working") == ["6a2b-7.image", "6a2b-7.image/data", "6a2b-7.image/data/a.jpg"]
    assert (scans.path / "done" / "b.jpg").is_file()

    run_to_the_end(make_runner(scans, said, client=client))
    assert (scans.path / "done" / "a.jpg").is_file()
    assert client.items.count("a.jpg@6a2b-7") == 1
    assert scans.names("working") == scans.hidden("working") == []


def test_a_claim_that_cannot_be_seen_now_stops_no_recovery_of_others_and_no_end(scans, client, said, monkeypatch):
    folder = open_hot_folder(scans.path)
    for number in (7, 8):
        (Claim.make(folder, "6a2b", number, "image").data / f"{number}.jpg").write_bytes(b"x")
    runner = make_runner(scans, said, client=client)
    client.before = lambda item: runner.stop()
    with monkeypatch.context() as patch:
        stale = Stale(patch, folder.working, lambda _, call: call.partition(" ")[2].startswith("6a2b-7"))
        run_to_the_end(runner, once=False)

    assert "stat 6a2b-7.image" in stale.struck
    assert client.items == ["8.jpg@6a2b-8"]
    assert "working/6a2b-7.image cannot be used: Stale file handle; it is tried again" in said
    assert scans.names("done") == ["8.jpg", "8.jpg.json"]

    run_to_the_end(make_runner(scans, said, client=client))
    assert scans.names("working") == scans.hidden("working") == []


def test_a_stop_forgets_a_process_that_died_since_the_last_look_and_left_nothing(scans, client, said, monkeypatch):
    monkeypatch.setattr(run, "RECOVER_S", 600.0)
    runner = make_runner(scans, said, client=client)

    def die_beside(item):
        Owner(open_hot_folder(scans.path).working)._release()  # its record stays, without a lock
        runner.stop()

    client.before = die_beside
    scans.drop("a.jpg", b"x")
    run_to_the_end(runner, once=False)

    assert scans.names("done") == ["a.jpg", "a.jpg.json"]
    assert scans.hidden("working") == []


def test_a_stop_ends_also_where_working_cannot_be_read(scans, client, said, monkeypatch):
    runner = make_runner(scans, said, client=client)

    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(runner, "_claims", refuse)
    scans.drop("a.jpg", b"x")
    run_to_the_end(runner)

    assert scans.names("done") == ["a.jpg", "a.jpg.json"]
    assert "working cannot be used: Input/output error" in said[0]
