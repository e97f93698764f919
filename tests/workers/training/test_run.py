"""The attempts of a worker at a job, with processes that do nothing but die, hang or succeed."""

import contextlib
import errno
import json
import shutil
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.attempts import begin_attempt, read_attempts
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import TrainJobRequest
from orchestrator.contract.ledger.ledger import Claim
from tests.support.fakes import Bells
from tests.support.server import wait_until
from workers.context import ModelCache, WorkerContext
from workers.training import process, run
from workers.training.run import ProcessFailedError, ProcessInterruptedError, ProcessJob
from workers.training.specs import ProcessSpec

JOB = "t261129-120000-7f3a2b"

# A process: `number` is that of its attempt, `output` the folder for its result.
_START = """
import json, os, pathlib, signal, sys, time
def say(**event): print(json.dumps(event), flush=True)
request = pathlib.Path(sys.argv[-1])
number, output = int(request.name.split(".")[1]), pathlib.Path(json.loads(request.read_text())["output"])
def save(step): pathlib.Path(f"training/scratch.{number}.{step}.checkpoint").touch()
def finish(): output.mkdir(); (output / "model.json").write_text(f"made by attempt {number}")
"""


class OneClaim:
    """A ledger on which the claim holds until a test says otherwise."""

    def __init__(self):
        self.lost: set[int] = set()
        self.state = "running"
        self.progress: list[str] = []
        self.num_troubles_ended = 0

    def renew(self, *_):
        return self.state, self.lost

    def report_progress(self, job, progress, claim):
        self.progress.append(progress)

    def end_trouble(self, claim):
        self.num_troubles_ended += 1


@pytest.fixture
def ledger():
    return OneClaim()


@pytest.fixture
def context(settings, ledger) -> WorkerContext:
    settings = settings.model_copy(update={"training_stall_s": 0.5})
    models = ModelCache(ModelStore(settings.models), "cpu")
    return WorkerContext(settings, ledger=ledger, models=models, worker="w1", device="cpu", ring=Bells())


@pytest.fixture
def folder(settings) -> JobFolder:
    request = TrainJobRequest(job=JOB, created=datetime.now(UTC), source="in", name="digits", train={})
    made = JobFolder.create(settings, request)
    made.training.mkdir()
    return made


@pytest.fixture
def job(context, folder, monkeypatch):
    """A job whose process runs this code."""

    def make(code: str) -> ProcessJob:
        monkeypatch.setattr(process, "launcher", lambda **_: [sys.executable, "-c", _START + code])
        spec = ProcessSpec("training", folder.model, lambda attempt, output: {"output": str(output)})
        made = ProcessJob(context, folder, spec, Claim(JOB, 0, 7, 1))
        made.leases = SimpleNamespace(lost=set(), job_goes_on=True, state="running", progressed=lambda: None)
        return made

    return make


def ends_of(folder):
    return [(each.end.how, each.end.died, each.end.progressed) for each in read_attempts(folder) if each.end]


KILLED = "the training was killed by signal 9"


def test_a_process_that_dies_with_new_checkpoints_is_followed_by_others_as_often_as_it_takes(job, folder):
    made = job("save(number)\nif number < 6: os.kill(os.getpid(), signal.SIGKILL)\nfinish()")

    assert made.run()

    assert ends_of(folder) == [(KILLED, True, True)] * 5 + [("it was finished", False, True)]
    assert (folder.model / "model.json").read_text() == "made by attempt 6"


def test_a_process_that_dies_without_new_checkpoints_fails_the_job_at_the_third_time(job, folder):
    with pytest.raises(ProcessFailedError, match=r"signal 9; it died 3 times without a new checkpoint; .*the log"):
        job("sys.stderr.write('the log\\n'); os.kill(os.getpid(), signal.SIGKILL)").run()

    assert ends_of(folder) == [(KILLED, True, False)] * 3


def test_deaths_of_workers_and_of_processes_count_together(job, folder):
    for _ in range(2):
        begin_attempt(folder, worker="w0", device="cpu")

    with pytest.raises(ProcessFailedError, match="it died 3 times without a new checkpoint"):
        job("os.kill(os.getpid(), signal.SIGKILL)").run()

    assert len(read_attempts(folder)) == 3


def test_workers_that_die_before_they_start_a_process_fail_the_job_although_there_is_no_log(job, folder):
    for _ in range(3):
        begin_attempt(folder, worker="w0", device="cpu")

    with pytest.raises(ProcessFailedError, match=r"it died 3 times without a new checkpoint.*its log cannot be read"):
        job("finish()").run()


def test_memory_that_runs_out_in_the_process_is_a_death_and_named(job, folder):
    with pytest.raises(ProcessFailedError, match="the training ran out of memory: can't allocate; it died 3 times"):
        job("say(event='memory', text=\"can't allocate\"); sys.exit(72)").run()


STOPS_ITSELF = "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"


def test_a_process_that_alone_is_stopped_by_a_signal_has_died(job, folder, monkeypatch):
    monkeypatch.setattr(process, "MEANT_FOR_ALL_S", 0.0)

    with pytest.raises(ProcessFailedError, match="killed by signal 15; it died 3 times"):
        job(STOPS_ITSELF).run()

    assert ends_of(folder) == [("the training was killed by signal 15", True, False)] * 3


def test_a_process_that_is_stopped_with_its_worker_has_not_died(job, folder, context):
    asked = iter([False, False])
    context.draining = lambda: next(asked, True)  # the worker gets the signal a little later
    made = job(STOPS_ITSELF)

    assert not made.run()

    assert (made.drained, ends_of(folder)) == (True, [("it was asked to stop", False, False)])


@pytest.mark.parametrize(
    ("code", "raised"), [(1, ProcessInterruptedError), (70, ProcessFailedError)], ids=["at its start", "a bug"]
)
def test_a_process_that_cannot_even_start_for_want_of_files_is_waited_for(job, folder, code, raised):
    with pytest.raises(raised, match=f"ended with exit code {code}: .*OSError: .Errno 24. Too many open files"):
        job(f"sys.stderr.write('OSError: [Errno 24] Too many open files'); sys.exit({code})").run()

    assert [died for _, died, _ in ends_of(folder)] == [False]


def test_an_unexpected_error_of_the_worker_is_a_death_of_the_attempt(job, folder, monkeypatch):
    def fail(*args, **kwargs):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/opt/old/bin/python")

    monkeypatch.setattr(process.subprocess, "Popen", fail)
    made = job("finish()")

    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            made.run()
    with pytest.raises(ProcessFailedError, match=r"FileNotFoundError: .*/opt/old/bin/python.*; it died 3 times"):
        made.run()

    assert [died for _, died, _ in ends_of(folder)] == [True] * 3


def test_a_trouble_ends_once_an_attempt_makes_progress(job, ledger):
    job("say(event='note', text='looking'); say(event='steps', num_done=1); say(event='epoch'); finish()").run()

    assert ledger.num_troubles_ended == 1


def test_a_trouble_stays_while_an_attempt_only_begins(job, ledger):
    job("say(event='note', text='looking'); finish()").run()

    assert ledger.num_troubles_ended == 0


def test_an_error_of_a_process_whose_worker_has_lost_its_claim_says_nothing_of_the_job(job, ledger, monkeypatch):
    answers = iter([("running", set())])
    monkeypatch.setattr(ledger, "renew", lambda *_: next(answers, ("running", {0})))

    assert not job("sys.exit(70)").run()


def test_an_error_that_the_process_reports_ends_the_job_at_once(job, folder):
    with pytest.raises(ProcessFailedError, match="the loss is nan at step 7"):
        job("say(event='error', error='the loss is nan at step 7'); sys.exit(1)").run()

    assert ends_of(folder) == [("the loss is nan at step 7", False, False)]


def test_storage_that_was_away_is_waited_for_and_no_death(job, folder):
    with pytest.raises(ProcessInterruptedError, match="the training was interrupted: Input/output error"):
        job("say(event='interrupted', text='Input/output error'); sys.exit(71)").run()

    assert ends_of(folder) == [("Input/output error", False, False)]


def test_storage_that_takes_no_model_is_waited_for_and_fails_the_job_with_the_reason_at_the_third_time(job, folder):
    made = job("save(number * (number < 3)); say(event='storage', text='the model: stale handle'); sys.exit(74)")

    for _ in range(3):
        with pytest.raises(ProcessInterruptedError, match="the training was interrupted: the model: stale handle"):
            made.run()
    with pytest.raises(ProcessFailedError, match="the model: stale handle; it was tried 3 times without a new checkpo"):
        made.run()

    assert ends_of(folder) == [("the model: stale handle", True, number < 3) for number in (1, 2, 3, 4)]


def test_a_process_that_is_overtaken_is_no_death_and_followed_while_the_claim_holds(job, folder):
    made = job("if number == 1: say(event='superseded', text='attempt 2 has begun'); sys.exit(73)\nfinish()")

    assert made.run()
    assert ends_of(folder)[0] == ("attempt 2 has begun", False, False)


@contextlib.contextmanager
def ticking(made):
    """Its leases tick, as they do every second."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: [made.tick() for _ in iter(lambda: stop.wait(0.05), True)])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_process_that_hangs_is_ended_with_what_it_started_and_followed_by_another(job, folder):
    hang = "import subprocess; print(json.dumps({'event': 'epoch'}), flush=True); subprocess.run(['sleep', '1000'])"
    made = job(f"if number == 1: {hang}\nfinish()")

    with ticking(made):
        assert made.run()

    assert ends_of(folder)[0] == ("the training showed no sign of life for 0 s and was ended", True, False)


def test_the_log_of_a_process_that_writes_much_is_cut_while_it_runs(job, folder, monkeypatch):
    monkeypatch.setattr(process, "MAX_LOG_BYTES", 2000)
    made = job(
        "def is_cut(): return os.path.exists('training.log.1') and os.path.getsize('training.log') < 1000\n"
        "while not is_cut(): sys.stderr.write('x' * 99 + '\\n'); say(event='step')\n"
        "sys.stderr.write('the end\\n'); finish()"
    )

    with ticking(made):
        assert made.run()

    assert (folder.path / "training.log.1").read_text().startswith("attempt 1, ")
    assert (folder.path / "training.log").read_text().endswith("the end\n")


def test_a_worker_that_was_frozen_since_its_claim_ends_no_attempt_of_another(job, folder, ledger):
    begin_attempt(folder, worker="w2", device="cpu")
    ledger.lost = {0}

    assert not job("finish()").run()

    assert [(each.number, each.end) for each in read_attempts(folder)] == [(1, None)]


def test_a_result_that_the_end_of_the_job_has_removed_meanwhile_does_not_count(job, folder, ledger, monkeypatch):
    def renew(*_):
        shutil.rmtree(folder.path / "model.1", ignore_errors=True)
        return "running", set()

    monkeypatch.setattr(ledger, "renew", renew)

    assert not job("finish()").run()

    assert [end[0] for end in ends_of(folder)] == ["the job ended meanwhile, and its result was removed"]


def test_a_result_of_a_worker_that_lost_its_claim_does_not_count(job, folder, ledger, monkeypatch):
    answers = iter([("running", set())])
    monkeypatch.setattr(ledger, "renew", lambda *_: next(answers, ("running", {0})))

    assert not job("finish()").run()

    assert not folder.model.exists()
    assert [end[0] for end in ends_of(folder)] == [
        "its lease was lost, or the job cancelled, before its result counted"
    ]


def test_a_job_that_is_cancelled_ends_its_process(job, folder):
    made = job("say(event='epoch'); time.sleep(1000)")
    thread = threading.Thread(target=made.run)
    thread.start()
    wait_until(lambda: folder.events.exists() and folder.events.read_text() != "", what="the process works")

    made.leases.job_goes_on, made.leases.state = False, "cancelling"
    made.tick()
    thread.join(30)

    assert ends_of(folder) == [("the job was cancelling", False, False)]


def test_events_carry_the_number_of_their_attempt_and_signs_of_life_are_not_kept(job, folder, ledger):
    job("say(event='steps', num_done=3); say(event='epoch', epoch=1); print('no event', flush=True); finish()").run()

    kept = [json.loads(line) for line in folder.events.read_text().splitlines()]
    assert kept == [{"event": "epoch", "epoch": 1, "attempt": 1}]
    assert [json.loads(line)["event"] for line in ledger.progress] == ["steps", "epoch"]
    assert Path(folder.path / "training.log").read_text() == "attempt 1, worker w1\n"


def test_a_full_disk_costs_events_and_not_the_training(job, folder):
    folder.events.symlink_to("/dev/full")

    assert job("say(event='epoch', epoch=1); finish()").run()


def test_half_an_event_of_a_disk_that_was_full_costs_no_event_after_it(job, folder):
    folder.events.write_text('{"event": "epo')

    job("say(event='epoch', epoch=2); say(event='epoch', epoch=3); finish()").run()

    half, *whole = folder.events.read_text().splitlines()
    assert (half, [json.loads(line)["epoch"] for line in whole]) == ('{"event": "epo', [2, 3])


STALE = OSError(errno.ESTALE, "Stale file handle")


def failing(monkeypatch, name, times, err=STALE):
    """A call of a method of Path or of the module fails so often."""
    monkeypatch.setattr(run, "_PAUSES_S", (0.0,))
    owner = Path if hasattr(Path, name) else run
    call, left = getattr(owner, name), [err] * times

    def fail(*args, **options):
        if left:
            raise left.pop()
        return call(*args, **options)

    monkeypatch.setattr(owner, name, fail)


def results(folder):
    return sorted(path.name for path in folder.path.glob("model*"))


def test_a_result_that_the_storage_does_not_take_at_once_is_moved_again(job, folder, monkeypatch):
    failing(monkeypatch, "rename", 1)

    assert job("finish()").run()

    assert [end[0] for end in ends_of(folder)] == ["it was finished"]


def test_a_result_whose_move_was_answered_with_an_error_stays(job, folder, monkeypatch):
    failing(monkeypatch, "sync", 1)

    assert job("finish()").run()

    assert results(folder) == ["model"]


@pytest.mark.parametrize("name", ["rename", "sync_tree"])
def test_a_result_that_the_storage_never_takes_fails_the_job_at_the_third_time_and_leaves_none(
    job, folder, monkeypatch, name
):
    failing(monkeypatch, name, 1000)
    made = job("finish()")
    reason = "the result of the training cannot be kept: .*Stale file handle"

    for _ in range(2):
        with pytest.raises(ProcessInterruptedError, match=reason):
            made.run()
    with pytest.raises(ProcessFailedError, match=f"{reason}; it was tried 3 times without a new checkpoint"):
        made.run()

    assert [end[1] for end in ends_of(folder)] == [True] * 3
    assert results(folder) == []


def test_a_result_that_a_full_disk_rejects_is_removed(job, folder, monkeypatch):
    failing(monkeypatch, "sync_tree", 1, OSError(errno.ENOSPC, "No space left on device"))

    with pytest.raises(OSError, match="No space left"):
        job("finish()").run()

    assert results(folder) == []
