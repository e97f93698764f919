"""What becomes of a doorbell that cannot be answered."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.ledger.turns import Turn
from orchestrator.contract.settings import Settings
from tests.support.fakes import make_job
from workers import tasks
from workers.context import WorkerContext


class RecordedTrouble:
    """A ledger that takes nothing but trouble."""

    def __init__(self) -> None:
        self.troubles: list[tuple[str, str]] = []
        self.turns = self

    def take(self, named: str, worker: str, longest_s: float) -> Turn:
        return Turn(named)

    def end(self, turn: Turn, worker: str, seconds: float, num_shards: int | None) -> bool:
        return False

    def report_trouble(self, job: str, trouble: str) -> None:
        self.troubles.append((job, trouble))


def test_a_worker_without_a_right_to_the_job_says_so_where_the_job_is_watched(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    folder = make_job(settings, ["a.png"], root=tmp_path, output=tmp_path / "out.csv")
    ledger: Any = RecordedTrouble()
    context = WorkerContext(settings, ledger, SimpleNamespace(), "host-cpu-1-abc", "cpu", ring=print)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def reporting(_: str) -> Iterator[WorkerContext]:
        yield context

    def refuse(_: Settings, job: str) -> None:
        raise PermissionError(13, "Permission denied", str(settings.jobs / job))

    monkeypatch.setattr(tasks, "reporting_activity", reporting)
    monkeypatch.setattr(JobFolder, "open", refuse)

    with caplog.at_level(logging.ERROR):
        tasks.classify_task({"version": 1, "job": folder.job})

    [(job, trouble)] = ledger.troubles
    assert job == folder.job
    assert trouble.startswith(
        f"worker host-cpu-1-abc has no right to job {job}: Permission denied: '{settings.jobs / job}'"
    )
    assert "; ask " in trouble
    assert [record.getMessage() for record in caplog.records] == [trouble]
