"""`pigeonhole results duplicates`: what it finds, what it writes, and inputs that are not as a job left them."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from modeling.names import from_cell, text_to_path
from orchestrator.cli import main
from orchestrator.contract.errors import ExitCode
from orchestrator.contract.settings import get_settings
from orchestrator.duplicates.find import read_images
from orchestrator.duplicates.groups import write_groups
from orchestrator.jobs.results import find_published
from tests.support.images import encode
from tests.support.manifests import answered, failed, publish_rows
from tests.support.pictures import photo, photo_png, plates, write_files

LATIN = os.fsdecode(b"caf\xe9;\n=.png")
FILES = {
    "a.png": photo_png(1),
    "b.jpg": encode(photo(2, (192, 144)), "JPEG"),
    "sub/c.png": photo_png(1),
    LATIN: encode(photo(2, (192, 144))),
    "broken.png": b"\x89PNG\r\n\x1a\n",
    "d.png": photo_png(3),
}
ROWS = [
    answered("a.png", "7", score=0.5),
    answered("b.jpg", "=cat", score=0.25),
    answered("gone.png", "7"),
    failed("broken.png"),
    answered("sub/c.png", "7", score=0.5),
    answered(LATIN, "dog", score=0.125),
    answered("d.png", "8"),
]
GROUPS = [
    ("1", "exact", "a.png", "7", "0.500000"),
    ("1", "exact", "sub/c.png", "7", "0.500000"),
    ("2", "near", "b.jpg", "=cat", "0.250000"),
    ("2", "near", LATIN, "dog", "0.125000"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "in", FILES)
    return tmp_path


def duplicates(*arguments: object) -> Result:
    get_settings.cache_clear()
    result = CliRunner().invoke(main, ["results", "duplicates", *map(str, arguments)], prog_name="pigeonhole")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.jsonl"])
def test_groups_of_exact_and_near_duplicates_have_the_answers_of_their_rows(here, name):
    manifest = publish_rows(here / name, ROWS, here / "in")

    result = duplicates(manifest, "-o", "groups.csv")

    with open("groups.csv", encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    assert result.exit_code == ExitCode.OK
    assert head == ["group", "kind", "path", "label", "score"]
    assert [(g, kind, from_cell(path), from_cell(label), score) for g, kind, path, label, score in lines] == GROUPS
    assert "1 group of exact duplicates, 1 group of near ones" in result.stderr
    assert "2 images could not be read: 1 missing, 1 truncated" in result.stderr
    assert result.stdout.splitlines()[0] == "a.png = sub/c.png"
    assert list((here / "home" / "cache").iterdir()) == []


def test_a_name_with_a_carriage_return_is_one_cell(here):
    write_files(here / "in", {"a\rb.png": FILES["a.png"]})
    manifest = publish_rows(here / "out.csv", [answered("a\rb.png", "7"), answered("a.png", "7")], here / "in")

    assert duplicates(manifest, "-o", "groups.csv").exit_code == ExitCode.OK

    with open("groups.csv", newline="") as file:
        assert [cells[2] for cells in csv.reader(file)] == ["path", "a\rb.png", "a.png"]


def test_a_document_has_the_counts_and_a_group_on_each_line(here):
    manifest = publish_rows(here / "out.csv", ROWS, here / "in")

    shown = json.loads(duplicates(manifest, "-o", "groups.json", "--limit", "1", "--json").stdout)

    written = json.loads(Path("groups.json").read_text())
    groups = written.pop("groups")
    assert shown == written | {"groups": groups[:1]}
    assert [
        (str(group["group"]), group["kind"], text_to_path(image["path"]), image["label"], f"{image['score']:.6f}")
        for group in groups
        for image in group["images"]
    ] == GROUPS
    assert written == {
        "version": 1, "job": "c261123-143355-7f3a2b", "manifest": str(manifest), "num_images": 7,
        "num_unreadable": 2, "unreadable": {"missing": 1, "truncated": 1}, "num_exact_groups": 1, "num_near_groups": 1,
        "num_redundant": 2, "num_look_alikes": 0,
    }  # fmt: skip


def test_only_rows_that_fit_are_compared(here):
    manifest = publish_rows(here / "out.csv", ROWS, here / "in")

    shown = json.loads(duplicates(manifest, "--where", "label=7 and not path~gone", "--json").stdout)

    assert (shown["num_images"], shown["num_exact_groups"], shown["num_near_groups"]) == (2, 1, 0)


def test_a_sheet_shows_the_groups_beside_each_other(here):
    manifest = publish_rows(here / "out.csv", ROWS, here / "in")

    result = duplicates(manifest, "--sheet", "duplicates.html")

    page = Path("duplicates.html").read_text()
    assert result.exit_code == ExitCode.OK
    assert page.count("data:image/") == 4
    assert [page.count(heading) for heading in ("1: exact", "2: near")] == [1, 1]
    assert page.index("a.png") < page.index("sub/c.png") < page.index("b.jpg")


def test_the_same_manifest_gives_the_same_bytes(here):
    manifest = publish_rows(here / "out.csv", ROWS, here / "in")

    for name in ("first.csv", "second.csv", "first.json", "second.json"):
        duplicates(manifest, "-o", name)

    assert Path("first.csv").read_bytes() == Path("second.csv").read_bytes()
    assert Path("first.json").read_bytes() == Path("second.json").read_bytes()


def test_what_a_fixed_camera_sees_is_told_and_grouped_only_where_it_is_the_same_file(here):
    views = plates(11, noise=4)
    write_files(here / "camera", {f"{number:02}.png": data for number, data in enumerate([*views, views[3]])})
    rows = [answered(f"{number:02}.png", "7") for number in range(12)]
    manifest = publish_rows(here / "out.csv", rows, here / "camera")

    shown = json.loads(duplicates(manifest, "--json").stdout)

    assert shown["num_look_alikes"] == 12
    assert [[image["path"] for image in group["images"]] for group in shown["groups"]] == [["03.png", "11.png"]]


def test_an_empty_manifest_has_no_groups(here):
    manifest = publish_rows(here / "out.jsonl", [], here / "in")

    result = duplicates(manifest, "-o", "groups.json")

    assert result.exit_code == ExitCode.OK
    assert json.loads(Path("groups.json").read_text())["groups"] == []
    assert result.stdout == ""


def test_a_source_that_is_away_is_named_and_nothing_is_written(here):
    manifest = publish_rows(here / "out.csv", ROWS, here / "in")
    shutil.move("in", "elsewhere")

    result = duplicates(manifest, "-o", "groups.csv")

    assert result.exit_code == ExitCode.NOT_FOUND
    assert f"{str(here / 'in')!r}, is not here; mount it" in result.stderr
    assert not Path("groups.csv").exists()


def test_a_source_without_any_of_its_images_fails(here):
    manifest = publish_rows(here / "out.csv", ROWS[:3], here / "home")

    result = duplicates(manifest)

    assert result.exit_code == ExitCode.FAILED
    assert "no image of " in result.stderr
    assert result.stderr.rstrip().endswith("could be read: 3 missing")


def test_a_path_that_was_changed_to_lead_out_of_the_source_is_not_read(here):
    outside = write_files(here, {"secret.png": photo_png(1)}) / "secret.png"
    rows = [answered("a.png", "7"), answered("../secret.png", "7"), answered(str(outside), "7")]
    manifest = publish_rows(here / "out.csv", rows, here / "in")

    shown = json.loads(duplicates(manifest, "--json").stdout)

    assert (shown["unreadable"], shown["groups"]) == ({"outside_root": 2}, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("7:0.500000", ""), "no job writes such a row"),
        (lambda text: text + "x,ok\n", "2 cells, not 8"),
        (lambda text: text.replace("path,", "file,"), "is not a manifest"),
    ],
)  # fmt: skip
def test_a_manifest_that_was_changed_by_hand_is_refused_before_anything_is_written(here, change, said):
    manifest = publish_rows(here / "out.csv", ROWS, here / "in")
    manifest.write_text(change(manifest.read_text()))

    result = duplicates(manifest, "-o", "groups.csv")

    assert result.exit_code == ExitCode.FAILED
    assert said in result.stderr
    assert not Path("groups.csv").exists()


@pytest.mark.parametrize("root", [None, 7, "relative", "/nul\0"])
def test_a_summary_without_a_root_is_refused(here, root):
    manifest = publish_rows(here / "out.csv", ROWS, here / "in")
    summary = Path(f"{manifest}.summary.json")
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"root": root}))

    result = duplicates(manifest)

    assert result.exit_code == ExitCode.FAILED
    assert "names no folder as the root of its images" in result.stderr


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("groups.txt", "does not end in .csv or .json"),
        ("in/groups.csv", "is inside the source, which is never written to"),
        ("out.csv", "is the manifest itself"),
        ("out.csv.summary.json", "is the manifest itself, or a file beside it"),
        ("there.csv", "exists; name another, or replace it with --overwrite"),
        ("folder.csv", "is a folder"),
        ("nowhere/groups.csv", "there is no folder"),
        ("pipe.csv", "is not a regular file"),
    ],
)  # fmt: skip
def test_an_output_that_cannot_be_is_refused_before_any_image_is_read(here, output, said):
    manifest = publish_rows(here / "out.csv", ROWS, here / "in")
    Path("there.csv").write_text("mine")
    Path("folder.csv").mkdir()
    os.mkfifo("pipe.csv")
    shutil.rmtree("in")

    result = duplicates(manifest, "-o", output)

    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr
    assert Path("there.csv").read_text() == "mine"


def test_overwrite_replaces_a_file(here):
    manifest = publish_rows(here / "out.csv", ROWS, here / "in")
    Path("groups.csv").write_text("old")

    assert duplicates(manifest, "-o", "groups.csv", "--overwrite").exit_code == ExitCode.OK
    assert Path("groups.csv").read_text().startswith("group,kind,")


def test_an_interrupt_leaves_nothing_behind(here):
    manifest = publish_rows(here / "out.csv", ROWS, here / "in")
    scratch = here / "scratch"
    scratch.mkdir()

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with manifest.open("rb") as file, pytest.raises(KeyboardInterrupt):
        read_images(find_published(get_settings(), str(manifest)), file, scratch, interrupt)

    assert list(scratch.iterdir()) == []


def test_groups_are_read_from_the_manifest_that_was_opened_where_it_is_replaced_meanwhile(here):
    manifest = publish_rows(here / "out.csv", ROWS, here / "in")
    published = find_published(get_settings(), str(manifest))
    with manifest.open("rb") as file:
        found = read_images(published, file, here, lambda done, total: None).group()
        manifest.unlink()
        publish_rows(manifest, ROWS[::-1], here / "in")
        with Path("groups.csv").open("wb") as written:
            write_groups(written, ".csv", published, file, found)

    assert Path("groups.csv").read_text().splitlines()[1] == "1,exact,a.png,7,0.500000"
