"""The ledger: who works on what, and the progress of every job. It is kept on the Redis or Valkey server.

Every change of a job is one Lua script (`lua/`), so it is atomic. The results are on the disk, in the
job folder; a ledger that is lost is restored from there (`contract/jobs/restore.py`). There is no key per image, and
one bit per shard, except for the few shards that are claimed at a time.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from orchestrator.contract.ledger.counts import COUNTS_KEY, FleetCounts
from orchestrator.contract.ledger.deliveries import DUE_KEY, Deliveries
from orchestrator.contract.ledger.live_workers import PREFIX, SWEEPER_KEY, WORKERS_KEY, LiveWorkers
from orchestrator.contract.ledger.record import JobRecord, State, time_fields
from orchestrator.contract.ledger.scripts import read_scripts
from orchestrator.contract.ledger.turns import Turns
from orchestrator.contract.ledger.words import PausedBy
from orchestrator.contract.messages import JOB_ID
from orchestrator.contract.queues import queue_key
from orchestrator.contract.release import Release, own_release

if TYPE_CHECKING:
    import redis  # the type alone: commands show records without a server

SUBMISSION_TTL_S = 7 * 24 * 3600  # how long an idempotency key stands for its job
ENDED_TTL_S = 24 * 3600  # an ended job's facts are on the disk; the ledger remembers them for a day
LISTER_LEASE_S = 30.0
FINALIZE_LEASE_S = 30.0
LEAVE_END_S = 60.0  # how long a worker that cannot write the output leaves the end of a job to others

CommitResult = Literal["committed", "already", "stale", "unknown"]
Need = Literal["claim", "starving", "end", "lister", "look", "held", "rebuild", "nothing"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's hold on a shard. `attempt` counts the workers that died on it, this one included."""

    job: str
    shard: int
    fence: int
    attempt: int


class Ledger:
    """The ledger of one server; safe to share between threads. Every call is one request to the server.

    `RecoveringLedger` repeats calls while the server is away, and restores jobs that the server forgot.
    """

    def __init__(self, client: "redis.Redis", release: Release | None = None) -> None:
        """release: of the worker that claims here; None: that of this process."""
        self.client = client
        self.worker_release = release or own_release()
        self._has_looked = False  # at the server's clock
        self.live_workers = LiveWorkers(client, self.look_at_clock)
        self.counts = FleetCounts(client)
        self.deliveries = Deliveries(client, self._run)
        self.turns = Turns(self._run, self.worker_release)
        self._scripts = {name: client.register_script(text) for name, text in read_scripts().items()}

    def look_at_clock(self) -> float:
        """Seconds since 1970 by the server's clock. Every worker looks every few seconds (`lua/tick.lua`).

        If the clock was set since one looked, leases are moved: none runs out early, or lasts for hours.
        """
        keys = [self._job(""), f"{PREFIX}:active", WORKERS_KEY, DUE_KEY, SWEEPER_KEY]
        microseconds = self._run("tick", keys, [self._job(""), int(not self._has_looked)])
        self._has_looked = True
        return int(microseconds) / 1e6

    # Jobs

    def create(
        self, job: str, fields: Mapping[str, str | int], *, output: str = "", key: str = "", fingerprint: str = ""
    ) -> tuple[str, str]:
        """Enter a job: ("created", its id), or exists, conflict or output_taken, and the id of the other job."""
        values = [item for pair in fields.items() for item in pair]
        answer = self._run(
            "create",
            [self._job(job), f"{PREFIX}:active", f"{PREFIX}:outputs", self._submission(key)],
            [job, output, fingerprint, SUBMISSION_TTL_S, _ms(LISTER_LEASE_S), *values],
        )
        return answer[0], answer[1]

    def restore(
        self,
        job: str,
        fields: Mapping[str, str | int],
        done: bytes,
        *,
        output: str = "",
        key: str = "",
        fingerprint: str = "",
        run: int = 0,
        replace: bool = False,
    ) -> bool:
        """Enter a job from its folder, `done` being a bitmap of shards; False where this run is known.

        replace: enter it again. Also then nothing is entered where a later run is known.
        """
        values = [item for pair in fields.items() for item in pair]
        answer = self._run(
            "restore",
            [self._job(job), f"{PREFIX}:active", f"{PREFIX}:outputs", self._submission(key)],
            [
                *(job, output, fingerprint, SUBMISSION_TTL_S, int(replace), done, _ms(LISTER_LEASE_S), run),
                *(_ms(time.time()), *values),
            ],
        )
        return bool(answer)

    def extend(
        self,
        job: str,
        num_shards: int,
        num_images: int,
        *,
        listed: bool,
        run: int = 0,
        failure_limit: int | None = None,
    ) -> State:
        """Enter how far the listing of a run is, and renew the lister's lease; returns the state of the run."""
        limit = "" if failure_limit is None else failure_limit
        values = [num_shards, num_images, int(listed), _ms(LISTER_LEASE_S), limit, run]
        return self._run("extend", [self._job(job)], values) or "unknown"

    def withdraw(self, job: str, *, output: str = "", key: str = "") -> bool:
        """Forget a job whose submission failed; False where a worker has claimed a shard of it already."""
        keys = [self._job(job), f"{PREFIX}:active", f"{PREFIX}:outputs", self._submission(key)]
        return bool(self._run("withdraw", keys, [job, output]))

    def free_submission(self, key: str, job: str) -> None:
        """Let an idempotency key stand for no job, if it stands for this one."""
        self._run("free_submission", [self._job(job), self._submission(key)], [job])

    def cancel(self, job: str, *, run: int = 0, reason: str = "") -> State:
        """Cancel a run of the job; returns the job's state after that.

        run: a later one goes on. reason: the error that ends it, if there is one.
        """
        return self._run("cancel", [self._job(job)], [reason, run]) or "unknown"

    def pause(self, job: str, reason: str, *, by: PausedBy, worker: str = "", workers: Iterable[str] = ()) -> State:
        """Pause the job; returns its state after that.

        worker: cannot read the job's source. The job is paused if that holds for all `workers`, or else goes on with
        the others.
        """
        return self._run("pause", [self._job(job)], [by, reason, worker, *workers]) or "unknown"

    def unpause(self, job: str, *, by: PausedBy) -> State:
        """End the pause of one side; the job goes on unless the other has paused it, too. Returns its state."""
        return self._run("unpause", [self._job(job)], [by]) or "unknown"

    def record(self, job: str) -> JobRecord | None:
        """All that the ledger has of a job; None where it does not know it.

        Raises MessageError where what it has is none of ours.
        """
        values = cast(dict[str, str], self.client.hgetall(self._job(job)))
        return JobRecord.of(job, values) if values else None

    def active(self) -> set[str]:
        return {job for job in cast(set[str], self.client.smembers(f"{PREFIX}:active")) if JOB_ID.fullmatch(job)}

    def need(self, job: str, starving_s: float, *, run: int = 0) -> Need:
        """What the job, whose folder has this run, needs now.

        `starving` is returned at most once in `starving_s` seconds, for a job with shards to claim and no worker.
        """
        return cast(Need, self._run("needs", [self._job(job)], [_ms(starving_s), run]))

    def needs(self, runs: Mapping[str, int], starving_s: float) -> dict[str, Need | Exception]:
        """As `need`, for many jobs and their runs in one request; the error of a job whose record is none of ours."""
        from orchestrator.contract.server import SERVER_ERRORS, anew  # takes redis, which no help text needs

        with self.client.pipeline(transaction=False) as pipeline:
            for job, run in runs.items():
                self._scripts["needs"](keys=[self._job(job)], args=[_ms(starving_s), run], client=pipeline)
            answers = pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, SERVER_ERRORS):
                raise anew(answer)
        return dict(zip(runs, answers, strict=True))

    def job_of_submission(self, key: str) -> str | None:
        value = cast(str | None, self.client.get(self._submission(key)))
        return value.split()[0] if value else None

    def owner_of_output(self, output: str) -> str | None:
        return cast(str | None, self.client.hget(f"{PREFIX}:outputs", output))

    # Shards

    def claim(self, job: str, worker: str, lease_s: float) -> Claim | str:
        """Claim a shard, or return why there is none: none, barred (see `Barred`), unknown, or the job's state."""
        release = [self.worker_release.version, self.worker_release.formats_text]
        answer = self._run("claim", [self._job(job)], [worker, _ms(lease_s), *release])
        if isinstance(answer, str):
            return answer
        return Claim(job, int(answer[0]), int(answer[1]), int(answer[2]))

    def renew(self, job: str, claims: Iterable[Claim], lease_s: float) -> tuple[State, set[int]]:
        """Keep `claims` for another lease; returns the job's state and the shards that were lost."""
        pairs = [value for claim in claims for value in (claim.shard, claim.fence)]
        state, *lost = self._run("renew", [self._job(job)], [_ms(lease_s), *pairs])
        return state, {int(shard) for shard in lost}

    def commit(
        self,
        claim: Claim,
        *,
        num_rows: int,
        num_failed: int,
        given_up: bool = False,
        seconds: Mapping[str, float] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> tuple[CommitResult, State]:
        """Enter that the shard's part is on the disk; returns the verdict and the job's state.

        seconds: its stage times. counts: what it adds to the counts of the fleet.
        """
        times = time_fields(seconds or {})
        added = [item for pair in [*times.items(), *(counts or {}).items()] for item in pair]
        verdict, state = self._run(
            "commit",
            [self._job(claim.job), COUNTS_KEY],
            [claim.shard, claim.fence, num_rows, num_failed, int(given_up), len(times), *added],
        )
        return verdict, state

    def release(self, claim: Claim) -> bool:
        """Hand a shard back unfinished; False where the claim no longer holds it."""
        return bool(self._run("release", [self._job(claim.job)], [claim.shard, claim.fence]))

    def change_version(self, job: str, version: str) -> None:
        """Let a job go on with workers of another version than the one that began it."""
        self._run("note", [self._job(job)], ["version", version])

    def report_progress(self, job: str, progress: str, claim: Claim | None = None) -> None:
        """Record the latest event of a job; ignored where the job is not known, or the claim no longer holds."""
        holder = [] if claim is None else [claim.shard, claim.fence]
        self._run("note", [self._job(job)], ["progress", progress, *holder])

    def report_trouble(self, job: str, trouble: str) -> None:
        """Record what keeps a job from making progress; the next commit removes it."""
        self._run("note", [self._job(job)], ["trouble", trouble])

    def end_trouble(self, claim: Claim) -> None:
        """Remove it before a commit: the holder of the job's shard makes progress."""
        self._run("note", [self._job(claim.job)], ["trouble", "", claim.shard, claim.fence])

    # The end

    def take_finalize_lease(self, job: str, worker: str, lease_s: float) -> tuple[State, int | None]:
        """Take the job's finalize lease; returns the job's state, and the fence if the lease was granted."""
        state, fence = self._run("take_finalize_lease", [self._job(job)], [worker, _ms(lease_s)])
        return state, int(fence) if fence else None

    def renew_finalize_lease(self, job: str, fence: int, lease_s: float) -> bool:
        """Keep the job's finalize lease; False where it is lost."""
        return bool(self._run("renew_finalize_lease", [self._job(job)], [fence, _ms(lease_s)]))

    def leave_end(self, job: str, fence: int, worker: str, workers: Iterable[str]) -> bool:
        """Give the finalize lease up, since this worker cannot write the output; another of `workers` may.

        False where each of them has tried, or this one has left the job to them before.
        """
        return bool(self._run("leave_end", [self._job(job)], [fence, worker, _ms(LEAVE_END_S), *workers]))

    def finish(
        self, job: str, state: State, *, run: int = 0, output: str = "", error: str = "", result: str = ""
    ) -> bool:
        """Enter the outcome of a run; doing it twice changes nothing. False where a later run has begun."""
        answer = self._run(
            "finish",
            [self._job(job), f"{PREFIX}:active", f"{PREFIX}:outputs", COUNTS_KEY],
            [job, output, state, error, result, ENDED_TTL_S, run],
        )
        return bool(answer)

    def queue_length(self, queue: str) -> int:
        """Number of doorbells in `queue`."""
        return self.client.llen(queue_key(queue))

    def _job(self, job: str) -> str:
        return f"{PREFIX}:job:{job}"

    def _submission(self, key: str) -> str:
        return f"{PREFIX}:submission:{key}" if key else ""

    def _run(self, script: str, keys: list[str], args: list[Any]) -> Any:
        return self._scripts[script](keys=keys, args=args)


def _ms(seconds: float) -> int:
    """Milliseconds, the unit of the scripts."""
    return round(seconds * 1000)
