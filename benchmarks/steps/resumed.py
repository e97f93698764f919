"""Jobs that were cancelled or have failed, and are resumed while faults strike."""

import shutil
import time
from pathlib import Path

from benchmarks.steps.cells import Cell, cells_of
from benchmarks.steps.scenario import PATIENCE_S, SHARD_SIZE, Scenario
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.server import connect_raw
from orchestrator.jobs.submit import JobClient
from tests.support.server import wait_until
from tests.support.steps.compare import differences
from tests.support.steps.faults import SHORTER_LEASES, Fault, Faults
from tests.support.workers import Cluster

_MOMENT_S = SHORTER_LEASES["orchestrator.jobs.resume"]["MOMENT_S"]


class Resume(Scenario):
    """A job that was cancelled with some of its shards done goes on.

    Its folder and what the ledger has of it are kept, and put back before every run of the command.
    """

    name = "resume"
    state = "cancelled"

    def __init__(self, cluster: Cluster, folder: Path, faults: Faults) -> None:
        super().__init__(cluster, folder, faults)
        self._base = folder / "job"
        self._client = connect_raw(cluster.server.url)
        self._keys: dict[bytes, bytes] = {}
        self.job = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("jobs", "resume", self.job)

    def _classify(self) -> tuple[str, ...]:
        options = ("--model", "digits", "-o", str(self.out), "--shard-size", str(SHARD_SIZE))
        return ("classify", str(self.source), *options)

    @staticmethod
    def cells() -> list[Cell]:
        return [cell for cell in cells_of("resume", "resume") if cell.fault.step != "resume.list"]

    def prepare(self) -> None:
        """Besides, see that the job that is resumed gives the result of one that was never disturbed."""
        super().prepare()
        lines = differences(self._undisturbed, self.expected)
        assert not lines, f"resumed without a fault: {lines}"

    def prepare_base(self) -> None:
        self.cluster.run(*self._classify())
        self._undisturbed = self.published()
        for path in self.outbox.iterdir():
            path.unlink()
        self.job = self.stop_job()
        outcome = self.cluster.outcome(self.job)
        assert outcome.state == self.state, outcome
        self.wait_for_end()
        folder = JobFolder(self.cluster.settings, self.job).path
        assert any(folder.glob("parts/*.part")), "no shard was done before the job ended"
        self._keys = {key: self._client.dump(key) for key in self._keys_of_job()}  # type: ignore[misc]
        folder.rename(self._base)

    def stop_job(self) -> str:
        """A job that was cancelled when each worker had done a shard."""
        fault = Fault("shard.link", "freeze", before=False, times=len(self.cluster.workers))
        with self.faults.armed(fault) as struck:
            # In a process of its own: what other threads print meanwhile must not be taken for the job.
            job = self.cluster.run_ok(*self._classify(), "--detach").strip()
            wait_until(lambda: len(struck.events()) == fault.times, what="each worker has done a shard")
            JobClient(self.cluster.settings).cancel(job)
        return job

    def put_base(self) -> None:
        shutil.copytree(self._base, self.cluster.settings.jobs / self.job)
        for key in self._keys_of_job():
            self._client.delete(key)
        for key, value in self._keys.items():
            self._client.restore(key, 0, value)

    def _keys_of_job(self) -> list[bytes]:
        return list(self._client.scan_iter(f"*job:{self.job}*", count=1000))

    def ended(self, job: str) -> bool:
        return super().ended(job) and JobFolder(self.cluster.settings, job).run > 0

    def wait_for_end(self) -> None:
        """Besides, where a run has begun and nobody does it, wait until another command may enter it."""
        super().wait_for_end()
        if not self.job:
            return
        folder = JobFolder(self.cluster.settings, self.job)
        if folder.run and folder.outcome() is None:
            until_s = time.monotonic() + _MOMENT_S
            wait_until(lambda: time.monotonic() > until_s, what="the moment of a resume is over")


class Relist(Resume):
    """A job that failed since its submission was killed has its images listed again, and goes on."""

    name = "relist"
    state = "failed"

    @staticmethod
    def cells() -> list[Cell]:
        return cells_of("relist", "resume")

    def stop_job(self) -> str:
        others = set(self.cluster.jobs())
        with self.faults.armed(Fault("submit.listed", "kill")) as struck:
            process = self.cluster.start(*self._classify())
            struck.wait()
            process.wait(PATIENCE_S)
        [job] = set(self.cluster.jobs()) - others
        return job
