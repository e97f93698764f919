"""`pigeonhole results export`: what is written for whom, and inputs that are not as a job left them."""

import csv
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import main
from orchestrator.contract.errors import ExitCode
from orchestrator.contract.jobs.rows import FORMATS, Row
from orchestrator.contract.settings import get_settings
from orchestrator.export.tables import MOST_CHARACTERS
from tests.support.images import grey_png
from tests.support.manifests import answered, failed, publish_rows

ROOT = Path(__file__).parents[3]
LATIN = os.fsdecode(b"caf\xe9.png")
BIRD = '<great & "tit">'
ROWS = [
    answered("a.png", "7", BIRD, score=0.5, decision="accept"),
    answered("sub/b c+d.png", BIRD, "7", score=0.25, decision="review"),
    failed("broken.png"),
    answered("ü;\n'&.png", "=1+2", "7", score=1.0),
    answered(LATIN, "..", score=0.125),
    answered("lit\\x41.png", "7", score=0.75),
]
WRITTEN = [
    ("a.png", "7", 0.5),
    ("sub/b c+d.png", BIRD, 0.25),
    ("ü;\n'&.png", "=1+2", 1.0),
    ("caf\\xe9.png", "..", 0.125),
    ("lit\\x41.png", "7", 0.75),
]
LABELS = ["..", "7", BIRD, "=1+2"]
EVERY_KIND = ("csv", "json", "jsonl", "label-studio", "cvat", "coco", "ultralytics")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def manifest(here: Path) -> Path:
    return publish_rows(here / "out.csv", ROWS, here / "my photos")


def export(*arguments: object) -> Result:
    get_settings.cache_clear()
    result = CliRunner().invoke(main, ["results", "export", *map(str, arguments)], prog_name="pigeonhole")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def make_images(root: Path) -> None:
    for row in ROWS:
        (root / row.path).parent.mkdir(parents=True, exist_ok=True)
        (root / row.path).write_bytes(os.fsencode(row.path))


@pytest.mark.parametrize("before", ["csv", "json", "jsonl"])
@pytest.mark.parametrize("after", ["csv", "json", "jsonl"])
def test_a_manifest_in_another_of_its_formats_has_the_same_rows(here, before, after):
    manifest = publish_rows(here / f"out.{before}", ROWS, here / "in")

    result = export(manifest, "--to", after, "-o", "new")

    assert result.exit_code == ExitCode.OK
    assert list(FORMATS[after].read(Path("new"))) == ROWS
    if before == after == "csv":
        assert Path("new").read_bytes() == manifest.read_bytes()


def test_a_document_counts_the_rows_that_are_in_it(manifest):
    export(manifest, "--to", "json", "-o", "new.json", "--where", "decision=review or status=error")

    document = json.loads(Path("new.json").read_text())
    assert (document["num_images"], document["num_failed"], len(document["predictions"])) == (2, 1, 2)
    assert document["model"] == "digits@1"


def test_excel_gets_a_byte_order_mark_lines_of_windows_and_cells_that_are_no_formulas(manifest):
    result = export(manifest, "--to", "csv", "--excel", "-o", "sheet.csv")

    data = Path("sheet.csv").read_bytes()
    with open("sheet.csv", encoding="utf-8-sig", newline="") as file:
        head, *rows = csv.reader(file)
    with manifest.open(encoding="utf-8", newline="") as file:
        assert [head, *rows] == list(csv.reader(file))
    assert result.exit_code == ExitCode.OK
    assert data.startswith(b"\xef\xbb\xbfpath,")
    assert data.count(b"\r\n") == len(ROWS) + 1
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row)
    assert rows[3][3] == "'=1+2"


def test_a_cell_that_excel_would_cut_ends_with_a_whole_label(here):
    labels = [f"label {number:04}" for number in range(3000)]
    manifest = publish_rows(here / "long.csv", [answered("a.png", *labels)], here / "in")

    export(manifest, "--to", "csv", "--excel", "-o", "sheet.csv")

    with open("sheet.csv", encoding="utf-8-sig", newline="") as file:
        _, row = csv.reader(file)
    assert MOST_CHARACTERS - 30 < len(row[5]) <= MOST_CHARACTERS
    assert row[5].split(";")[0] == "label 0000:0.750000"
    assert row[5].split(";")[-1].startswith("label ")
    assert row[5][-7] == "."


def test_label_studio_gets_tasks_with_predictions_and_the_interface_for_them(manifest):
    result = export(manifest, "--to", "label-studio", "-o", "tasks.json")

    tasks = json.loads(Path("tasks.json").read_text())
    interface = ET.parse("tasks.json.config.xml").getroot()  # noqa: S314 our own file
    [control], [image] = interface.iter("Choices"), interface.iter("Image")
    served = [parse_qs(urlsplit(task["data"]["image"]).query)["d"][0] for task in tasks]
    assert result.exit_code == ExitCode.OK
    assert [choice.get("value") for choice in control] == LABELS
    assert image.get("value") == "$image"
    assert served[:3] == ["my photos/a.png", "my photos/sub/b c+d.png", "my photos/ü;\n'&.png"]
    assert tasks[0] == {
        "data": {"image": "/data/local-files/?d=my%20photos/a.png", "path": "a.png", "decision": "accept"},
        "predictions": [{
            "model_version": "digits@1", "score": 0.5,
            "result": [{"from_name": control.get("name"), "to_name": image.get("name"), "type": "choices",
                        "value": {"choices": ["7"]}}],
        }],
    }  # fmt: skip
    predictions = [task["predictions"][0] for task in tasks]
    assert [
        (task["data"]["path"], *found["result"][0]["value"]["choices"], found["score"])
        for task, found in zip(tasks, predictions, strict=True)
    ] == WRITTEN


def test_cvat_gets_a_tag_for_each_image_and_the_labels_of_its_task(manifest):
    result = export(manifest, "--to", "cvat", "-o", "annotations.xml", "--prefix", "photos/")

    root = ET.parse("annotations.xml").getroot()  # noqa: S314 our own file
    images = root.findall("image")
    assert result.exit_code == ExitCode.OK
    assert (root.tag, root.findtext("version"), root.findtext("meta/task/size")) == ("annotations", "1.1", "5")
    assert [label.text for label in root.iterfind("meta/task/labels/label/name")] == LABELS
    assert [image.get("id") for image in images] == ["0", "1", "2", "3", "4"]
    assert [
        (image.get("name"), image.find("tag").get("label"), float(image.findtext("tag/attribute"))) for image in images
    ] == [(f"photos/{name}", label, score) for name, label, score in WRITTEN]
    specification = json.loads(Path("annotations.xml.labels.json").read_text())
    assert [(label["name"], label["type"]) for label in specification] == [(label, "tag") for label in LABELS]


def test_coco_gets_a_category_for_each_image(manifest):
    result = export(manifest, "--to", "coco", "-o", "coco.json")

    document = json.loads(Path("coco.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    files = {image["id"]: image["file_name"] for image in document["images"]}
    assert result.exit_code == ExitCode.OK
    assert list(names.values()) == LABELS
    assert min(names) == min(files) == 1
    assert [
        (files[found["image_id"]], names[found["category_id"]], found["score"]) for found in document["annotations"]
    ] == WRITTEN


def test_ultralytics_gets_folders_of_copies_with_names_that_every_file_system_holds(here):
    rows = [answered(f"{number}.png", label) for number in range(24) for label in ("CON", "a/b", "A", "a")]
    rows = [Row(f"{row.path[:-4]}-{place}.png", row.prediction) for place, row in enumerate(rows)]
    for row in rows:
        (here / "in").mkdir(exist_ok=True)
        (here / "in" / row.path).write_bytes(row.path.encode())
    manifest = publish_rows(here / "out.csv", rows, here / "in")

    result = export(manifest, "--to", "ultralytics", "-o", "dataset")

    parts = {part: sorted(folder.name for folder in (here / "dataset" / part).iterdir()) for part in ("train", "val")}
    files = [path for path in (here / "dataset").rglob("*") if path.is_file()]
    assert result.exit_code == ExitCode.OK
    assert parts["train"] == parts["val"]
    assert len({name.casefold() for name in parts["train"]}) == 4
    assert not {"CON", "a/b"} & set(parts["train"])
    assert sorted(path.read_bytes().decode() for path in files) == sorted(row.path for row in rows)
    assert not any(path.is_symlink() or path.stat().st_nlink > 1 for path in files)
    assert len([path for path in files if path.parts[-3] == "val"]) == 4 * 3


def test_images_that_are_gone_or_of_another_format_are_left_out_and_counted(here):
    rows = [answered("a.png", "7"), answered("gone.png", "7"), answered("b.gif", "7"), failed("broken.png"),
            answered("../outside.png", "7")]  # fmt: skip
    manifest = publish_rows(here / "out.csv", rows, here / "in")
    for name in ("in/a.png", "in/b.gif", "outside.png"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(b"x")

    shown = json.loads(export(manifest, "--to", "ultralytics", "-o", "dataset", "--json").stdout)

    assert shown["num_images"] == 1
    assert shown["left_out"] == {"without an answer": 1, "another format": 1, "missing": 1, "outside_root": 1}


def test_rows_without_an_answer_are_left_out_and_names_that_cannot_be_written_are_counted(manifest):
    result = export(manifest, "--to", "coco", "-o", "coco.json", "--json")

    assert "left out: 1 without an answer" in result.stderr
    assert "1 names are not UTF-8 or hold control characters" in result.stderr
    assert json.loads(result.stdout) == {
        "to": "coco", "files": ["coco.json"], "num_images": 5, "left_out": {"without an answer": 1}, "num_altered": 1,
    }  # fmt: skip


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_an_empty_manifest_gives_an_empty_export(here, kind):
    manifest = publish_rows(here / "out.jsonl", [], here)
    shutil.move(manifest, "moved.jsonl")
    shutil.move("out.jsonl.summary.json", "moved.jsonl.summary.json")
    (here / "in").mkdir()
    summary = json.loads(Path("moved.jsonl.summary.json").read_text()) | {"root": str(here / "in")}
    Path("moved.jsonl.summary.json").write_text(json.dumps(summary))

    result = export("moved.jsonl", "--to", kind, "-o", "new")

    assert result.exit_code == ExitCode.OK
    assert result.stderr.startswith("0 images are in new")
    if kind in ("json", "label-studio", "coco"):
        assert json.loads(Path("new").read_text()) in ([], json.loads(Path("new").read_text()))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_manifest_that_was_changed_by_hand_is_refused_and_nothing_appears(here, kind):
    make_images(here / "my photos")
    manifest = publish_rows(here / "out.csv", ROWS, here / "my photos")
    manifest.write_text(manifest.read_text() + "x,ok\n")
    before = sorted(path.name for path in here.iterdir())

    result = export(manifest, "--to", kind, "-o", "new")

    assert result.exit_code == ExitCode.FAILED
    assert "2 cells, not 8" in result.stderr
    assert sorted(path.name for path in here.iterdir()) == before


def test_a_source_that_is_away_matters_only_where_images_are_copied(here, manifest):
    assert export(manifest, "--to", "coco", "-o", "coco.json").exit_code == ExitCode.OK

    result = export(manifest, "--to", "ultralytics", "-o", "dataset")

    assert result.exit_code == ExitCode.NOT_FOUND
    assert "is not here; mount it" in result.stderr
    assert not Path("dataset").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "coco", "-o", "my photos/new.json"], "is inside the source, which is never written to"),
        (["--to", "ultralytics", "-o", "my photos/new"], "is inside the source, which is never written to"),
        (["--to", "ultralytics", "-o", "linked/new"], "is inside the source, which is never written to"),
        (["--to", "csv", "-o", "out.csv", "--overwrite"], "is the manifest itself"),
        (["--to", "csv", "-o", "out.csv.sources", "--overwrite"], "is the manifest itself, or a file beside it"),
        (["--to", "csv", "-o", "there"], "exists; name another, or replace it with --overwrite"),
        (["--to", "cvat", "-o", "half"], "half.labels.json' exists"),
        (["--to", "ultralytics", "-o", "home"], "exists; name a folder that does not"),
        (["--to", "ultralytics", "-o", "new", "--overwrite"], "writes a folder: name one that does not exist"),
        (["--to", "csv", "-o", "home"], "is a folder; name a file in it"),
        (["--to", "json", "-o", "new", "--excel"], "--excel is for --to csv, not for --to json"),
        (["--to", "csv", "-o", "new", "--prefix", "x/"], "--prefix is for --to label-studio, cvat, coco"),
        (["--to", "coco", "-o", "new", "--where", "lable=7"], "did you mean label?"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_anything_is(here, manifest, arguments, said):
    make_images(here / "my photos")
    (here / "home").mkdir(exist_ok=True)
    (here / "linked").symlink_to("my photos")
    for name in ("there", "half.labels.json"):
        Path(name).write_text("mine")
    before = sorted(here.rglob("*"))

    result = export(manifest, *arguments)

    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr
    assert sorted(here.rglob("*")) == before
    assert Path("there").read_text() == "mine"


def test_overwrite_replaces_both_files_of_an_export(manifest):
    for name in ("new", "new.config.xml"):
        Path(name).write_text("old")

    assert export(manifest, "--to", "label-studio", "-o", "new", "--overwrite").exit_code == ExitCode.OK
    assert "old" not in (Path("new").read_text(), Path("new.config.xml").read_text())


FULL = """
import resource, sys
from orchestrator.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
main(["results", *sys.argv[1:]])
"""


@pytest.mark.parametrize("command", [["export", "--to", "coco", "-o", "new.json"], ["duplicates", "-o", "new.json"]])
def test_a_disk_that_becomes_full_leaves_no_half_of_a_file(here, command):
    make_images(here / "in")
    rows = [answered(f"{number}.png", "7") for number in range(100)]
    for row in rows:
        (here / "in" / row.path).write_bytes(grey_png(7))
    manifest = publish_rows(here / "out.csv", rows, here / "in")
    (here / "home" / "cache").mkdir(parents=True)
    before = sorted(path.name for path in here.iterdir())

    name, *options = command
    arguments = [sys.executable, "-c", FULL, name, str(manifest), *options]
    done = subprocess.run(arguments, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})

    assert done.returncode == ExitCode.FAILED
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in here.iterdir()) == before
    assert list((here / "home" / "cache").iterdir()) == []
