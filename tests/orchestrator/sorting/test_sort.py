"""A sort makes folders of a manifest's answers, and touches nothing that was there."""

import errno
import json
import os

import pytest

from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.sorting import record
from orchestrator.sorting import sort as sort_module
from orchestrator.sorting.begin import StoppedError
from orchestrator.sorting.journal import JOURNAL, Batch, Journal
from orchestrator.sorting.sort import SortSpec, preview
from tests.support.invoke import invoke
from tests.support.sorting import LATIN, ROWS, answered, make_tree, snapshot, write_manifest


@pytest.mark.parametrize("mode", ["link", "copy", "move"])
def test_images_go_to_the_folders_of_their_labels_and_failed_ones_to_those_of_their_errors(tree, mode):
    result = tree.sort(mode)

    second = next(name for name in tree.names() if name.startswith("cat/a~"))
    expected = {"cat/a.jpg", second, f"dog/{LATIN}", "dog/line\nend.jpg", "_errors/truncated/bad.jpg"}
    assert tree.names() == expected
    assert (tree.target / second).read_bytes() == b"image 1"
    assert result.tally.folders == {"cat": 2, "dog": 2, "_errors/truncated": 1}
    assert result.tally.named == [("gone.jpg", "missing")]


@pytest.mark.parametrize(
    ("by", "folders"),
    [
        ("decision", {"accept": 2, "review": 1, "reject": 1, "_errors/truncated": 1}),
        (
            "label,decision",
            {"cat/accept": 1, "cat/review": 1, "dog/accept": 1, "dog/reject": 1, "_errors/truncated": 1},
        ),
    ],
)
def test_decisions_are_folders_or_folders_in_those_of_labels(tree, by, folders):
    assert tree.sort(by=by).tally.folders == folders


@pytest.mark.parametrize("row_format", ["csv", "json", "jsonl"])
def test_manifests_of_every_format_give_the_same_folders(tmp_path, row_format):
    tree = make_tree(tmp_path, ROWS, name=f"out.{row_format}")

    tree.sort()

    assert len(tree.names()) == 5
    assert set(FORMATS) == {"csv", "json", "jsonl"}


def test_links_and_copies_leave_the_source_untouched_and_links_name_its_files(tree):
    before = snapshot(tree.root)

    tree.sort("link")

    assert (tree.target / "cat/a.jpg").readlink() == tree.root / "a.jpg"
    assert tree.unsort().num_undone == 5
    tree.sort("copy")
    assert snapshot(tree.root) == before
    assert not (tree.target / "cat/a.jpg").is_symlink()


def test_copies_keep_times_and_rights(tree):
    (tree.root / "a.jpg").chmod(0o640)

    tree.sort("copy")

    copy, original = (tree.target / "cat/a.jpg").stat(), (tree.root / "a.jpg").stat()
    assert (copy.st_mode, copy.st_mtime_ns) == (original.st_mode, original.st_mtime_ns)


def test_a_move_leaves_only_what_cannot_be_sorted(tree):
    tree.sort("move")

    assert [path.name for path in tree.root.rglob("*")] == ["march"]


def test_a_dry_run_counts_and_changes_nothing(tree, tmp_path):
    before = snapshot(tmp_path)

    tally = preview(
        tree.settings, SortSpec(tree.published, tree.target, "label", "move"), lambda num, total: None
    ).tally

    assert tally.folders == {"cat": 2, "dog": 2, "_errors/truncated": 1}
    assert tally.left == {"missing": 1}
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("mode", ["link", "copy", "move"])
def test_what_is_at_the_target_stays_as_it_is(tree, mode):
    (tree.target / "cat").mkdir(parents=True)
    (tree.target / "cat/a.jpg").write_bytes(b"mine")
    (tree.target / "dog").symlink_to(tree.root)

    tree.sort(mode)

    assert (tree.target / "cat/a.jpg").read_bytes() == b"mine"
    assert {name.partition("~")[0] for name in tree.names()} == {
        "cat/a",
        "cat/a.jpg",
        "dog",
        "_errors/truncated/bad.jpg",
    }
    assert sorted(path.name for path in tree.root.iterdir() if path.is_symlink()) == []


@pytest.mark.parametrize("label", ["", "..", "/", "CON", "l" * 300, "_errors", ".pigeonhole-sort.jsonl", "\x00"])
def test_a_label_that_is_no_folders_name_gets_one_and_the_journal_says_which(tmp_path, label):
    tree = make_tree(tmp_path, [answered("a.jpg", "cat")])
    tree.manifest = tmp_path / "out.jsonl"
    write_manifest(tree.manifest, tree.root, [answered("a.jpg", label)])

    tree.sort()

    lines = [json.loads(line) for line in (tree.target / JOURNAL).read_text().splitlines()]
    (folder,) = (line["folder"] for line in lines if line.get("label") == label)
    assert tree.names() == {f"{folder}/a.jpg"}
    assert (tree.target / folder).parent == tree.target


def test_labels_equal_under_case_folding_have_folders_that_no_file_system_confuses(tmp_path):
    tree = make_tree(tmp_path, [answered("1.jpg", "cat"), answered("2.jpg", "CAT"), answered("3.jpg", "Cat")])

    tree.sort()

    assert len({name.partition("/")[0].casefold() for name in tree.names()}) == 3


def test_the_same_file_in_two_rows_is_linked_twice_and_moved_once(tmp_path):
    tree = make_tree(tmp_path, [answered("a.jpg", "cat"), answered("a.jpg", "cat")])

    assert tree.sort().tally.num_sorted == 2
    tree.unsort()
    assert tree.sort("move").tally.left == {"missing": 1}
    assert tree.unsort().num_left == 0
    assert [path.name for path in tree.root.iterdir()] == ["a.jpg"]


def test_links_folders_and_what_lies_outside_are_not_moved(tmp_path):
    tree = make_tree(tmp_path, [answered("a.jpg", "cat"), answered("x/b.jpg", "cat")])
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.jpg").write_bytes(b"elsewhere")
    (tree.root / "link.jpg").symlink_to("a.jpg")
    (tree.root / "away").symlink_to(other)
    (tree.root / "folder.jpg").mkdir()
    names = ["link.jpg", "away/b.jpg", "folder.jpg", "../out.csv", str(tree.manifest), "a.jpg"]
    write_manifest(tree.manifest, tree.root, [answered(name, "cat") for name in names])

    tally = tree.sort("move").tally

    assert [reason for _, reason in tally.named] == [
        "a link", "outside the source", "not a file", "outside the source", "outside the source",
    ]  # fmt: skip
    assert tree.names() == {"cat/a.jpg"}
    assert (other / "b.jpg").read_bytes() == b"elsewhere"


def test_a_finished_sort_is_not_done_again(tree):
    tree.sort()
    (tree.target / "cat/a.jpg").rename(tree.target / "dog/a.jpg")  # corrected by hand
    before = snapshot(tree.target)

    again = tree.sort()

    assert again.was_finished
    assert again.tally.num_sorted == 5
    assert snapshot(tree.target) == before


def test_an_image_that_was_changed_since_it_was_classified_is_left(tree):
    os.utime(tree.root / "a.jpg", ns=(0, 1))
    (tree.root / "march/a.jpg").write_bytes(b"longer than before")

    assert tree.sort("move").tally.named[:2] == [("a.jpg", "changed"), ("march/a.jpg", "changed")]
    assert (tree.root / "a.jpg").exists()


def test_without_its_sidecar_a_manifest_is_sorted_as_it_is(tree):
    sidecar_path(tree.manifest).unlink()
    os.utime(tree.root / "a.jpg", ns=(0, 1))

    assert tree.sort().tally.num_sorted == 5


def test_a_manifest_without_rows_can_be_sorted(tmp_path):
    tree = make_tree(tmp_path, [])

    assert tree.sort().tally.num_rows == 0
    assert tree.unsort().num_left == 0
    assert not tree.target.exists()


def test_the_command_counts_names_what_stays_and_exits_with_1_for_an_image_that_was_answered(tree, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tree.settings.home))
    (tree.root / "a.jpg").unlink()

    result = invoke("results", "sort", tree.manifest, tree.target, "--by", "label", "--json")

    facts = json.loads(result.stdout)
    assert result.exit_code == 1
    assert facts["folders"] == {"_errors/truncated": 1, "cat": 1, "dog": 2}
    assert facts["left"] == {"missing": 2}
    assert facts["left_images"][0] == {"path": "a.jpg", "reason": "missing"}


def test_two_ways_at_once_are_refused_by_the_command(tree, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tree.settings.home))

    result = invoke("results", "sort", tree.manifest, tree.target, "--by", "label", "--copy", "--move")

    assert result.exit_code == 2
    assert "--copy and --move cannot both be done; choose one" in result.stderr
    assert not tree.target.exists()


def test_the_command_for_people_says_what_was_done_and_how_it_is_undone(tree, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tree.settings.home))

    dry = invoke("results", "sort", tree.manifest, tree.target, "--by", "label", "--dry-run")
    done = invoke("results", "sort", tree.manifest, tree.target, "--by", "label")
    undone = invoke("results", "unsort", tree.target)

    assert (dry.exit_code, done.exit_code, undone.exit_code) == (0, 0, 0)
    assert f"5 of 6 images of {tree.root} would be linked; nothing was changed" in dry.stderr
    assert f"5 of 6 images of {tree.root} linked into {tree.target} in" in done.stderr
    assert "5 images undone" in undone.stdout


def test_a_dry_run_into_a_folder_that_holds_a_sort_says_what_the_command_would(tree):
    tree.sort("move")

    same = invoke("results", "sort", tree.manifest, tree.target, "--by", "label", "--move", "--dry-run")
    other = invoke("results", "sort", tree.manifest, tree.target, "--by", "label", "--copy", "--dry-run")

    assert "held this sort already" in same.stderr
    assert other.exit_code == 2
    assert "is sorted --by label --move already" in other.stderr


def test_a_dry_run_counts_what_a_stopped_sort_has_done(tree, monkeypatch):
    monkeypatch.setitem(sort_module.BATCH_ROWS, "move", 2)
    whole = preview(tree.settings, SortSpec(tree.published, tree.target, "label", "move"), lambda num, total: None)
    appended = Journal.append

    def stop_at_the_third(journal: Journal, batch: Batch) -> None:
        if 5 in batch.entries:
            raise KeyboardInterrupt
        appended(journal, batch)

    monkeypatch.setattr(Journal, "append", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        tree.sort("move")
    before = snapshot(tree.root.parent)

    again = preview(tree.settings, SortSpec(tree.published, tree.target, "label", "move"), lambda num, total: None)

    assert again.went_on
    assert again.tally == whole.tally
    assert snapshot(tree.root.parent) == before


def test_a_full_home_is_named_and_not_the_target(tree, monkeypatch):
    def refuse(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(record, "write_whole", refuse)

    with pytest.raises(StoppedError, match=rf"No space left on device: '{tree.settings.home}/sorts/"):
        tree.sort()
    assert not tree.target.exists()
