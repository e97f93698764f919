"""Small trees with a manifest to sort, and what a tree holds, to compare."""

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modeling.inference.prediction import Prediction
from modeling.names import path_to_text
from orchestrator.contract.jobs.rows import FORMATS, Row, format_of, summary_path
from orchestrator.contract.jobs.sidecar import AsRead, encode_lines, sidecar_path
from orchestrator.contract.settings import Settings
from orchestrator.jobs.results import Published, read_summary
from orchestrator.sorting.sort import Sorted, SortSpec, preview, sort
from orchestrator.sorting.unsort import Unsorted, unsort
from orchestrator.sorting.words import By, Mode

OLD_NS = 1_600_000_000_123_456_789  # the times of a tree's files and folders begin here


@dataclass
class Tree:
    """A source with images, its manifest, and a target that need not exist."""

    settings: Settings
    root: Path
    manifest: Path
    target: Path

    @property
    def published(self) -> Published:
        return Published(self.manifest, read_summary(summary_path(self.manifest)))

    def sort(self, mode: Mode = "link", by: By = "label", *, dry_run: bool = False) -> Sorted:
        spec = SortSpec(self.published, self.target, by, mode)
        return (preview if dry_run else sort)(self.settings, spec, lambda num, total: None)

    def unsort(self, *, dry_run: bool = False) -> Unsorted:
        return unsort(self.settings, self.target, lambda num: None, dry_run=dry_run)

    def names(self) -> set[str]:
        """What is below the target, but for what is hidden."""
        found = (path.relative_to(self.target) for path in self.target.rglob("*") if not path.is_dir())
        return {str(path) for path in found if not path.name.startswith(".pigeonhole")}


def answered(path: str, label: str, decision: str | None = None) -> Row:
    return Row(path, Prediction((label,), (0.9,), decision=decision))  # type: ignore[arg-type]


def failed(path: str, code: str = "truncated") -> Row:
    return Row(path, Prediction(error_code=code, error="it is damaged", decision="reject"))


LATIN = os.fsdecode(b"caf\xe9.jpg")
ROWS = [
    answered("a.jpg", "cat", "accept"),
    answered("march/a.jpg", "cat", "review"),
    answered(f"march/{LATIN}", "dog", "accept"),
    answered("line\nend.jpg", "dog", "reject"),
    failed("bad.jpg"),
    failed("gone.jpg", "missing"),
]


def make_tree(folder: Path, rows: Sequence[Row], *, name: str = "out.csv", home: Path | None = None) -> Tree:
    """Write the files of rows, but those that are `missing`, with old times, and a manifest of the rows."""
    root = folder / "in"
    root.mkdir(parents=True)
    for number, row in enumerate(rows):
        if row.prediction.error_code == "missing" or row.path.startswith(("/", "..")):
            continue
        file = root / row.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"image {number}".encode())
    make_old(root)
    manifest = folder / name
    write_manifest(manifest, root, rows)
    return Tree(Settings(home=home or folder / "home"), root, manifest, folder / "sorted")


def make_old(root: Path) -> None:
    """Give everything in a folder a time of its own, long ago."""
    places = sorted((Path(parent, each) for parent, _, files in os.walk(root) for each in (*files, ".")), reverse=True)
    for number, place in enumerate(places):
        os.utime(place, ns=(OLD_NS, OLD_NS + number * 1_000_000_007))


def write_manifest(manifest: Path, root: Path, rows: Sequence[Row]) -> None:
    """A manifest and its summary, as a job publishes them."""
    row_format = FORMATS[format_of(manifest)]
    data = row_format.header({"version": 1}) + row_format.encode(rows) + row_format.footer()
    manifest.write_bytes(data)
    labels = [row.prediction.labels[0] for row in rows if row.prediction.ok]
    codes = [row.prediction.error_code or "" for row in rows if not row.prediction.ok]
    decisions = [str(row.prediction.decision) for row in rows if row.prediction.decision]
    sidecar = encode_lines(rows, [_as_read(root, row) for row in rows])
    sidecar_path(manifest).write_bytes(sidecar)
    summary = {
        "version": 1,
        "job": "c261123-143355-7f3a2b",
        "root": path_to_text(str(root)),
        "manifest": {
            "format": format_of(manifest),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        },
        "sidecar": {"sha256": hashlib.sha256(sidecar).hexdigest(), "bytes": len(sidecar), "checksum": False},
        "listing": {"sha256": "0" * 64, "num_images": len(rows)},
        "counts": {
            "num_images": len(rows),
            "num_failed": len(codes),
            "status": {"ok": len(labels), "error": len(codes)},
            "labels": dict(Counter(labels)),
            "error_codes": dict(Counter(codes)),
            "decisions": dict(Counter(decisions)),
        },
        "model": {"ref": "birds@1", "digest": "d" * 64},
    }
    summary_path(manifest).write_text(json.dumps(summary))


def _as_read(root: Path, row: Row) -> AsRead | None:
    """What a job would have found of a row's file; nothing of one outside of the root."""
    try:
        facts = (root / row.path).stat()
    except (OSError, ValueError):
        return None
    return None if row.path.startswith(("/", "..")) else (facts.st_size, facts.st_mtime_ns, None)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything in a folder, itself included: kind, rights, time, and content or link."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files, "."):
            place = f"{parent}/{name}"
            facts = os.lstat(place)
            is_link = stat.S_ISLNK(facts.st_mode)
            content = str(Path(place).readlink()) if is_link else Path(place).read_bytes() if name in files else b""
            key = os.path.normpath(os.path.relpath(place, folder))
            found[key] = (facts.st_mode, facts.st_mtime_ns, content)
    return found
