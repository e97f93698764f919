"""Folders of old jobs, and versions of models, are removed."""

import shutil
from datetime import UTC, datetime, timedelta

from benchmarks.steps.chore import Chore
from modeling.registry.store import ModelStore
from orchestrator.contract.errors import ExitCode
from orchestrator.contract.jobs.end import unpublished_path
from orchestrator.contract.jobs.job_folder import FinalState, JobFolder, Outcome
from orchestrator.contract.settings import Settings
from tests.support.fakes import make_job
from tests.support.published_models import publish_model

_MODEL = "digits"
# Jobs by the days since they ended: two that go, and one that stays.
_JOBS: tuple[tuple[str, int, FinalState], ...] = (
    ("c261001-120000-000001", 60, "failed"), ("c261002-120000-000002", 50, "cancelled"),
    ("c261003-120000-000003", 3, "failed"),
)  # fmt: skip


class Prune(Chore):
    """Folders of jobs that ended long ago are removed, and what their finalizers left beside their outputs."""

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("jobs", "prune", "--older-than", "30d")

    def begin(self) -> None:
        for place in ("home", "out"):
            shutil.rmtree(self.folder / place, ignore_errors=True)
        (self.folder / "out").mkdir()
        settings = Settings(home=self.folder / "home")
        for number, (job, days, state) in enumerate(_JOBS):
            output = self.folder / "out" / f"{number}.csv"
            folder = make_job(settings, ["a.jpg", "b.jpg"], root=self.folder, output=output, job=job)
            (folder.parts / "0.part").write_bytes(b"rows")
            self._end(folder, days, state)

    def _end(self, folder: JobFolder, days: int, state: FinalState) -> None:
        folder.write_outcome(Outcome(state=state, ended=datetime.now(UTC) - timedelta(days=days)))
        unpublished_path(folder.request(), 1).write_bytes(b"rows")  # of a finalizer that was killed

    def found(self) -> dict[str, bytes]:
        """The names of all files of jobs and beside outputs."""
        places = (self.folder / "home" / "jobs", self.folder / "out")
        files = (path for place in places for path in place.rglob("*") if path.name != ".lock")
        return {str(path.relative_to(self.folder)): b"" for path in files}


class Remove(Chore):
    """A version of a model is removed; the next removal deletes what is left of it."""

    again_codes = (ExitCode.OK, ExitCode.NOT_FOUND)

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("models", "remove", f"{_MODEL}@1", "--yes")

    def begin(self) -> None:
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        for seed in range(3):
            publish_model(home / "models", _MODEL, seed)
            shutil.rmtree(home / f"staged-{_MODEL}")

    def found(self) -> dict[str, bytes]:
        """The versions that are there."""
        store = ModelStore(self.folder / "home" / "models")
        return {version.ref: version.digest.encode() for version in store.list()}

    def problems(self) -> list[str]:
        done = self.run("models", "remove", f"{_MODEL}@2", "--yes")
        left = (self.folder / "home" / "models" / _MODEL).glob(".removed-*/*")
        return [f"{path} is left" for path in left] + [done.stderr] * (done.returncode != 0)
