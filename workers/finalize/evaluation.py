"""Publishes the folder of an evaluation, whole or not at all."""

import filecmp
import os
import shutil
from pathlib import Path

from modeling.durable import copy_durably, rename_answered, sync, target_of
from modeling.names import text_to_path
from orchestrator.contract.jobs.end import remove_unpublished, unpublished_path
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import EvaluateJobRequest
from workers.finalize.errors import PublishError, publishing_to
from workers.finalize.lease import FinalizeLease


def publish_evaluation(folder: JobFolder, request: EvaluateJobRequest, lease: FinalizeLease) -> Path:
    """Publish the evaluation and return its folder; doing it twice publishes it once.

    `lease` is confirmed just before the folder becomes visible. Raises PublishError where the output appeared
    meanwhile, or cannot be written, TransientDiskError on a disk error that may pass.
    """
    if request.output is None:
        return folder.evaluation
    output = Path(text_to_path(request.output))
    remove_unpublished(request, before=lease.fence)
    copy = unpublished_path(request, lease.fence)
    try:
        with publishing_to(request.output):
            copy.mkdir()
            copy_durably(folder.evaluation, copy)
            lease.confirm()
            _put_folder(copy, target_of(output))
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return output


def _put_folder(copy: Path, output: Path) -> None:
    """Rename the copy into place, unless an earlier finalizer did so just before it died."""
    if not os.path.lexists(output):
        rename_answered(copy, output)
        sync(output.parent)
    elif output.is_symlink() or not output.is_dir() or not _same(filecmp.dircmp(copy, output, ignore=[], hide=[])):
        raise PublishError(f"{output} appeared while the job ran; it was left as it is")


def _same(comparison: "filecmp.dircmp[str]") -> bool:
    """Whether two folders hold the same files with the same bytes."""
    different = (*comparison.left_only, *comparison.right_only, *comparison.common_funny)
    left, right = Path(comparison.left), Path(comparison.right)
    return (
        not different
        and all(filecmp.cmp(left / name, right / name, shallow=False) for name in comparison.common_files)
        and all(_same(inner) for inner in comparison.subdirs.values())
    )
