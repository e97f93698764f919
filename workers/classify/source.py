"""The images of a job for one slice: read, and looked for again before a row says that they are missing."""

import logging
from collections.abc import Iterable
from functools import partial

from modeling.names import text_to_path
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import SourceFacts, read_source_facts
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.rows import Row
from workers.classify.read import ImageReader, read_code
from workers.context import WorkerContext
from workers.source_folder import images_there_before

logger = logging.getLogger(__name__)

OF_PATHS = frozenset({"missing", "permission", "outside_root"})  # codes that images below a root that is away have, too


class JobSource:
    """The source of a job, as a worker sees it during one slice.

    reader: reads its images; raises StorageAwayError where the storage fails and no other image can be read either.
    """

    def __init__(self, context: WorkerContext, folder: JobFolder, request: ClassifyRequest) -> None:
        """Raises StorageAwayError where this machine does not see the images: another worker must read them."""
        self._context = context
        self._folder = folder
        self._request = request
        self._seen = context.source_folder(request.job, request.root)
        if self._seen.away:
            self.look()
        else:
            self._seen.require_folder()
        self.reader = self._new_reader()

    def _new_reader(self) -> ImageReader:
        return ImageReader(
            self._request.root,
            follow_symlinks=self._request.follow_symlinks,
            max_file_bytes=self._context.settings.max_file_bytes,
            checksum=self._request.checksum,
            on_storage_error=partial(self.look, failing=True),
        )

    def look(self, *, failing: bool = False, missing: Iterable[str] = ()) -> None:
        """Look for images that were there before. Raises StorageAwayError if none is there.

        failing: the storage gave an error, so an image must be read; else an empty list of them may do.
        missing: images that seem to be missing: where they were on mounts below the root, these are looked at, too.
        """
        facts = read_source_facts(self._folder.work)
        self._seen.require_there(
            partial(images_there_before, self._folder, self._request.root),
            failing=failing,
            may_be_empty=facts is not None and facts.empty,
            mounts=_mounts_of(missing, facts) if facts is not None and facts.mounts else (),
        )

    def confirms(self, rows: Iterable[Row]) -> bool:
        """Whether the images that rows call missing still are, now that a shard is read.

        Nothing is looked at where no image is missing. Raises StorageAwayError if the source is away.
        """
        self._seen.remember(self.reader.last_read)
        missing = {row.path: row.prediction.error_code for row in rows if row.prediction.error_code in OF_PATHS}
        if not missing:
            return True
        self.look(missing=missing)
        reader = self._new_reader()  # another may resolve the links of paths otherwise
        for path, code in missing.items():
            if read_code(reader, path) != code:
                logger.warning("job %s: %s was %s, and is so no longer", self._folder.job, path, code)
                return False
        self.look(missing=missing)
        return True


def _mounts_of(paths: Iterable[str], facts: SourceFacts) -> set[str]:
    """The mounts below the root that images were on."""
    mounts = [text_to_path(mount) for mount in facts.mounts]
    return {mount for path in paths for mount in mounts if path.startswith(f"{mount}/")}
