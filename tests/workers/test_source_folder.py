"""Whether a source folder is still what was listed."""

import contextlib
import errno
import os
import threading
from dataclasses import dataclass, field

import pytest

from orchestrator.contract.jobs.listing import SourceFacts
from tests.support.fakes import make_images, make_job, write_fake_parts
from tests.support.server import wait_until
from workers import source_folder
from workers.source_folder import SourceFolder, StorageAwayError, images_there_before

NAMES = [f"{number:03d}.png" for number in range(8)]


@pytest.fixture
def root(tmp_path):
    make_images(tmp_path / "in", range(0, 80, 10))
    return tmp_path / "in"


@pytest.fixture
def source(root):
    """A source folder of which two images were read."""
    source = SourceFolder(str(root))
    source.remember({root.stat().st_dev: NAMES[0]})
    source.remember({root.stat().st_dev: NAMES[1]})
    return source


def nothing():
    return []


def why_away(source, listed=nothing, **options):
    with pytest.raises(StorageAwayError) as away:
        source.require_there(listed, **options)
    assert source.away
    return str(away.value)


def test_a_folder_that_is_as_it_was_is_there(source):
    source.require_there(nothing)

    assert not source.away


def test_a_folder_that_was_moved_is_away_until_it_is_back(source, root):
    root.rename(root.with_name("away"))
    assert why_away(source) == f"{root} cannot be read: No such file or directory"

    root.with_name("away").rename(root)
    source.require_there(nothing)

    assert not source.away


def test_an_empty_folder_in_its_place_is_a_share_that_is_not_mounted(source, root):
    root.rename(root.with_name("away"))
    root.mkdir()

    assert why_away(source) == f"{root} is empty; is its share mounted?"


def test_other_files_in_its_place_are_not_what_was_read(source, root):
    root.rename(root.with_name("away"))
    root.mkdir()
    (root / "README").write_text("not mounted")

    assert "of 2 images that were read before, none can be read" in why_away(source, lambda: NAMES)


def test_single_images_that_are_gone_leave_the_folder_there(source, root):
    (root / NAMES[0]).unlink()
    source.require_there(nothing)
    (root / NAMES[1]).unlink()

    source.require_there(lambda: NAMES)  # others of the listing are there

    assert not source.away


def test_a_mount_below_the_root_that_is_gone_is_noticed_though_the_rest_is_there(source):
    source.remember({12345: "mounted/000.png"})

    assert "of 1 images that were read before, none can be read" in why_away(source, lambda: NAMES)


def test_a_folder_below_that_was_a_mount_may_not_be_empty(source, root):
    (root / "share").mkdir()
    with pytest.raises(StorageAwayError, match=f"{root}/share is empty; is its share mounted?"):
        source.require_there(nothing, mounts=["share"])
    assert f"{root}/share is empty" in why_away(source)  # until it is back

    (root / "share" / "000.png").touch()
    source.require_there(nothing)
    (root / "share" / "000.png").unlink()
    source.require_there(nothing)

    assert not source.away


def test_a_share_that_was_mounted_again_has_another_device_and_is_there(root):
    source = SourceFolder(str(root))
    source.remember({12345: NAMES[0]})

    source.require_there(nothing)
    source.require_there(nothing)

    assert not source.away


def test_without_an_image_that_was_read_those_of_the_listing_count(root):
    source = SourceFolder(str(root))

    source.require_there(lambda: ["gone.png", NAMES[3]])
    source.require_there(nothing)  # a list of names that never were

    assert "none of 1 images can be read" in why_away(source, lambda: ["gone.png"])


@dataclass
class Failing:
    """Stands for os.open: paths that end so raise that error."""

    number: int
    ends: str = ".png"
    opened: list[str] = field(default_factory=list)

    def __post_init__(self):
        self._open = os.open

    def __call__(self, path, *args, **options):
        if str(path).endswith(self.ends):
            self.opened.append(str(path))
            raise OSError(self.number, os.strerror(self.number), path)
        return self._open(path, *args, **options)


def test_a_storage_that_fails_is_away_also_if_its_folder_can_be_listed(source, monkeypatch):
    failing = Failing(errno.EIO)
    monkeypatch.setattr(os, "open", failing)

    assert "none can be read" in why_away(source, lambda: NAMES, failing=True)
    assert len(failing.opened) == 2 + 2  # each may take a minute


def test_a_storage_of_which_nothing_was_read_is_away_if_no_file_can_be_read(root, monkeypatch):
    source = SourceFolder(str(root))
    monkeypatch.setattr(os, "open", Failing(errno.ESTALE))
    assert "none of 8 images" in why_away(source, failing=True)
    assert "none of 8 images" in why_away(source)  # it is looked at in the same way until it is back

    monkeypatch.undo()
    source.require_there(nothing)

    assert not source.away


def test_a_worker_without_descriptors_finds_nothing_away(source, monkeypatch):
    monkeypatch.setattr(os, "open", Failing(errno.EMFILE))

    with pytest.raises(OSError, match="Too many open files"):
        source.require_there(nothing)

    assert not source.away


def test_a_folder_that_was_empty_when_it_was_listed_may_be_empty(tmp_path):
    source = SourceFolder(str(tmp_path))

    source.require_there(nothing, may_be_empty=True)

    assert "is empty" in why_away(source)


def test_a_folder_that_is_not_there_is_not_seen(source, root):
    source.require_folder()
    root.rename(root.with_name("away"))

    with pytest.raises(StorageAwayError, match=f"does not see the folder {root}"):
        source.require_folder()


def test_a_mount_that_hangs_is_away_and_only_one_thread_waits_for_it(source, monkeypatch):
    answers = threading.Event()
    waiting = []

    def hang(path):
        waiting.append(path)
        answers.wait(60)
        return True

    monkeypatch.setattr(source_folder, "ANSWER_S", 0.5)
    monkeypatch.setattr(os.path, "isdir", hang)
    for _ in range(2):
        with pytest.raises(StorageAwayError, match="does not answer"):
            source.require_folder()
    assert "does not answer" in why_away(source)
    assert len(waiting) == 1

    answers.set()
    wait_until(lambda: comes_back(source), what="it answers again")

    assert not source.away


def comes_back(source):
    with contextlib.suppress(StorageAwayError):
        source.require_there(nothing)
    return not source.away


def test_few_images_are_kept_of_a_long_job_and_they_are_spread_over_it(root):
    source = SourceFolder(str(root))
    for number in range(1000):
        source.remember({1: f"{number}.png"})

    [kept] = source._samples.values()

    assert len(kept) <= source_folder._SAMPLES
    assert int(kept[0].removesuffix(".png")) < 990
    assert kept[-1] == "999.png"


@pytest.mark.parametrize(("walked", "device", "found"), [(True, 0, 8), (False, 0, 8), (False, None, 0)])
def test_a_listing_counts_if_its_files_were_found_or_its_device_is_another(
    settings, root, tmp_path, walked, device, found
):
    folder = make_job(settings, NAMES, root=root, output=tmp_path / "out.csv")
    facts = SourceFacts.of(str(root), walked=walked)
    (facts if device is None else facts.model_copy(update={"device": device})).write(folder.path)

    assert len(images_there_before(folder, str(root))) == found


def test_of_a_list_the_images_of_parts_count(settings, root, tmp_path):
    folder = make_job(settings, NAMES, root=root, output=tmp_path / "out.csv")
    assert images_there_before(folder, str(root)) == []

    write_fake_parts(folder, [1])

    found = images_there_before(folder, str(root))
    assert found
    assert set(found) <= set(NAMES[4:])


def test_a_machine_without_threads_for_a_moment_does_not_make_a_source_silent_for_ever(source, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            source.require_there(nothing)

    source.require_there(nothing)

    assert not source.away
