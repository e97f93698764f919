"""`OUT.incomplete`: the rows that a job had when it ended because too many images failed, with summary and sidecar."""

import json
from pathlib import Path
from typing import Any

from orchestrator.contract.jobs.rows import summary_path


def incomplete_path(manifest: Path) -> Path:
    """Where the rows are that a job had when it ended because too many images failed."""
    return manifest.with_name(manifest.name + ".incomplete")


def read_incomplete(path: Path) -> dict[str, Any] | None:
    """The summary of an incomplete manifest; None where `path` is none, or not there."""
    if not path.is_file():
        return None
    try:
        # Not by pydantic: one key says whether it is one; `results verify` checks the others.
        summary = json.loads(summary_path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) and isinstance(summary.get("incomplete"), dict) else None
