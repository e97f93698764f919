"""That what a job will publish can be written, and replaces no input: checked before the job, because afterwards it
costs the whole job.
"""

import contextlib
import json
import os
import tempfile
from pathlib import Path

from modeling.durable import target_of
from modeling.images.formats import IMAGE_EXTENSIONS
from orchestrator.contract.access import describe_access
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path


def check_manifest(output: Path, *, overwrite: bool, source: Path) -> None:
    """Raises UsageError where the manifest, its summary or its sidecar exists already, or could not be written.

    An image and the source itself are never replaced, also where the output is a link to them.
    """
    if output.is_dir():
        raise UsageError(f"output {str(output)!r} is a folder; name a file in it")
    for path in (output, summary_path(output), sidecar_path(output)):
        _check_is_no_input(path, source)
        check_is_writable(target_of(path))
        if os.path.lexists(target_of(path)) and not path.is_file():
            raise UsageError(f"output {str(path)!r} is not a regular file; name another")
        if path.exists() and not overwrite:
            raise UsageError(f"{str(path)!r} exists; name another output, or replace it with --overwrite")


def check_resumed_manifest(
    output: Path, job: str, *, base_job: str | None = None, overwrite: bool, source: Path
) -> None:
    """As `check_manifest`, for a job that was submitted before; what it left itself beside its manifest may be there.

    base_job: of the manifest whose place the job's takes, of which the summary may be there. Raises UsageError.
    """
    if output.exists() and not overwrite:
        raise UsageError(f"{str(output)!r} appeared since job {job} was submitted; move it away, and resume again")
    if summary_path(output).exists() and not overwrite and _job_of(summary_path(output)) not in (job, base_job):
        raise UsageError(
            f"{str(summary_path(output))!r} appeared since job {job} was submitted; move it away, and resume again"
        )
    check_manifest(output, overwrite=True, source=source)


def check_resumed_folder(output: Path) -> None:
    """As `check_folder`, for an evaluation that was submitted before. Raises UsageError."""
    if output.exists():
        raise UsageError(f"{str(output)!r} appeared since the job was submitted; move it away, and resume again")
    check_folder(output)


def _job_of(summary: Path) -> str:
    """The job that a summary is of; empty where it is not a summary."""
    with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
        return str(json.loads(summary.read_bytes()).get("job") or "")
    return ""


def check_folder(output: Path) -> None:
    """Raises UsageError where the folder exists already, or could not be made."""
    if output.exists():
        raise UsageError(f"output {str(output)!r} exists; name a folder that does not")
    check_is_writable(target_of(output))


def _check_is_no_input(output: Path, source: Path) -> None:
    target = target_of(output)
    if target.suffix.lower() in IMAGE_EXTENSIONS and target.exists():
        raise UsageError(f"output {str(output)!r} would replace the image {str(target)!r}; name another")
    with contextlib.suppress(OSError):  # one of them is not there, or is no path but a glob
        if output.samefile(source):
            raise UsageError(f"output {str(output)!r} is the source itself; name another")


def check_is_writable(output: Path) -> None:
    """Raises UsageError where neither `output` nor a summary beside it could be made."""
    folder = output.parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {str(folder)!r} for the output; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"no right to write to the folder of the output: {describe_access(str(folder))}")
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=summary_path(output).name):
            pass  # only making a file shows read-only mounts, exceeded quotas and names that are too long
    except OSError as err:
        raise UsageError(f"output {str(output)!r} cannot be written: {err.strerror}") from err
