"""`pigeonhole scan`: the report, the exit code, the quarantine list."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from orchestrator.cli import main
from orchestrator.contract.errors import ExitCode
from orchestrator.contract.settings import get_settings
from tests.support.images import encode, make_idx
from tests.support.pictures import photo_png, write_files
from tests.support.workers import without_waiting


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def scan(*arguments: object) -> Result:
    get_settings.cache_clear()
    result = CliRunner().invoke(main, ["scan", *map(str, arguments)], prog_name="pigeonhole")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[3]
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=root)


def test_several_data_sets_are_scanned_as_one_and_corrections_are_counted(tmp_path):
    files = {f"{folder}/{label}/{n}.png": photo_png(100 * ord(folder) + 10 * n + ord(label))
             for folder in "xy" for label in "ab" for n in range(4)}  # fmt: skip
    write_files(tmp_path, files)
    Path("corrected.csv").write_text("path,status,label,corrected_label\nx/a/0.png,ok,a,b\ny/a/0.png,ok,a,b\n")

    result = scan("x", "y", "corrected.csv", "--quarantine", "suspects.csv")
    shown = json.loads(scan("x", "corrected.csv", "--json").stdout)

    lines = result.stdout.splitlines()
    assert lines[0].startswith("16 images in 2 classes (several data sets, ")
    assert [line.split()[:2] for line in lines[6:8]] == [["b", "10"], ["a", "6"]]
    assert f"{tmp_path}/corrected.csv: 2 corrected, 0 of them not in {tmp_path}/x or {tmp_path}/y" in result.stdout
    assert [source["num_images"] for source in shown["sources"]] == [8, 2]
    assert scan("x", "y", "--quarantine", "y/suspects.csv").exit_code == ExitCode.USAGE


def make_data(root: Path) -> Path:
    files = {f"{label}/{n}.png": photo_png(10 * n + ord(label)) for label in "ab" for n in range(4)}
    files |= {"a/broken.png": b"", "b/copy.png": files["a/0.png"]}
    return write_files(root, files)


def test_the_report_has_counts_findings_and_whether_the_data_is_trainable(tmp_path):
    result = scan(make_data(tmp_path / "data"))

    lines = result.stdout.splitlines()
    assert lines[0].startswith("10 images in 2 classes (a folder per class, ")
    assert lines[1:8] == [
        "formats: 9 PNG",
        "modes: 9 RGB",
        "sizes: all 96 x 72",
        "",
        "CLASS  IMAGES",
        "b      5       " + "█" * 30,
        "a      4       " + "█" * 24,
    ]
    assert lines[8:] == [
        "",
        "warning  1 of 10 images cannot be read and are left out (1 empty); for one, a/broken.png: empty: the file is "
        "empty (0 bytes)",
        "warning  2 images in 1 set are the same bytes in different classes (a/0.png = b/copy.png); at most one class "
        "is right",
        "",
        "duplicates",
        "  a/0.png = b/copy.png",
        "",
        "ready to train",
    ]
    assert (result.exit_code, result.stderr) == (ExitCode.OK, "")


def test_json_prints_the_same_as_data(tmp_path):
    result = scan(make_data(tmp_path / "data"), "--json")

    shown = json.loads(result.stdout)
    assert (shown["num_images"], shown["num_unreadable"], shown["classes"]) == (10, 1, {"a": 4, "b": 5})
    assert [finding["code"] for finding in shown["findings"]] == ["unreadable", "duplicates_across_classes"]
    assert result.exit_code == ExitCode.OK


def test_the_quarantine_list_is_written_outside_the_data_only(tmp_path):
    data = make_data(tmp_path / "data")

    result = scan(data, "--quarantine", tmp_path / "suspects.csv")
    refused = scan(data, "--quarantine", data / "suspects.csv")

    with (tmp_path / "suspects.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["a/broken.png", "a/0.png", "b/copy.png"]
    assert f"3 rows to check are in {tmp_path}/suspects.csv" in result.stderr
    assert refused.exit_code == ExitCode.USAGE
    assert "is inside the data, which are never written to" in refused.stderr
    assert not (data / "suspects.csv").exists()


def test_the_quarantine_list_never_replaces_the_list_that_is_scanned(tmp_path):
    write_files(
        tmp_path, {"1.png": photo_png(1), "2.png": photo_png(2), "labels.csv": b"path,label\n1.png,a\n2.png,b\n"}
    )

    refused = scan("labels.csv", "--quarantine", "./labels.csv")

    assert (refused.exit_code, "is the data file" in refused.stderr) == (ExitCode.USAGE, True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/1.png": b"x", "b/1.png": b"y"}, "none of the 2 images"),
        ({"a/1.png": photo_png(1), "b/1.png": photo_png(2)}, "only one image"),
        ({"a/1.png": photo_png(1), "b/notes.txt": b""}, "holds no images"),
        ({"a/1.png": photo_png(1)}, "one class only"),
        ({}, "is missing"),
    ],
)
def test_what_cannot_be_trained_on_ends_with_one(tmp_path, files, message):
    write_files(tmp_path / "data", files)

    result = scan(tmp_path / "data")

    assert (result.exit_code, message in result.output) == (ExitCode.FAILED, True)


def test_a_second_scan_remembers_below_the_home_and_not_in_the_data(tmp_path, home):
    data = make_data(tmp_path / "data")
    before = sorted(data.rglob("*"))

    scan(data)

    assert sorted(data.rglob("*")) == before
    assert [path.name for path in (home / "cache").iterdir()] == ["image_facts.sqlite"]


def test_pixels_and_parts_are_shown(tmp_path):
    result = scan(make_idx(tmp_path / "data", 20, 4))

    assert "24 images in 2 classes (idx files, " in result.stdout
    assert "parts: 20 train, 4 test" in result.stdout


def test_what_libraries_write_about_odd_files_stays_off_the_terminal(tmp_path):
    header = b"II*\x00\x08\x00\x00\x00\x01\x00\x00\x01\x03\x00\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00"
    cut = encode(Image.new("L", (64, 64), 100), "TIFF", compression="tiff_lzw")[:-20]
    data = write_files(make_data(tmp_path / "data"), {"a/pillow warns.tif": header, "a/libtiff writes.tif": cut})

    found = run_python("-m", "orchestrator", "scan", str(data))

    assert (found.returncode, without_waiting(found.stderr)) == (0, "")
    assert "3 of 12 images cannot be read" in found.stdout


def test_scanning_loads_no_torch():
    code = (
        "import sys, modeling.data.forms.open, modeling.data.scan, modeling.data.splits, orchestrator.cli.scan; "
        "print([name for name in ('torch', 'torchvision', 'celery', 'redis') if name in sys.modules])"
    )

    found = run_python("-c", code)

    assert found.stdout == "[]\n"


def test_a_quarantine_list_without_a_folder_is_refused_before_the_scan(tmp_path):
    result = scan(make_data(tmp_path / "data"), "--quarantine", tmp_path / "nowhere" / "suspects.csv")

    folder = str(tmp_path / "nowhere")
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert result.stderr.splitlines() == [f"error: there is no folder {folder!r} for the list; make it first"]


def test_a_set_in_two_classes_is_told_by_a_pair_of_different_classes(tmp_path):
    same = photo_png(1)
    files = {"a/1.png": same, "a/2.png": same, "a/3.png": photo_png(3), "b/1.png": same, "b/4.png": photo_png(4)}

    result = scan(write_files(tmp_path / "data", files))

    assert "(a/1.png = b/1.png); at most one class is right" in result.stdout


def test_a_layout_is_obeyed_and_what_it_leaves_out_is_told(tmp_path):
    names = [f"{part}/{label}/{n}.png" for part in ("train", "val") for label in "ab" for n in "12"]
    files = {name: photo_png(number) for number, name in enumerate([*names, "runs/1.png"])}
    data = write_files(tmp_path / "data", files)

    refused, as_parts, as_classes = scan(data), scan(data, "--layout", "parts"), scan(data, "--layout", "classes")

    assert refused.exit_code == ExitCode.FAILED
    assert "holds train, val, which are parts, and runs, which is not; move it away, or give --layout" in refused.stderr
    assert as_parts.stdout.startswith("8 images in 2 classes (part folders of classes, ")
    assert "1 folders beside the parts were left out, as --layout parts asks" in as_parts.stdout
    assert as_classes.stdout.startswith("9 images in 3 classes (a folder per class, ")
