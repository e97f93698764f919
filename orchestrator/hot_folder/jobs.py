"""Folders, ZIPs and, without a line, the images of one poll: each a classify job.

The job's idempotency key has the claim's name, and the claim holds the job's id: who goes on after a kill follows the
job that there is.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from modeling.durable import decode_json, replace_durably, sync, sync_tree
from modeling.errors import ModelingError
from modeling.names import path_to_text
from orchestrator.contract.errors import MessageError, PigeonholeError, UnavailableError, UsageError
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome
from orchestrator.contract.jobs.listing import read_facts
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import Settings
from orchestrator.hot_folder.claims import MANIFEST, Claim, Ending
from orchestrator.hot_folder.results import Sorting, bad, of_job, of_row
from orchestrator.hot_folder.watch import Snapshot, snapshot_of
from orchestrator.hot_folder.zips import unpack
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.results import find_published
from orchestrator.jobs.specs import ClassifySpec
from orchestrator.jobs.submit import JobClient
from orchestrator.jobs.walk import SourceOptions

logger = logging.getLogger(__name__)

MOST_JOBS = 4  # at once; more would only share the same workers
MOST_IMAGES = 1_000  # that one poll gathers for a job
POLL_S = 0.5
AGAIN_S = 5.0  # after an error of the server or the disk
_JOB, _UNPACKED, _LOOKS = "job", "unpacked", "looks.json"

Submit = Callable[[ClassifySpec], str]
"""Submits a job, or finds the one that its idempotency key stands for; returns its id."""


class _StoppedError(Exception):
    """The hot folder is stopped; the job goes on, and the next start follows it."""


class Jobs:
    """Runs claims as jobs, a few at once, each in a thread."""

    def __init__(
        self, settings: Settings, model: str, min_bytes: int, sorting: Sorting,
        ended: Callable[[Claim, str, Ending], None], say: Callable[[str], None], when_done: Callable[[], None],
        submit: Submit | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._model = model
        self._min_bytes = min_bytes
        self._sorting = sorting
        self._ended = ended
        self._say = say
        self._when_done = when_done
        self._submit = submit or Submitter(settings).submit
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.num_running = 0

    @property
    def has_room(self) -> bool:
        return self.num_running < MOST_JOBS

    def start(self, claim: Claim) -> None:
        """Work on a claim in a thread, which ends with the process: a kill loses nothing.

        Raises OSError where the system starts no thread now.
        """
        with self._lock:
            self.num_running += 1
        try:
            threading.Thread(target=self._work, args=(claim,), name="hot-folder-job", daemon=True).start()
        except RuntimeError as err:
            with self._lock:
                self.num_running -= 1
            raise OSError(errno.EAGAIN, str(err)) from err

    def stop(self) -> None:
        """Follow no job any longer. What has begun ends by itself: unpacking and submitting may take minutes."""
        self._stopping.set()

    def _work(self, claim: Claim) -> None:
        try:
            self._try(claim)
        except Exception:
            logger.exception("hot folder: %s", claim.name)  # it stays in working/, and is tried at the next start
            self._say(f"{claim.name} cannot be worked on: see the log; it stays in working/")
        finally:
            with self._lock:
                self.num_running -= 1
            self._when_done()

    def _try(self, claim: Claim) -> None:
        said = ""
        while not self._stopping.is_set():
            try:
                if not (names := claim.names()):
                    break
                self._run_or_refuse(claim)
                trouble = "no name is free for it in done/ or error/" if claim.names() == names else ""
            except _StoppedError:
                return
            except (UnavailableError, *SERVER_ERRORS, OSError) as err:
                trouble = str(err)
            if not trouble:
                continue
            if (shown := _shown(claim)) and said != trouble:
                said = trouble
                self._say(f"{shown}: {trouble}; it is tried again")
            self._stopping.wait(AGAIN_S)
        claim.close()

    def _run_or_refuse(self, claim: Claim) -> None:
        try:
            self._run(claim)
        except (UnavailableError, *SERVER_ERRORS):
            raise
        except (PigeonholeError, ModelingError) as err:
            self._end_all(claim, bad("failed", str(err)))

    def _end_all(self, claim: Claim, ending: Ending) -> None:
        for name in claim.names():
            self._ended(claim, name, ending)

    def _run(self, claim: Claim) -> None:
        """The whole way of a claim. Raises what any step of it raises."""
        if claim.kind not in ("image", "images"):
            _require_plain(claim.data)
        before = self._first_look(claim)
        if not before:
            return
        job = self._job_of(claim)
        outcome = self._wait(job)
        for name in claim.names():
            if snapshot_of(claim.data / name) != before.get(name):
                claim.give_back(name)
        if outcome.state not in ("succeeded", "partial"):
            self._end_all(claim, bad(outcome.state, outcome.error or f"job {job} {outcome.state}", job=job))
            return
        left = set(claim.names())
        for name, ending in self._endings(claim, job, outcome.state):
            if name in left:
                self._ended(claim, name, ending)
        self._end_all(claim, bad("left_out", "its name is none of an image", job=job))

    def _first_look(self, claim: Claim) -> dict[str, Snapshot | None]:
        """How its files looked before the job, kept so that a change is seen after a retry or a restart, too."""
        kept = claim.path / _LOOKS
        with contextlib.suppress(FileNotFoundError):
            looks = decode_json(kept.read_bytes(), str(kept), error=MessageError)
            return {name: look and tuple(look) for name, look in looks.items()}
        if claim.kind in ("image", "images"):
            self._end_small(claim)
        before = {name: snapshot_of(claim.data / name) for name in claim.names()}
        if before:
            replace_durably(kept, json.dumps(before).encode(), mode=None)
        return before

    def _end_small(self, claim: Claim) -> None:
        for name in claim.names():
            size = (claim.data / name).lstat().st_size
            if size < self._min_bytes:
                error = f"{size} bytes are fewer than the least, {self._min_bytes}"
                self._ended(claim, name, bad("unreadable", error))

    def _job_of(self, claim: Claim) -> str:
        """The job of a claim, which is submitted if there is none."""
        kept = claim.path / _JOB
        if kept.exists():
            return kept.read_text(encoding="utf-8")
        reading = SourceOptions(all_files=claim.kind in ("image", "images"))
        source = str(self._source(claim))
        for attempt in range(1, 100):
            key = f"hotfolder:{claim.name}:{attempt}"
            spec = ClassifySpec(source, self._model, idempotency_key=key, need_worker=False, reading=reading)
            job = self._submit(spec)
            if read_facts(JobFolder.open(self._settings, job).work) is not None:
                replace_durably(kept, job.encode(), mode=None)
                return job
        raise PigeonholeError(f"the submission of {_shown(claim)} was interrupted too often; drop it again")

    def _source(self, claim: Claim) -> Path:
        if claim.kind not in ("zip", "folder"):
            return claim.data
        [name] = claim.names()
        if claim.kind == "folder":
            return claim.data / name
        unpacked = claim.path / _UNPACKED
        if not unpacked.exists():
            half = claim.path / f"{_UNPACKED}.{os.getpid()}.tmp"
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            unpack(claim.data / name, half)
            sync_tree(half)
            half.rename(unpacked)
            sync(claim.path)
        return unpacked

    def _wait(self, job: str) -> Outcome:
        folder = JobFolder.open(self._settings, job)
        while (outcome := folder.outcome()) is None:
            if self._stopping.wait(POLL_S):
                raise _StoppedError
        return outcome

    def _endings(self, claim: Claim, job: str, state: str) -> Iterator[tuple[str, Ending]]:
        """What becomes of each file or folder of a claim."""
        published = find_published(self._settings, job)
        model = published.summary["model"]["ref"]
        if claim.kind in ("image", "images"):
            yield from ((row.path, of_row(row, job, model, self._sorting)) for row in published.rows())
            return
        [name] = claim.names() or [""]
        copy = claim.path / f"copied{MANIFEST}"
        shutil.copyfile(published.manifest, copy)
        sync(copy)
        yield name, of_job(job, state, model, published.summary["counts"], copy)


class Submitter:
    """Submits the jobs of all claims, one at a time, through one connection."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: JobClient | None = None
        self._lock = threading.Lock()

    def submit(self, spec: ClassifySpec) -> str:
        """The job of a spec; the one that there is, if it was submitted before."""
        assert spec.idempotency_key is not None
        with self._lock:
            if self._client is None:
                self._client = JobClient(self._settings)
            earlier = self._client.ledger.job_of_submission(spec.idempotency_key)
            if earlier is not None:  # not compared: an alias of the model may have moved since
                return earlier
            return self._client.submit(prepare(self._settings, spec)).job


def _require_plain(folder: Path) -> None:
    """Raises UsageError where a folder holds anything but files and folders: no link is followed."""
    for inner, folders, files in os.walk(folder):
        for name in (*folders, *files):
            mode = Path(inner, name).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                inside = path_to_text(str(Path(inner, name).relative_to(folder)))
                raise UsageError(f"it holds {inside!r}, which is {'a link' if stat.S_ISLNK(mode) else 'no plain file'}")


def _shown(claim: Claim) -> str:
    """What a claim holds, for people; empty where it holds nothing any more."""
    try:
        names = claim.names()
    except OSError:
        return f"working/{claim.name}"
    if len(names) == 1:
        return path_to_text(names[0])
    return f"{len(names)} images" if names else ""
