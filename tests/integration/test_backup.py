"""deploy/backup.py: a home is copied while a job runs, restored to another folder, and an empty server goes on."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.contract.home import ID_FILE
from orchestrator.contract.jobs.job_folder import JobFolder, active_jobs
from orchestrator.contract.settings import Settings
from orchestrator.contract.shared_server import SHARED_FILE
from orchestrator.contract.webhooks.secret import read_secrets, secret_file
from orchestrator.jobs.results import find_published
from orchestrator.jobs.resume import ResumeOptions, resume
from orchestrator.jobs.submit import JobClient
from orchestrator.jobs.verification import verify
from orchestrator.telegrams.spool import Facts, Spool
from tests.support.backups import back_up, load_script
from tests.support.fakes import FakeClassifier, FakeModelCache, enter_job, make_images, make_job
from tests.support.published_models import publish_model
from workers.classify.slice import classify_slice
from workers.finalize.finalize import end_job
from workers.sweep import sweep

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BRIGHTNESS = [0, 30, 60, 90, 120, 150, 180, 210, 240]


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


def test_a_copy_without_its_id_and_active_jobs_does_nothing_until_a_job_is_resumed(
    job, settings, ledger, bells, server, tmp_path
):
    assert back_up(settings.home, tmp_path / "1").returncode == 0
    copied = Settings(home=tmp_path / "1" / "home", server_url=server.url)
    (copied.home / "id").unlink()
    for folder in (copied.active, copied.webhooks):
        shutil.rmtree(folder, ignore_errors=True)
    server.empty()
    sweep(copied, ledger, bells)
    assert (ledger.active(), bells.rung) == (set(), [])

    client, options = JobClient(copied), ResumeOptions(need_worker=False)
    resume(client, JobFolder.open(copied, job.job), options, lambda *_: None)

    assert (ledger.active(), active_jobs(copied)) == ({job.job}, [job.job])


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


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path):
    """A home without jobs."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "id").write_text("0123456789abcdef\n")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("target", "also", "said"),
    [
        ("srv/results/backups/1", ["srv/results"], "lies in {}/srv/results, which is copied"),
        ("linked/1", ["srv/results"], "lies in {}/srv/results, which is copied"),
        ("home/backups/1", [], "lies in {}/home, which is copied"),
        ("disk/models/1", [], "lies in {}/home/models, which is copied"),
        ("new", ["new.partial"], "lies in {}/new.partial, which is copied"),
        ("1", ["srv/a-b", "srv/a/b"], "/srv/a/b would both be also/"),
        ("1", ["srv/gone"], "--also {}/srv/gone is not a folder, or it is not mounted"),
    ],
)
def test_a_backup_that_would_copy_itself_or_overwrite_a_part_is_refused(home, tmp_path, target, also, said):
    for folder in ("srv/results", "srv/a-b", "srv/a/b", "disk/models", "new.partial"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "out.csv").write_text(folder)
    (tmp_path / "linked").symlink_to("srv/results")
    (home / "models").symlink_to("../disk/models")
    before = snapshot(tmp_path)

    done = back_up(home, tmp_path / target, *(part for name in also for part in ("--also", tmp_path / name)))

    assert (done.returncode, done.stdout) == (2, "")
    assert said.format(tmp_path) in done.stderr
    assert snapshot(tmp_path) == before


def test_the_secret_of_webhooks_and_what_telegrams_have_acknowledged_are_in_it(home, tmp_path):
    settings, spool = Settings(home=home), Spool(home / "telegrams" / "belt-7000")
    secrets = read_secrets(settings)
    facts = Facts("plc", "a", 1, "", 12.5, None)
    spool.add(facts, b"image of a")
    spool.answer(spool.add(replace(facts, item="b"), b"image of b"), replace(facts, item="b"), {"bin": "3"})
    expected = list(spool.restore())

    assert back_up(home, tmp_path / "1").returncode == 0

    restored = Spool(tmp_path / "1" / "home" / "telegrams" / "belt-7000")
    assert list(restored.restore()) == expected
    assert restored.image(expected[0][0]) == b"image of a"
    assert read_secrets(Settings(home=tmp_path / "1" / "home")) == secrets
    assert (tmp_path / "1" / "home" / "notify.secret").stat().st_mode & 0o077 == 0


def test_an_answer_that_takes_the_place_of_its_item_meanwhile_is_in_it(home, tmp_path, monkeypatch):
    folder, module = home / "telegrams" / "belt-7000", load_script()
    folder.mkdir(parents=True)
    (folder / "000000000001.item").write_text("{}")
    copy = module.Backup._copy

    def answered_before(self, source: Path, name: Path) -> None:
        if source.suffix == ".item":
            source.with_suffix(".answer").write_text("3")
            source.unlink()
        copy(self, source, name)

    monkeypatch.setattr(module.Backup, "_copy", answered_before)

    module.Backup(tmp_path / "1", None).home(home)

    assert snapshot(tmp_path / "1" / "home" / "telegrams") == {"belt-7000/000000000001.answer": b"3"}


def test_what_is_a_link_is_copied_with_what_it_holds(home, tmp_path):
    for folder in ("disk/models/birds", "disk/results"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text(folder)
    (home / "models").symlink_to(tmp_path / "disk/models")
    (tmp_path / "results").symlink_to("disk/results")
    (tmp_path / "disk/secret").write_text("whsec_1")
    (home / "notify.secret").symlink_to(tmp_path / "disk/secret")

    assert back_up(home, tmp_path / "1", "--also", tmp_path / "results").returncode == 0

    assert (tmp_path / "1/home/models/birds/file").read_text() == "disk/models/birds"
    assert not (tmp_path / "1/home/notify.secret").is_symlink()
    assert (tmp_path / "1/home/notify.secret").read_text() == "whsec_1"
    (copied,) = (tmp_path / "1/also").iterdir()
    assert not copied.is_symlink()
    assert (copied / "file").read_text() == "disk/results"


def test_what_a_home_holds_beside_that_is_named(home, tmp_path):
    for name in ("cache", "stack", "sorts", "mine"):
        (home / name).mkdir()
    (home / "server.json").touch()

    done = back_up(home, tmp_path / "1")

    assert done.returncode == 0
    assert done.stderr == "not copied, as nothing is known of it: 'mine' in the home\n"


def test_a_backup_knows_every_name_that_the_code_has_in_a_home():
    module = load_script()
    known = {*module.FIRST, module.JOBS, *module.LAST, module.TELEGRAMS, *module.NOT_COPIED}
    code = "".join(path.read_text() for room in ("orchestrator", "workers") for path in (ROOT / room).rglob("*.py"))
    names = re.findall(r"""\bhome(?:\(\))? / "([^"]+)\"|\.home}/([\w.]+)""", code)

    found = {one or other for one, other in names} | {ID_FILE, SHARED_FILE, secret_file(Settings(home="/h")).name}

    assert len(found) >= 12
    assert found <= known


def test_facts_of_a_job_are_copied_before_what_they_speak_of(job, settings, tmp_path, monkeypatch):
    module = load_script()
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
