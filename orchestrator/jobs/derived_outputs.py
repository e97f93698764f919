"""That what a command makes of a manifest can be written, and where: checked before the work, which may take hours."""

import os
from pathlib import Path

from modeling.names import text_to_path
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.jobs.outputs import check_folder, check_is_writable
from orchestrator.jobs.results import Published


def check_derived_file(output: Path, published: Published, *, overwrite: bool) -> None:
    """Raises UsageError for a file that cannot be written, that exists, or that would change the source or the job's
    own files.
    """
    if output.is_dir():
        raise UsageError(f"output {str(output)!r} is a folder; name a file in it")
    _check_is_outside(output, published)
    check_is_writable(output)
    if os.path.lexists(output) and not output.is_file():
        raise UsageError(f"output {str(output)!r} is not a regular file; name another")
    if output.exists() and not overwrite:
        raise UsageError(f"output {str(output)!r} exists; name another, or replace it with --overwrite")


def check_derived_folder(output: Path, published: Published) -> None:
    """Raises UsageError for a folder that exists, cannot be made, or is inside the source."""
    _check_is_outside(output, published)
    check_folder(output)


def _check_is_outside(output: Path, published: Published) -> None:
    target = os.path.realpath(output)
    own = (published.manifest, summary_path(published.manifest), sidecar_path(published.manifest))
    if any(target == os.path.realpath(path) for path in own):
        raise UsageError(f"output {str(output)!r} is the manifest itself, or a file beside it; name another")
    source = published.summary.get("source")  # a list of images, perhaps
    if isinstance(source, str) and "\0" not in source and target == os.path.realpath(text_to_path(source)):
        raise UsageError(f"output {str(output)!r} is the source itself; name another")
    root = published.summary.get("root")
    if isinstance(root, str) and "\0" not in root:
        folder = os.path.realpath(text_to_path(root))
        if target == folder or target.startswith(folder.rstrip("/") + "/"):
            raise UsageError(f"output {str(output)!r} is inside the source, which is never written to; name another")
