"""deploy/backup.py: a home is copied while a job runs, restored to another folder, and an empty server goes on."""

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.contract.jobs.job_folder import JobFolder, active_jobs
from orchestrator.contract.settings import Settings
from orchestrator.jobs.results import find_published
from orchestrator.jobs.verification import verify
from tests.support.fakes import FakeClassifier, FakeModelCache, enter_job, make_images, make_job
from tests.support.published_models import publish_model
from workers.classify.slice import classify_slice
from workers.finalize.finalize import end_job
from workers.sweep import sweep

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[2] / "deploy" / "backup.py"
BRIGHTNESS = [0, 30, 60, 90, 120, 150, 180, 210, 240]


def back_up(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def job(settings, ledger, tmp_path):
    """A job of nine images in five shards."""
    publish_model(settings.models, "digits")
    (settings.home / "id").write_text("0123456789abcdef\n")
    (tmp_path / "out").mkdir()
    paths = make_images(tmp_path / "in", BRIGHTNESS)
    folder = make_job(settings, paths, shard_size=2, root=tmp_path / "in", output=tmp_path / "out" / "out.csv")
    enter_job(folder, ledger)
    return folder


@pytest.mark.parametrize("batch", [0, 2, 5])  # before which the backup is made; 5: after the last
def test_a_job_goes_on_from_a_backup_that_was_made_while_it_ran(
    job, settings, ledger, context, server, bells, tmp_path, batch
):
    target, seen = tmp_path / "backups" / "1", []

    def backup_at(brightness: list[int]) -> None:
        seen.append(brightness)
        if len(seen) == batch + 1:
            assert back_up(settings.home, target, "--also", tmp_path / "out").returncode == 0

    context.models = FakeModelCache(FakeClassifier(before=backup_at))
    classify_slice(job.job, context)
    if batch == len(seen):
        assert back_up(settings.home, target, "--also", tmp_path / "out").returncode == 0
    end_job(job.job, context)
    expected = (tmp_path / "out" / "out.csv").read_bytes()

    shutil.rmtree(settings.home)
    shutil.rmtree(tmp_path / "out")
    server.empty()
    shutil.copytree(target / "home", tmp_path / "restored", symlinks=True)
    shutil.copytree(next((target / "also").iterdir()), tmp_path / "out")
    restored = Settings(home=tmp_path / "restored", server_url=server.url)
    again = replace(context, settings=restored, models=FakeModelCache(FakeClassifier()))
    sweep(restored, ledger, bells)
    assert active_jobs(restored) == [job.job]
    classify_slice(job.job, again)
    end_job(job.job, again)

    assert (tmp_path / "out" / "out.csv").read_bytes() == expected
    assert verify(restored, find_published(restored, job.job)).ok
    outcome = JobFolder.open(restored, job.job).outcome()
    assert (outcome.state, outcome.num_done, active_jobs(restored)) == ("succeeded", 9, [])
    assert len(again.models.classifier.seen) <= len(BRIGHTNESS) - 2 * max(0, batch - 2)  # parts before that are taken


def test_what_has_not_changed_is_linked_and_a_backup_appears_whole_or_not_at_all(job, settings, tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    (tmp_path / "2.partial").mkdir()  # of a backup that was killed
    (tmp_path / "2.partial" / "half").touch()
    assert back_up(settings.home, first).returncode == 0
    (settings.active / job.job).unlink()
    (job.path / "history.jsonl").write_text("{}\n")

    assert back_up(settings.home, second, "--since", first).returncode == 0

    name = Path("home", "jobs", job.job, "job.json")
    assert (first / name).samefile(second / name)
    assert (second / name).read_bytes() == job.request_file.read_bytes()
    assert not (second / "home" / "active" / job.job).exists()
    assert (second / name.with_name("history.jsonl")).read_text() == "{}\n"
    assert not (tmp_path / "2.partial").exists()
    assert not (second / "half").exists()
    models = {path.relative_to(settings.models) for path in settings.models.rglob("*")}
    assert {path.relative_to(second / "home" / "models") for path in (second / "home" / "models").rglob("*")} == models


def test_a_folder_that_is_no_home_and_a_target_that_exists_are_refused(job, settings, tmp_path):
    assert "is not mounted" in back_up(tmp_path / "out", tmp_path / "1").stderr
    assert "name a folder that does not" in back_up(settings.home, tmp_path / "out").stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_facts_of_a_job_are_copied_before_what_they_speak_of(job, settings, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("backup", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (job.path / "model").mkdir()
    (job.path / "model" / "model.json").write_text("{}")
    copied: list[str] = []
    monkeypatch.setattr(module.Backup, "_copy", lambda self, source, name: copied.append(str(name)))

    module.Backup(tmp_path / "1", None).home(settings.home)

    def place(name: str) -> int:
        return copied.index(f"home/{name}")

    work = f"jobs/{job.job}"
    order = [f"active/{job.job}", f"{work}/listing.json", f"{work}/listing", f"{work}/model/model.json", "models"]
    assert [place(name) for name in order] == sorted(place(name) for name in order)
    assert len(copied) == len(set(copied))
