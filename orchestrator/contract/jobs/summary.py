"""The summary that lies beside every manifest, `OUT.summary.json`: counts, checksums and how the job went."""

from pathlib import Path

SUMMARY_VERSION = 1


def summary_path(manifest: Path) -> Path:
    """Where the summary of a manifest lies."""
    return manifest.with_name(manifest.name + ".summary.json")
