"""The look at a source before a job: what stops it, and what does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.jobs.early_check import NUM_LOOKED_AT, check_paths
from orchestrator.jobs.sources import open_source
from orchestrator.jobs.walk import SourceOptions


def check(text: object, **options) -> list[str]:
    """Check a source; returns the paths that it still yields."""
    reading = SourceOptions(**options)
    source = open_source(str(text), reading)
    check_paths(source, lambda: open_source(str(text), reading), follow_symlinks=reading.follow_symlinks)
    return list(source.paths)


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A folder of links to blobs beside it, as DVC, git-annex and caches make."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "blobs" / str(number)).write_bytes(b"no image")
        (tmp_path / "in" / f"{number}.png").symlink_to(f"../blobs/{number}")
    return tmp_path / "in"


def test_a_folder_of_links_to_blobs_names_the_flag_that_reads_them(links):
    with pytest.raises(
        UsageError, match=r"'.*in': all 3 paths would fail with outside_root: .* with --follow-symlinks"
    ):
        check(links)

    assert check(links, follow_symlinks=True) == ["0.png", "1.png", "2.png"]


def test_links_to_nothing_stop_a_job_that_follows_links_too(links):
    (links.parent / "blobs").rename(links.parent / "elsewhere")

    for follow in (False, True):
        with pytest.raises(UsageError, match=r"links to files that are not there .*git annex get"):
            check(links, follow_symlinks=follow)


def test_one_image_that_can_be_reached_lets_a_job_begin(links):
    (links / "x.png").write_bytes(b"no image")

    assert check(links) == ["0.png", "1.png", "2.png", "x.png"]


def test_what_images_hold_never_stops_a_job(tmp_path):
    for name in ("empty.png", "corrupt.png"):
        (tmp_path / name).write_bytes(b"" if name == "empty.png" else b"\x89PNG")

    assert check(tmp_path) == ["corrupt.png", "empty.png"]


def make_list(tmp_path: Path, lines: Iterator[str]) -> Path:
    (tmp_path / "list.txt").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path / "list.txt"


def test_where_the_first_hundred_fail_as_many_from_all_over_the_listing_decide(tmp_path):
    (tmp_path / "here.png").touch()
    gone = [f"{number}.png" for number in range(NUM_LOOKED_AT)]

    later = make_list(tmp_path, iter([*gone, *["here.png"] * 20, *gone * 9]))
    assert len(check(later)) == 10 * NUM_LOOKED_AT + 20
    with pytest.raises(
        UsageError, match=r"the first 100 paths and 100 from all over the other 900 would fail with missing"
    ):
        check(make_list(tmp_path, iter(gone * 10)))
    with pytest.raises(UsageError, match=r"all 150 paths would fail with missing"):
        check(make_list(tmp_path, iter([*gone, *gone[:50]])))


def test_failures_of_two_kinds_are_no_common_reason(links):
    (links / "gone.png").symlink_to("nowhere.png")

    assert len(check(links)) == 4


def test_a_list_below_another_folder_is_told_the_root(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    listed = make_list(tmp_path, iter(["a.png"]))

    with pytest.raises(UsageError, match=rf"the only path would .* choose it with --root '{tmp_path}/images'"):
        check(listed)
    assert check(listed, root=tmp_path / "images") == ["a.png"]


def test_a_second_look_meets_an_error_further_on_in_the_list(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\n" + "gone.png,x\n" * 150 + ",y\n")

    with pytest.raises(UsageError, match=r"list.csv, line 152: no path"):
        check(tmp_path / "list.csv")
