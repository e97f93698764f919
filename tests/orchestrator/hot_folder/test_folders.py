"""Where a hot folder may be, and the names that files get in it."""

import os

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.hot_folder.folders import bin_folder, candidates, open_hot_folder


def test_a_folder_is_made_and_opened_again(tmp_path):
    first = open_hot_folder(tmp_path / "scans")

    assert open_hot_folder(tmp_path / "scans") == first
    parts = {path.name for path in first.path.iterdir() if path.is_dir()}
    assert parts == {"in", "working", "done", "error"}


@pytest.mark.parametrize("part", ["in", "working", "done", "error"])
def test_a_hot_folder_within_another_is_refused(tmp_path, part):
    open_hot_folder(tmp_path / "scans")

    with pytest.raises(UsageError, match="files would go round"):
        open_hot_folder(tmp_path / "scans" / part / "more")


@pytest.mark.parametrize("part", ["in", "done"])
def test_a_part_that_links_to_another_hot_folders_part_is_refused(tmp_path, part):
    open_hot_folder(tmp_path / "first")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / part).symlink_to(tmp_path / "first" / "in")

    with pytest.raises(UsageError, match="another hot folder"):
        open_hot_folder(tmp_path / "second")


def test_parts_within_one_another_are_refused(tmp_path):
    (tmp_path / "scans" / "in" / "out").mkdir(parents=True)
    (tmp_path / "scans" / "done").symlink_to("in/out")

    with pytest.raises(UsageError, match="files would go round"):
        open_hot_folder(tmp_path / "scans")


def test_done_and_in_may_not_be_the_same(tmp_path):
    (tmp_path / "scans" / "in").mkdir(parents=True)
    (tmp_path / "scans" / "done").symlink_to("in")

    with pytest.raises(UsageError, match="another hot folder"):
        open_hot_folder(tmp_path / "scans")


def test_a_folder_without_a_parent_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        open_hot_folder(tmp_path / "no" / "scans")


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("a.jpg", "a.7f-1.jpg"),
        ("archive.tar.gz", "archive.tar.7f-1.gz"),
        ("no suffix", "no suffix.7f-1"),
        ("named\udcff.jpg", "named\udcff.7f-1.jpg"),
    ],
)
def test_a_name_that_is_taken_gets_the_claims_tag(name, second):
    assert list(candidates(name, "7f-1"))[:2] == [name, second]


def test_the_last_name_is_one_that_no_other_file_of_the_claim_gets():
    names = [list(candidates(f"{'ü' * 120}{number}.jpg", "7f-1")) for number in range(2)]

    assert names[0][:2] == names[1][:2]
    assert names[0][2] != names[1][2]


@pytest.mark.parametrize("name", ["ü" * 120 + ".jpg", "\udcff" * 251 + ".jpg", "." + "x" * 254])
def test_names_leave_room_for_a_sidecar(name):
    assert all(len(os.fsencode(each)) <= 255 - len(".manifest.csv") for each in candidates(name, "7f" * 8))


@pytest.mark.parametrize(
    ("bin_", "folder"),
    [("1", "1"), ("left/right", "left%2fright"), ("..", "%2e%2e"), (".", "%2e"), ("", "_"), ("_", "_"), ("\n", "%0a"),
     (".hidden", "%2ehidden"), ("50%", "50%25"), ("B", "B"), ("B.", "B%2e"), (" B. ", "%20B%2e%20"), ("a. b", "a. b")],
)  # fmt: skip
def test_a_bin_is_one_visible_folder(bin_, folder):
    assert bin_folder(bin_) == folder
