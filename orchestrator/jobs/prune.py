"""Removes what ended jobs and killed processes leave behind; never anything of a job that has not ended.

A folder is renamed first, then looked at once more, then deleted: a resume that began in that moment gets its folder
back, and what a killed prune leaves is finished by the next one.
"""

import errno
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from modeling.names import text_to_path
from modeling.registry.store import ModelStore
from modeling.registry.version_folder import locked
from orchestrator.contract.errors import MessageError, NotFoundError
from orchestrator.contract.jobs.end import RESUMABLE, remove_unpublished
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, active_jobs, all_jobs, undelivered_jobs
from orchestrator.contract.jobs.requests import ClassifyRequest, parse_request
from orchestrator.contract.jobs.restore import output_of
from orchestrator.contract.messages import JOB_ID
from orchestrator.contract.run_folder import remove_abandoned
from orchestrator.contract.settings import Settings

_PRUNED = ".pruned-"  # and the job: a folder that is being deleted
_ASIDE = ".pruned"  # in a job's folder of which the result stays: what is being deleted
_NEVER_BEGUN_S = 24 * 3600.0  # a submission may be under way that is younger
_KEPT_WITH_MANIFEST = ("job.json", "outcome*.json", "resume.*.json", "summary.json", "history.jsonl", "manifest.*",
                       "evaluation", "base*")  # fmt: skip
_ANY_FENCE = 1 << 63


@dataclass(frozen=True)
class PruneOptions:
    """What is removed: folders of jobs that ended so many seconds ago; keep_manifests: all but their results."""

    older_than_s: float
    keep_manifests: bool = False
    dry_run: bool = False


@dataclass
class Pruned:
    """What was removed, or would be.

    kept_manifests: jobs of which the result stays. resumable: those among the removed that could have been resumed.
    kept_for_resume: younger ones that still can be. in_use: ended, but another job or a delivery refers to them.
    left_behind: files and folders of processes that were killed. failed: jobs that could not be removed, and why.
    """

    removed: list[str] = field(default_factory=list)
    kept_manifests: list[str] = field(default_factory=list)
    resumable: list[str] = field(default_factory=list)
    kept_for_resume: list[str] = field(default_factory=list)
    in_use: list[str] = field(default_factory=list)
    num_active: int = 0
    num_younger: int = 0
    left_behind: int = 0
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def prune(settings: Settings, options: PruneOptions, in_ledger: set[str] | None) -> Pruned:
    """Remove the folders of old jobs; a second prune waits for the first.

    in_ledger: the jobs that are active there; None where no server answers: then only jobs go whose end is on the disk.
    """
    if options.dry_run or not settings.jobs.is_dir():
        return _prune(settings, options, in_ledger)
    with locked(settings.jobs):
        return _prune(settings, options, in_ledger)


def _prune(settings: Settings, options: PruneOptions, in_ledger: set[str] | None) -> Pruned:
    pruned, now = Pruned(), time.time()
    _finish_earlier(settings, options, pruned)
    active = {*active_jobs(settings), *(in_ledger or ())}
    jobs = [job for job in all_jobs(settings) if job not in active]
    pruned.num_active = len(all_jobs(settings)) - len(jobs)
    outcomes: dict[str, Outcome | None] = {}
    old: set[str] = set()
    for job in jobs:
        try:
            outcomes[job], age_s = _age(JobFolder(settings, job), now)
        except (MessageError, OSError) as err:
            pruned.failed[job] = str(err)
            continue
        is_known = outcomes[job] is not None or in_ledger is not None
        old |= {job} if age_s >= options.older_than_s and is_known else set()
    pruned.num_younger = len(outcomes) - len(old)
    pruned.in_use = sorted(_cannot_go(settings, old, outcomes, options))
    old -= set(pruned.in_use)
    for job in sorted(outcomes):
        if job in old:
            _prune_job(settings, job, outcomes[job], options, pruned)
        elif _is_resumable(settings, job, outcomes[job]):
            pruned.kept_for_resume.append(job)
    _prune_store(settings, options, pruned)
    if not options.dry_run:
        remove_abandoned()
    return pruned


def _age(folder: JobFolder, now: float) -> tuple[Outcome | None, float]:
    """How a job ended, and how many seconds ago; of one that never began, since its folder was made, less a day."""
    outcome = folder.outcome()
    if outcome is not None:
        return outcome, now - outcome.ended.timestamp()
    try:
        return None, now - folder.path.stat().st_mtime - _NEVER_BEGUN_S
    except FileNotFoundError:  # somebody else has just removed it
        return None, -1.0


def _cannot_go(
    settings: Settings, old: set[str], outcomes: dict[str, Outcome | None], options: PruneOptions
) -> set[str]:
    """The old jobs that stay whole: others need them, also some of which only the result stays."""
    in_use = _in_use(settings, old, set(all_jobs(settings)) - old)
    results = {job for job in old - in_use if _keeps_result(job, outcomes[job], options)}
    return in_use | _in_use(settings, old - in_use - results, results)


def _keeps_result(job: str, outcome: Outcome | None, options: PruneOptions) -> bool:
    """Whether the result of a job lies in its folder, and is to stay."""
    result = outcome.result or outcome.incomplete if outcome is not None else None
    return options.keep_manifests and result is not None and _folder_of_output(result) == job


def _in_use(settings: Settings, old: set[str], kept: set[str]) -> set[str]:
    """The old jobs that cannot go: their webhook is not delivered, or a job that is kept refers to them."""
    in_use = set(undelivered_jobs(settings)) & old
    news = kept | in_use
    while news:
        news = {needed for job in news for needed in _referred_to(settings, job)} & old - in_use
        in_use |= news
    return in_use


def _referred_to(settings: Settings, job: str) -> set[str]:
    """The jobs whose folders a job needs: a rerun is compared with its original, a retry may publish into another's.

    A merge needs nothing of its base's job: it keeps the base in its own folder.
    """
    try:
        request = JobFolder.open(settings, job).request()
    except (NotFoundError, MessageError, OSError):
        return set()
    original = request.rerun_of if isinstance(request, ClassifyRequest) else None
    return {each for each in (original, _folder_of_output(output_of(request))) if each is not None}


def _folder_of_output(output: str) -> str | None:
    """The job in whose folder a file lies, by its name: the home may have another path on another machine."""
    name = Path(text_to_path(output)).parent.name
    return name if JOB_ID.fullmatch(name) else None


def _prune_job(settings: Settings, job: str, outcome: Outcome | None, options: PruneOptions, pruned: Pruned) -> None:
    """Remove an old job's folder, or all of it but its result."""
    path, keeps = settings.jobs / job, _keeps_result(job, outcome, options)
    entries = _all_but_the_result(path) if keeps else [path]
    size, is_resumable = sum(_size(entry) for entry in entries), _is_resumable(settings, job, outcome)
    if keeps and not entries:
        return  # an earlier prune has done it
    if not options.dry_run:
        try:
            if not (_remove_entries(settings, path, entries) if keeps else remove_folder(settings, job)):
                return
        except OSError as err:
            pruned.failed[job] = str(err)
            return
    (pruned.kept_manifests if keeps else pruned.removed).append(job)
    if is_resumable:
        pruned.resumable.append(job)
    pruned.bytes += size


def _is_resumable(settings: Settings, job: str, outcome: Outcome | None) -> bool:
    """Whether `jobs resume` could go on with a job that is not active."""
    if outcome is None:
        return (settings.jobs / job / "listing.json").exists()
    return outcome.state in RESUMABLE


def _all_but_the_result(path: Path) -> list[Path]:
    kept = {entry for pattern in _KEPT_WITH_MANIFEST for entry in path.glob(pattern)}
    return [entry for entry in path.iterdir() if entry not in kept]


def _remove_entries(settings: Settings, path: Path, entries: list[Path]) -> bool:
    """Remove what lies in the folder of a job; False where the job was resumed: it gets back what was moved aside."""
    if _goes_on(settings, path):
        return False
    aside = path / _ASIDE
    if aside in entries:  # of a prune that was killed
        shutil.rmtree(aside)
    aside.mkdir()
    for entry in entries:
        if entry != aside:
            entry.rename(aside / entry.name)
    goes_on = _goes_on(settings, path)
    if goes_on:
        _put_back(aside, path)
    shutil.rmtree(aside)
    return not goes_on


def _put_back(aside: Path, path: Path) -> None:
    for entry in aside.iterdir():
        try:
            entry.rename(path / entry.name)
        except OSError as err:
            if err.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # a folder that the resumed job has made anew stays
                raise


def remove_folder(settings: Settings, job: str) -> bool:
    """Remove the folder of a job that has ended or never began; False where somebody else does, or it was resumed."""
    folder = settings.jobs / job
    away = folder.with_name(f"{_PRUNED}{job}")
    try:
        folder.rename(away)
    except FileNotFoundError:
        return False
    return _finish(settings, away)


def _finish(settings: Settings, away: Path) -> bool:
    """Delete a folder that was renamed, if its job still has ended; otherwise give it its name back."""
    job = away.name.removeprefix(_PRUNED)
    if _goes_on(settings, away):
        away.rename(settings.jobs / job)
        return False
    _remove_leftovers_beside_output(away)
    shutil.rmtree(away)
    return True


def _goes_on(settings: Settings, folder: Path) -> bool:
    """Whether a job is active, or its last run has not ended: it was resumed in this moment."""
    runs = [path.name.split(".")[1] for path in folder.glob("resume.*.json")]
    last = max((int(run) for run in runs if run.isdecimal()), default=0)
    is_active = (settings.active / folder.name.removeprefix(_PRUNED)).exists()
    return is_active or (bool(last) and not (folder / f"outcome.{last}.json").exists())


def _finish_earlier(settings: Settings, options: PruneOptions, pruned: Pruned) -> None:
    """Go on where an earlier prune was killed."""
    for away in sorted(settings.jobs.glob(f"{_PRUNED}*")):
        if not JOB_ID.fullmatch(away.name.removeprefix(_PRUNED)):
            continue
        size = _size(away)
        try:
            if options.dry_run or _finish(settings, away):
                pruned.left_behind += 1
                pruned.bytes += size
        except OSError as err:
            pruned.failed[away.name] = str(err)


def _remove_leftovers_beside_output(away: Path) -> None:
    """Remove the hidden files that killed finalizers of an ended job left beside its output."""
    file = away / "job.json"
    try:
        remove_unpublished(parse_request(file.read_bytes(), path=file), before=_ANY_FENCE)
    except (FileNotFoundError, MessageError):  # it never began, or is of another release
        return


def _prune_store(settings: Settings, options: PruneOptions, pruned: Pruned) -> None:
    """Remove copies of models whose publication was killed; nobody publishes while the model is locked."""
    for size in ModelStore(settings.models).remove_unpublished(dry_run=options.dry_run, size_of=_size):
        pruned.left_behind += 1
        pruned.bytes += size


def _size(path: Path) -> int:
    """The bytes that removing a file or a folder frees: files that have another name elsewhere free none."""
    if path.is_symlink() or not path.is_dir():
        return _freed(path)
    return sum(_freed(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)


def _freed(path: Path) -> int:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return 0
    return facts.st_size if facts.st_nlink == 1 else 0
