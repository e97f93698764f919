"""Exports read by the programs that they are for, where these are installed (tests/support/readers.py)."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.contract.settings import get_settings
from tests.support.manifests import answered, failed, publish_rows
from tests.support.pictures import photo_png, write_files
from tests.support.readers import ROOT, python_with

pytestmark = pytest.mark.integration

SCRIPT = ROOT / "tests" / "readers" / "read_export.py"
NAMES = ["a.png", "sub/b c+d.png", "ü;'&.png", *(f"n{number:02}.png" for number in range(30))]
LABELS = ["7", '<great & "tit">', "x:y;z", "..", "CON"]


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    write_files(tmp_path / "images", {name: photo_png(seed) for seed, name in enumerate(NAMES)})
    rows = [answered(name, LABELS[place % 5], score=0.5 + place / 100) for place, name in enumerate(NAMES)]
    return publish_rows(tmp_path / "out.csv", [*rows, failed("broken.png")], tmp_path / "images")


def read(module: str, kind: str, output: str) -> list[list[object]]:
    """What the program reads; skips where it is not installed."""
    environment = os.environ | {"YOLO_CONFIG_DIR": str(Path.cwd() / "yolo"), "YOLO_OFFLINE": "true"}
    command = [python_with(module), SCRIPT, kind, output]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def export(manifest: Path, kind: str, output: str) -> None:
    arguments = ["results", "export", str(manifest), "--to", kind, "-o", output]
    CliRunner().invoke(main, arguments, prog_name="pigeonhole", catch_exceptions=False)


@pytest.mark.parametrize(
    ("kind", "reader", "module"),
    [
        ("label-studio", "label-studio", "label_studio_sdk"),
        ("cvat", "cvat", "datumaro"),
        ("coco", "coco", "pycocotools"),
        ("coco", "coco-labels", "datumaro"),
    ],
)
def test_every_image_is_read_with_its_label_and_score(manifest, kind, reader, module):
    export(manifest, kind, "export.json" if kind != "cvat" else "export.xml")

    found = read(module, reader, "export.json" if kind != "cvat" else "export.xml")

    expected = [[name, LABELS[place % 5], round(0.5 + place / 100, 6)] for place, name in enumerate(NAMES)]
    assert found == expected


def test_ultralytics_opens_both_parts_with_the_same_classes(manifest):
    export(manifest, "ultralytics", "dataset")

    found = read("ultralytics", "ultralytics", "dataset")

    labels = {label for _, label, _ in found}
    assert len(found) == len(NAMES)
    assert len(labels) == 5
    assert {label for name, label, _ in found if name.startswith("val/")} == labels
