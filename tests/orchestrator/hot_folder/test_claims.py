"""Moving a file with its result: after a kill between any two steps, and by two processes at once."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.hot_folder.claims import Claim, Ending
from orchestrator.hot_folder.folders import open_hot_folder
from tests.support.hot_folders import Scans

ENDING = Ending("done", {"bin": "1"})
_CALLS = ("os.rename", "os.link", "os.unlink", "os.replace", "os.mkdir", "os.rmdir", "os.open")


class KilledError(BaseException):
    """Stands for SIGKILL before a call of the system."""


@pytest.fixture
def scans(tmp_path):
    open_hot_folder(tmp_path / "scans")
    return Scans(tmp_path / "scans")


def make_claim(scans, *names, number=1):
    claim = Claim.make(open_hot_folder(scans.path), "6a", number, "image")
    for name in names:
        scans.drop(name, name.encode())
        assert claim.take(name)
    return claim


def killed_before(monkeypatch, number: int, work: Callable[[], object]) -> bool:
    """Whether `work` came to its `number`th call that changes the disk, and was killed there."""
    calls = 0

    def counted(original):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == number:
                raise KilledError
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in _CALLS:
            patch.setattr(name, counted(getattr(os, name.removeprefix("os."))))
        try:
            work()
        except KilledError:
            return True
    return False


def test_a_file_goes_with_its_sidecar(scans):
    claim = make_claim(scans, "a.jpg")

    assert claim.end("a.jpg", ENDING) == scans.path / "done" / "a.jpg"
    assert claim.close()
    assert scans.sidecar("a.jpg") == {"file": "done/a.jpg", "bin": "1"}
    assert scans.names("working") == []


def test_a_claim_that_lost_a_file_to_another_is_empty(scans):
    first, second = make_claim(scans), make_claim(scans, number=2)
    scans.drop("a.jpg", b"x")

    assert first.take("a.jpg")
    assert not second.take("a.jpg")
    assert second.names() == []


@pytest.mark.parametrize("there", ["a.jpg", "a.jpg.json", "a.jpg.manifest.csv"])
def test_a_name_that_is_taken_is_left_alone(scans, there):
    (scans.path / "done" / there).write_bytes(b"before")
    claim = make_claim(scans, "a.jpg")

    assert claim.end("a.jpg", ENDING) == scans.path / "done" / "a.6a-1.jpg"
    assert scans.sidecar("a.6a-1.jpg")["file"] == "done/a.6a-1.jpg"
    assert (scans.path / "done" / there).read_bytes() == b"before"


def test_long_names_with_the_same_beginning_get_a_name_each(scans):
    names = [f"{'漢' * 75}{number}.jpg" for number in range(4)]
    claim = make_claim(scans, *names)

    targets = [claim.end(name, ENDING) for name in names]

    assert None not in targets
    assert [target.read_bytes() for target in targets] == [name.encode() for name in names]
    assert scans.names("working") == ["6a-1.image", "6a-1.image/data"]


@pytest.mark.parametrize("hard_links", [True, False])
def test_after_a_kill_before_any_step_the_file_is_done_once(tmp_path, monkeypatch, hard_links):
    if not hard_links:
        monkeypatch.setattr("os.link", refuse_links)
    number = 0
    while True:
        number += 1
        scans = Scans(tmp_path / str(number))
        open_hot_folder(scans.path)
        claim = make_claim(scans, "a.jpg")

        def work(claim=claim):
            claim.end("a.jpg", ENDING)
            claim.close()

        was_killed = killed_before(monkeypatch, number, work)
        again = Claim(claim.folder, claim.name)
        again.finish_moves()
        for name in again.names():
            again.end(name, ENDING)
        again.close()

        assert scans.names("done") == ["a.jpg", "a.jpg.json"], number
        assert scans.sidecar("a.jpg") == {"file": "done/a.jpg", "bin": "1"}
        assert scans.names("working") == []
        if not was_killed:
            break
    assert number > 6


def refuse_links(*_: object, **__: object) -> None:
    raise PermissionError(1, "no hard links here")


def test_a_process_that_wakes_up_late_changes_nothing(tmp_path, monkeypatch):
    """Frozen before any of its steps, while another took its claim and finished it."""
    number = 0
    while True:
        number += 1
        scans = Scans(tmp_path / str(number))
        open_hot_folder(scans.path)
        claim = make_claim(scans, "a.jpg")
        seen = 0

        def meanwhile(original, claim=claim, number=number):
            def call(*arguments, **options):
                nonlocal seen
                seen += 1
                if seen == number:
                    other = Claim(claim.folder, claim.name)
                    other.finish_moves()
                    for name in other.names():
                        other.end(name, ENDING)
                    other.close()
                return original(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("os.link", "os.unlink", "os.rename", "os.replace", "os.open"):
                patch.setattr(name, meanwhile(getattr(os, name.removeprefix("os."))))
            claim.end("a.jpg", ENDING)
            claim.close()

        assert scans.names("done") == ["a.jpg", "a.jpg.json"], number
        assert scans.names("working") == []
        if seen < number:
            break
    assert number > 4


def test_a_file_that_was_changed_goes_back(scans):
    claim = make_claim(scans, "a.jpg")
    scans.drop("a.jpg", b"meanwhile")

    claim.give_back("a.jpg")

    assert scans.names("in") == ["a.6a-1.jpg", "a.jpg"]
    assert claim.close()


def test_a_file_that_goes_back_replaces_none_that_comes_at_the_same_moment(scans, monkeypatch):
    claim = make_claim(scans, "a.jpg")

    def drop_first(original):
        def call(*arguments, **options):
            if not (scans.path / "in" / "a.jpg").exists():
                (scans.path / "in" / "a.jpg").write_bytes(b"meanwhile")
            return original(*arguments, **options)

        return call

    for name in ("link", "rename"):
        monkeypatch.setattr(os, name, drop_first(getattr(os, name)))
    claim.give_back("a.jpg")

    assert (scans.path / "in" / "a.jpg").read_bytes() == b"meanwhile"
    assert (scans.path / "in" / "a.6a-1.jpg").read_bytes() == b"a.jpg"
    assert claim.names() == []


def test_a_file_that_the_disk_does_not_let_go_is_not_in_both_places(scans, monkeypatch):
    claim = make_claim(scans, "a.jpg")
    unlink, refused = os.unlink, []

    def refuse_once(path, *arguments, **options):
        if not refused:
            refused.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return unlink(path, *arguments, **options)

    monkeypatch.setattr(os, "unlink", refuse_once)
    with pytest.raises(OSError, match="Input/output error"):
        claim.give_back("a.jpg")

    assert (claim.names(), scans.names("in")) == (["a.jpg"], [])
    claim.give_back("a.jpg")
    assert (claim.names(), scans.names("in")) == ([], ["a.jpg"])


def test_a_file_that_was_going_back_when_its_process_was_killed_is_in_one_place(tmp_path, monkeypatch):
    number, was_killed = 0, True
    while was_killed:
        number += 1
        scans = Scans(tmp_path / str(number))
        open_hot_folder(scans.path)
        claim = make_claim(scans, "a.jpg")
        was_killed = killed_before(monkeypatch, number, lambda claim=claim: claim.give_back("a.jpg"))
        again = Claim(claim.folder, claim.name)

        again.finish_giving_back()
        assert again.names() + scans.names("in") == ["a.jpg"], number
    assert number > 2


def test_a_file_that_goes_back_replaces_none_that_cannot_be_seen_now(scans, monkeypatch):
    claim = make_claim(scans, "a.jpg")
    scans.drop("a.jpg", b"meanwhile")
    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", stale)
        patch.setattr(os, "stat", stale)
        with pytest.raises(OSError, match="Stale file handle"):
            claim.give_back("a.jpg")

    assert (scans.path / "in" / "a.jpg").read_bytes() == b"meanwhile"
    assert claim.names() == ["a.jpg"]


def stale(*_: object, **__: object) -> None:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_folders_pipes_and_links_are_moved_too(scans):
    claim = make_claim(scans)
    (scans.path / "in" / "batch").mkdir()
    (scans.path / "in" / "batch" / "0.jpg").write_bytes(b"x")
    (scans.path / "in" / "link").symlink_to("nowhere")
    os.mkfifo(scans.path / "in" / "pipe")
    (scans.path / "error" / "link").symlink_to("before")

    for name in ("batch", "link", "pipe"):
        assert claim.take(name)
        claim.end(name, Ending("error", {}))

    assert scans.names("error") == [
        "batch", "batch.json", "batch/0.jpg", "link", "link.6a-1", "link.6a-1.json", "pipe", "pipe.json",
    ]  # fmt: skip
    assert (scans.path / "error" / "link").readlink() == Path("before")


def test_a_manifest_goes_with_its_folder(scans, tmp_path):
    claim = make_claim(scans, "a.zip")
    (claim.path / "copied.csv").write_text("path\n")

    claim.end("a.zip", Ending("done", {}, manifest=claim.path / "copied.csv"))

    assert scans.names("done") == ["a.zip", "a.zip.json", "a.zip.manifest.csv"]


def test_a_result_that_the_disk_has_lost_is_written_again(scans):
    claim = make_claim(scans, "a.jpg")
    (claim.path / "0123.result.json").touch()

    assert claim.finish_moves() == []
    assert claim.end("a.jpg", ENDING) == scans.path / "done" / "a.jpg"


def test_sidecars_are_utf8_whatever_the_name(scans):
    claim = make_claim(scans)
    name = "ü\udcff.jpg"
    (scans.path / "in" / name).write_bytes(b"x")
    claim.take(name)

    claim.end(name, ENDING)

    [sidecar] = [Path(scans.path, "done", each) for each in scans.names("done") if each.endswith(".json")]
    assert json.loads(sidecar.read_bytes())["file"] == "done/ü\\xff.jpg"


def test_a_process_that_wakes_up_while_another_moves_the_file_leaves_that_ones_result(scans, monkeypatch):
    claim = make_claim(scans, "a.jpg")
    woken = Claim(claim.folder, claim.name)
    carry_out, replaced = Claim._carry_out, Path.replace

    def wake_before_the_sidecar(self, target):
        if self.name.endswith(".result.json"):
            monkeypatch.setattr(Path, "replace", replaced)
            assert woken.end("a.jpg", ENDING) is None
        return replaced(self, target)

    def begin(self, result, facts, source):
        monkeypatch.setattr(Path, "replace", wake_before_the_sidecar)
        return carry_out(self, result, facts, source)

    monkeypatch.setattr(Claim, "_carry_out", begin)
    claim.end("a.jpg", ENDING)

    assert scans.names("done") == ["a.jpg", "a.jpg.json"]
