"""The source folder of a classify job as this worker sees it: is it still the folder that was listed?

A share that is not mounted leaves an empty folder, a moved folder leaves none: then every image seems to be missing.
So before a row says that an image is missing, images that were there before are looked for.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from modeling.errors import trouble_of
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import count_shards, read_shard, read_source_facts
from orchestrator.contract.jobs.parts import read_trailer

T = TypeVar("T")

ANSWER_S = 30.0  # a storage that takes longer is away
_SAMPLES = 16  # images kept of each device, and images of the listing that are tried
_SHARDS = 8  # that these come from
_MOST_DEVICES = 64
_STANDS_S = 0.5  # an answer of the last look
_FAILURES = 2  # errors of the storage after which no further image is tried: each may take a minute


class StorageAwayError(Exception):
    """The images of a job cannot be read now; the message says why, for the operator."""


class SourceFolder:
    """What this process knows of a job's source folder; safe to share between threads."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._path = text_to_path(root)
        self._samples: dict[int, list[str]] = {}  # images that were read, by device
        self._lock = threading.Lock()
        self._mounts: set[str] = set()  # folders below it that the last look was about
        self._failing = False  # the last look was made because of an error, not of a missing image
        self._away: StorageAwayError | None = None  # as of the last look
        self._looked = 0.0
        self._asked: Future[Any] | None = None  # the last question to the storage

    def remember(self, last_read: Mapping[int, str]) -> None:
        """Keep images that were read just now, one of each device; a few stay, spread over the job."""
        with self._lock:
            for device, path in list(last_read.items()):
                if device not in self._samples and len(self._samples) == _MOST_DEVICES:
                    continue
                kept = self._samples.setdefault(device, [])
                if path in kept:
                    continue
                if len(kept) == _SAMPLES:
                    del kept[::2]
                kept.append(path)

    def require_folder(self) -> None:
        """Raises StorageAwayError where this machine does not see such a folder, whatever is in it."""
        if not self._answer(lambda: os.path.isdir(self._path)):  # noqa: PTH112 the name may not be UTF-8
            raise StorageAwayError(f"does not see the folder {self.root}")

    def require_there(
        self,
        listed: Callable[[], Sequence[str]],
        *,
        failing: bool = False,
        may_be_empty: bool = False,
        mounts: Iterable[str] = (),
    ) -> None:
        """See that the folder is what was listed. Raises StorageAwayError if it is not, or cannot be read.

        listed: images that were there once, or could have been; asked for if those that were read are not enough.
        failing: an image gave an error of the storage: at least one other must be readable.
        may_be_empty: it was empty when it was listed. mounts: folders below it that may not be.
        """
        with self._lock:
            if failing and self._away is not None and time.monotonic() - self._looked < _STANDS_S:
                raise StorageAwayError(str(self._away))  # another thread has just found out, which may have taken long
            self._failing = failing or (self.away and self._failing)
            self._mounts = {*mounts, *(self._mounts if self.away else ())}
            self._away = None
            try:
                self._answer(lambda: self._look(listed, may_be_empty=may_be_empty))
            except StorageAwayError as err:
                self._away, self._looked = err, time.monotonic()
                raise

    @property
    def away(self) -> bool:
        """Whether the last look did not find it."""
        return self._away is not None

    def _answer(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises; StorageAwayError where it takes too long: a mount may hang for hours."""
        if self._asked is None or self._asked.done():
            answer = Future[T]()
            threading.Thread(target=_set_answer, args=(answer, call), name="source-folder", daemon=True).start()
            self._asked = answer  # not before: where no thread can be started, nothing answers
            if answer in wait([answer], ANSWER_S).done:
                return answer.result()
        raise StorageAwayError(f"{self.root} does not answer")

    def _look(self, listed: Callable[[], Sequence[str]], *, may_be_empty: bool) -> None:
        self._require_content("", may_be_empty=may_be_empty)
        for mount in sorted(self._mounts):
            self._require_content(mount)
        others: dict[str, int] | None = None  # of `listed`, those that are there
        for device, paths in list(self._samples.items()):
            now = self._find(paths, limit=1)
            if now:
                self._samples[next(iter(now.values()))] = self._samples.pop(device)  # mounted again, it has another
                continue
            others = self._find(listed()) if others is None else others
            if device not in others.values():
                raise StorageAwayError(
                    f"{self.root} is not what it was: of {len(paths)} images that were read before, none can be read"
                )
        if self._samples:
            return
        candidates = listed() or (self._first_files() if self._failing else [])
        if (candidates or self._failing) and not self._find(candidates, limit=1):
            raise StorageAwayError(f"{self.root} is not what it was: none of {len(candidates)} images can be read")

    def _require_content(self, below: str, *, may_be_empty: bool = False) -> None:
        """Raises StorageAwayError where the folder, or one below it, is not there or is empty."""
        path, name = os.path.join(self._path, below), f"{self.root}/{path_to_text(below)}".rstrip("/")  # noqa: PTH118
        try:
            os.stat(path)  # noqa: PTH116 the name may not be UTF-8
            with suppress(PermissionError), os.scandir(path) as entries:  # not listed need not be empty
                if next(entries, None) is None and not may_be_empty:
                    raise StorageAwayError(f"{name} is empty; is its share mounted?")
        except OSError as err:
            if trouble_of(err) == "worker":
                raise
            raise StorageAwayError(f"{name} cannot be read: {err.strerror}") from err

    def _first_files(self) -> list[str]:
        with os.scandir(self._path) as entries:
            return [entry.name for entry in islice(entries, _SAMPLES) if entry.is_file()]

    def _find(self, paths: Sequence[str], *, limit: int = _SAMPLES) -> dict[str, int]:
        """Up to `limit` of the images that can be read, with their devices."""
        found: dict[str, int] = {}
        failures = 0
        for path in paths:
            try:
                found[path] = self._device_of(path)
            except (OSError, ValueError) as err:
                trouble = trouble_of(err)
                if trouble == "worker":
                    raise
                failures += trouble == "storage"
            if len(found) == limit or failures == _FAILURES:
                break
        return found

    def _device_of(self, path: str) -> int:
        descriptor = os.open(os.path.join(self._path, path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # noqa: PTH118
        try:
            os.read(descriptor, 1)
            return os.fstat(descriptor).st_dev
        finally:
            os.close(descriptor)


def _set_answer(answer: Future[T], call: Callable[[], T]) -> None:
    try:
        answer.set_result(call())
    except BaseException as err:
        answer.set_exception(err)


def images_there_before(folder: JobFolder, root: str) -> list[str]:
    """Some images of a job that were there once: of the listing if its files were found in folders, else of parts.

    Those of a list that no image was read of may never have been there; they count only if the root is on another
    device than it was.
    """
    facts = read_source_facts(folder.work)
    all_count = facts is not None and (facts.walked or facts.may_have_moved(root))
    num_shards, _ = count_shards(folder.work)
    found: list[str] = []
    shards = random.sample(range(num_shards), min(num_shards, _SHARDS))
    for shard in shards:
        if all_count or _was_read(folder, shard):
            paths = read_shard(folder.work, shard)
            found += random.sample(paths, min(len(paths), _SAMPLES // len(shards)))
    return found


def _was_read(folder: JobFolder, shard: int) -> bool:
    """Whether most images of a shard were there when it was classified."""
    try:
        trailer = read_trailer(folder.parts, shard)
    except IntegrityError:
        return False  # it is done again
    return trailer is not None and 2 * sum(trailer.errors.values()) < trailer.num_rows
