"""Classify jobs through a real server and a warm worker."""

import csv
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from modeling.images.decode import decode_image
from modeling.inference.classifier import Classifier
from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.rows import FORMATS
from tests.support.images import grey_png
from tests.support.published_models import make_pngs
from tests.support.workers import Cluster, read_json

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SIZE = (28, 28)
PATHOLOGICAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pathological"


def pillow_loads(path: Path) -> bool:
    """Whether Pillow itself can load an image."""
    try:
        with Image.open(path) as image:
            image.convert("RGB")
    except Exception:  # Pillow raises whatever its plugins do
        return False
    return True


@pytest.mark.parametrize("output_format", ["csv", "json", "jsonl"])
def test_every_image_of_a_folder_becomes_one_row_in_order_with_the_models_own_answer(
    running_cluster: Cluster, tmp_path: Path, output_format: str
):
    make_pngs(tmp_path / "in", 150)
    manifest = tmp_path / f"out.{output_format}"

    printed = running_cluster.run_ok(
        "classify", str(tmp_path / "in"), "--model", "digits", "-o", str(manifest), "--shard-size", "40", "--top-k", "3"
    )

    assert printed.strip() == str(manifest)
    rows = list(FORMATS[output_format].read(manifest))
    names = sorted(str(path.relative_to(tmp_path / "in")) for path in (tmp_path / "in").rglob("*.png"))
    assert [row.path for row in rows] == names
    version = ModelStore(running_cluster.settings.models).resolve("digits")
    classifier = Classifier.load(version.path)
    image = decode_image((tmp_path / "in" / names[77]).read_bytes(), classifier.preprocessing)
    [expected] = classifier.predict(image[None], 3)
    assert rows[77].prediction.labels == expected.labels
    assert rows[77].prediction.scores == pytest.approx(expected.scores, abs=1e-5)
    assert running_cluster.run_ok("results", "verify", str(manifest)).endswith("agrees with its summary\n")
    summary = read_json(manifest.with_name(manifest.name + ".summary.json"))
    assert summary["counts"]["num_images"] == 150
    assert summary["model"]["digest"] == version.digest
    assert summary["shards"] == {"num_shards": 4, "shards_given_up": 0}


def test_broken_images_get_their_own_rows_and_cost_their_neighbours_nothing(running_cluster: Cluster, tmp_path: Path):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(40):
        (source / f"{number:02d}.png").write_bytes(grey_png(number, SIZE))
    (source / "05.png").write_bytes(b"")
    (source / "06.png").write_bytes(grey_png(0, SIZE)[:50])
    (source / "07.png").write_text("these are words")
    (source / "08.png").unlink()
    os.mkfifo(source / "08.png")
    (source / "09.png").unlink()
    (source / "09.png").symlink_to("nowhere.png")
    (source / "10.png").unlink()
    (source / "10.png").symlink_to("/etc/hostname")
    (source / "11.png").unlink()
    (source / "11.png").symlink_to("12.png")
    (source / ".hidden.png").write_bytes(grey_png(0, SIZE))
    (source / "notes.txt").write_text("not an image")

    printed = running_cluster.run_ok(
        "classify", str(source), "--model", "digits", "--json", "-o", str(tmp_path / "out.csv")
    )

    record = json.loads(printed)
    assert (record["state"], record["num_images"], record["num_failed"]) == ("partial", 40, 6)
    rows = {row.path: row.prediction for row in FORMATS["csv"].read(tmp_path / "out.csv")}
    assert {path: prediction.error_code for path, prediction in rows.items() if not prediction.ok} == {
        "05.png": "empty",
        "06.png": "truncated",
        "07.png": "not_an_image",
        "08.png": "not_a_file",
        "09.png": "missing",
        "10.png": "outside_root",
    }
    assert rows["11.png"] == rows["12.png"]
    summary = read_json(tmp_path / "out.csv.summary.json")
    assert summary["listing"]["skipped"] == {".txt": 1, "hidden": 1}


def test_odd_file_names_survive_into_every_format_and_back(running_cluster: Cluster, tmp_path: Path):
    source = tmp_path / "in"
    source.mkdir()
    names = [
        b"with space.png", b"new\nline.png", b"carriage\rreturn.png", b'quote".png', b"comma,semi;colon:.png",
        "emoji \U0001f4ee.png".encode(), b"=1+2.png", b"+plus.png", b"-minus.png", b"@at.png", b"'single.png",
        b"latin\xe9.png", b"back\\x41slash.png", b"tab\t.png",
    ]  # fmt: skip
    for name in names:
        with open(os.fsencode(source) + b"/" + name, "wb") as file:
            file.write(grey_png(0, SIZE))

    for output_format in FORMATS:
        manifest = tmp_path / f"out.{output_format}"
        running_cluster.run_ok("classify", str(source), "--model", "digits", "-o", str(manifest))

        manifest.read_text(encoding="utf-8")
        assert sorted(os.fsencode(row.path) for row in FORMATS[output_format].read(manifest)) == sorted(names)
    with (tmp_path / "out.csv").open(newline="") as file:
        cells = [row["path"] for row in csv.DictReader(file)]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert "new\nline.png" in cells


def test_lists_standard_input_globs_and_single_images_are_sources_too(running_cluster: Cluster, tmp_path: Path):
    source = tmp_path / "in"
    make_pngs(source, 5)
    (tmp_path / "list.txt").write_text("in/00000/00000003.png\nin/gone.png\n../outside.png\n")
    (tmp_path / "list.csv").write_text("label,path\nx,00000/00000001.png\n")

    def rows_of(*arguments: str, input: bytes | None = None) -> list[tuple[str, str | None]]:
        manifest = tmp_path / "out.jsonl"
        options = ("--model", "digits", "--overwrite", "-o", str(manifest))
        running_cluster.run_ok("classify", *arguments, *options, input=input, cwd=tmp_path)
        return [(row.path, row.prediction.error_code) for row in FORMATS["jsonl"].read(manifest)]

    assert rows_of("list.txt") == [
        ("in/00000/00000003.png", None),
        ("in/gone.png", "missing"),
        ("../outside.png", "outside_root"),
    ]
    assert rows_of("list.csv", "--root", "in") == [("00000/00000001.png", None)]
    assert rows_of("-", "--root", str(source), input=f"{source}/00000/00000002.png\0".encode()) == [
        ("00000/00000002.png", None)
    ]
    assert rows_of("in/**/*[13].png") == [("00000/00000001.png", None), ("00000/00000003.png", None)]
    assert rows_of("in/00000/00000004.png") == [("00000004.png", None)]


def test_a_job_whose_images_all_failed_exits_with_3_unless_that_is_allowed(running_cluster: Cluster, tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    command = ("classify", str(tmp_path / "bad.png"), "--model", "digits", "--json")

    failed = running_cluster.run(*command)
    allowed = running_cluster.run(*command, "--max-failures", "100%")

    assert (failed.returncode, allowed.returncode) == (3, 0)
    assert "no image has an answer: the exit code is 3, unless --max-failures 100% allows it" in failed.stderr
    assert running_cluster.run("wait", json.loads(failed.stdout)["job"]).returncode == 3
    assert running_cluster.run("watch", json.loads(allowed.stdout)["job"]).returncode == 0


def test_an_existing_output_is_replaced_only_if_that_is_asked_for(running_cluster: Cluster, tmp_path: Path):
    make_pngs(tmp_path / "in", 3)
    (tmp_path / "out.csv").write_text("mine")
    command = ("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "out.csv"))

    refused = running_cluster.run(*command)

    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert (tmp_path / "out.csv").read_text() == "mine"
    running_cluster.run_ok(*command, "--overwrite")
    assert len(list(FORMATS["csv"].read(tmp_path / "out.csv"))) == 3


def test_more_failures_than_allowed_stop_the_job_with_exit_code_3_and_no_manifest(
    running_cluster: Cluster, tmp_path: Path
):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(30):
        (source / f"{number}.png").write_bytes(b"rubbish" if number % 2 else grey_png(0, SIZE))

    command = ("classify", str(source), "--model", "digits", "-o", str(tmp_path / "out.csv"))
    stopped = running_cluster.run(*command, "--max-failures", "10%")

    assert stopped.returncode == 3, stopped.stderr
    assert "more than the 3 allowed" in stopped.stderr
    left = ["out.csv.incomplete", "out.csv.incomplete.sources", "out.csv.incomplete.summary.json"]
    assert sorted(path.name for path in tmp_path.glob("*out.csv*")) == left
    assert running_cluster.run(*command, "--max-failures", "50%").returncode == 0


def test_one_idempotency_key_is_one_job_and_another_spec_under_it_is_refused(running_cluster: Cluster, tmp_path: Path):
    make_pngs(tmp_path / "in", 3)
    command = ("classify", str(tmp_path / "in"), "--model", "digits", "--idempotency-key", "monday")
    output = ("-o", str(tmp_path / "out.csv"))
    before = len(running_cluster.jobs())

    first = json.loads(running_cluster.run_ok(*command, *output, "--json"))
    second = json.loads(running_cluster.run_ok(*command, *output, "--json"))
    other = running_cluster.run(*command, "-o", str(tmp_path / "other.csv"))

    assert second == first
    assert len(running_cluster.jobs()) == before + 1
    assert other.returncode == 2
    assert "stands for another request" in other.stderr


def test_a_damaged_manifest_is_detected(running_cluster: Cluster, tmp_path: Path):
    make_pngs(tmp_path / "in", 20)
    manifest = tmp_path / "out.csv"
    running_cluster.run_ok("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(manifest))
    lines = manifest.read_text().splitlines(keepends=True)

    manifest.write_text("".join(lines[:5] + lines[6:]))
    done = running_cluster.run("results", "verify", str(manifest))

    assert done.returncode == 1
    assert "rows: the summary says 20, found 19" in done.stderr
    assert "paths in listed order" in done.stderr
    assert "DIFFERS" in done.stdout


@pytest.mark.skipif(not PATHOLOGICAL.exists(), reason="the pathological files are not on this machine")
def test_over_a_thousand_broken_and_odd_files_end_as_rows(running_cluster: Cluster, tmp_path: Path):
    with (PATHOLOGICAL / "MANIFEST.csv").open(newline="") as file:
        loads = {row["path"]: row["load"] == "ok" and row["rgb"] == "ok" for row in csv.DictReader(file)}
    files = {str(path.relative_to(PATHOLOGICAL)) for path in PATHOLOGICAL.rglob("*") if path.is_file()}
    unnamed = {"MANIFEST.csv"} | {path for path in files if path.startswith("bmpsuite/html/")}

    printed = running_cluster.run_ok(
        "classify", str(PATHOLOGICAL), "--model", "digits", "--all-files", "--json", "-o", str(tmp_path / "out.jsonl")
    )

    rows = list(FORMATS["jsonl"].read(tmp_path / "out.jsonl"))
    assert len(rows) == json.loads(printed)["num_images"] == len(files)
    assert {row.path for row in rows} == files
    assert files - loads.keys() == unnamed
    assert loads.keys() - files == set()
    loads |= {path: pillow_loads(PATHOLOGICAL / path) for path in unnamed}
    beyond_pillow = {row.path for row in rows if row.prediction.ok and not loads[row.path]}
    assert beyond_pillow == {
        "pillow/png_decompression_dos.png",  # its text is too long for Pillow
        "pillow/unknown_compression_method.png",  # of a colour profile
        "pillow/truncated_jpeg.jpg",  # lacks its end marker only
        "pillow/avif/hopper.heif",  # HEIC is read by the extra
    }
