"""Manifests as jobs publish them, made of given rows."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from modeling.inference.prediction import Prediction
from modeling.metrics.decisions import Decision
from modeling.names import path_to_text
from orchestrator.contract.jobs.rows import FORMATS, Row, format_of, summary_path
from orchestrator.contract.jobs.sidecar import SidecarLine, encode_lines, parse_line, sidecar_path


def answered(path: str, *labels: str, score: float = 0.75, decision: Decision | None = None) -> Row:
    """A row with an answer, best label first; the scores of further labels fall."""
    scores = tuple(score * 0.5**place for place in range(len(labels)))
    return Row(path, Prediction(labels, scores, decision=decision))


def failed(path: str, code: str = "truncated", error: str = "pixels are missing") -> Row:
    return Row(path, Prediction(error_code=code, error=error))


def publish_rows(manifest: Path, rows: Sequence[Row], root: Path | str, /, **changes: object) -> Path:
    """Write a manifest, its sidecar and its summary; root: of the paths; changes: of the summary."""
    kind = format_of(manifest)
    facts = {"version": 1, "num_images": len(rows)}
    with manifest.open("wb") as file:
        file.write(FORMATS[kind].header(facts) + FORMATS[kind].encode(rows) + FORMATS[kind].footer())
    as_read = [(10, 1_000_000_000 + number, None) if row.prediction.ok else None for number, row in enumerate(rows)]
    sidecar_path(manifest).write_bytes(encode_lines(rows, as_read))
    summary_path(manifest).write_text(json.dumps(_summary(manifest, rows, root) | changes, indent=2))
    return manifest


def _summary(manifest: Path, rows: Sequence[Row], root: Path | str) -> dict[str, object]:
    data, lines = manifest.read_bytes(), sidecar_path(manifest).read_bytes()
    num_failed = sum(not row.prediction.ok for row in rows)
    counts = {
        "num_images": len(rows),
        "num_done": len(rows),
        "num_failed": num_failed,
        "status": {"ok": len(rows) - num_failed, "error": num_failed},
        "labels": Counter(row.prediction.labels[0] for row in rows if row.prediction.ok),
        "error_codes": Counter(row.prediction.error_code for row in rows if not row.prediction.ok),
        "decisions": Counter(row.prediction.decision for row in rows if row.prediction.decision),
        "remarks": {},
    }
    return {
        "version": 1,
        "job": "c261123-143355-7f3a2b",
        "source": path_to_text(str(root)),
        "root": path_to_text(str(root)),
        "model": {"name": "digits", "number": 1, "ref": "digits@1", "digest": "d" * 64,
                  "preprocessing_digest": "p" * 64},
        "top_k": 1,
        "manifest": {"path": str(manifest), "format": format_of(manifest), "bytes": len(data),
                     "sha256": hashlib.sha256(data).hexdigest()},
        "listing": {"sha256": listing_sha256(row.path for row in rows), "num_images": len(rows), "skipped": {}},
        "counts": counts,
        "sidecar": {"path": str(sidecar_path(manifest)), "bytes": len(lines), "checksum": False,
                    "sha256": hashlib.sha256(lines).hexdigest()},
    }  # fmt: skip


def listing_sha256(paths: Iterable[str]) -> str:
    return hashlib.sha256("".join(json.dumps(path) + "\n" for path in paths).encode()).hexdigest()


def read_sidecar(path: Path) -> Iterator[SidecarLine]:
    """All lines of a sidecar, one after another. Raises IntegrityError."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield parse_line(line, f"{path}, line {number}")
