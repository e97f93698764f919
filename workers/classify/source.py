"""The images of a job for one slice: read, and looked for again before a row says that they are missing."""

import logging
import os
import threading
import time
from collections.abc import Iterable
from functools import partial

from modeling.names import text_to_path
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import SourceFacts, read_source_facts
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.rows import Row
from workers.classify.read import ImageReader, read_code
from workers.classify.setbacks import pause_or_leave
from workers.context import WorkerContext
from workers.leases import STALLED_EXIT_CODE, Leases
from workers.source_folder import StorageAwayError, images_there_before

logger = logging.getLogger(__name__)

SILENT_S = 30.0  # without a finished batch or image, after which the storage is asked

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

    def leave_if_away(self, leases: Leases) -> bool:
        """Whether the images are away: the job is paused or left to others then, and all shards are handed back."""
        try:
            self.look()
        except StorageAwayError as err:
            pause_or_leave(self._request.job, self._context, err)
            leases.hand_back()  # no attempt at a shard
            return True
        return False

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


class SourceWatch:
    """Looks at the source of a slice that finishes nothing: a share that hangs holds up every thread that reads it.

    Such a thread cannot be interrupted, so this process ends; its parent starts another.
    """

    def __init__(self, source: JobSource, leases: Leases, stall_s: float) -> None:
        """stall_s: after which the process ends in any case."""
        self._source = source
        self._leases = leases
        self._silent_s = min(SILENT_S, stall_s / 3)
        self._looked_s = time.monotonic()
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Called whenever leases are renewed. The storage is asked in a thread, since it may not answer."""
        now_s = time.monotonic()
        is_looking = self._thread is not None and self._thread.is_alive()
        if is_looking or min(self._leases.idle_s, now_s - self._looked_s) < self._silent_s:
            return
        self._looked_s = now_s
        self._thread = threading.Thread(target=self._end_if_away, name="source-watch", daemon=True)
        self._thread.start()

    def _end_if_away(self) -> None:
        if self._source.leave_if_away(self._leases):
            logger.critical("the images do not answer; this process ends")
            os._exit(STALLED_EXIT_CODE)


def _mounts_of(paths: Iterable[str], facts: SourceFacts) -> set[str]:
    """The mounts below the root that images were on."""
    mounts = [text_to_path(mount) for mount in facts.mounts]
    return {mount for path in paths for mount in mounts if path.startswith(f"{mount}/")}
