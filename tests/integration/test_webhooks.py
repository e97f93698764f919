"""Webhooks: told once per outcome, whatever dies, and what is not told is shown."""

import errno
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.contract.jobs.end import conclude
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, new_job_id, undelivered_jobs
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.contract.jobs.requests import TrainJobRequest
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.settings import Settings
from orchestrator.contract.webhooks.secret import secret_file
from orchestrator.jobs.delivery import delivery_facts, describe_delivery
from tests.support.images import make_class_folders
from tests.support.invoke import invoke
from tests.support.published_models import make_pngs
from tests.support.receiver import Receiver, receiving
from tests.support.server import Server, wait_until
from tests.support.workers import Cluster
from workers import webhooks
from workers.sweep import sweep
from workers.webhooks import GIVE_UP_S, PAUSES_S, WebhookSender

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
verify = runpy.run_path(str(ROOT / "examples" / "receive_webhooks.py"))["verify"]
SENDER = "from workers.webhooks import WebhookSender; from orchestrator.contract.settings import get_settings\n" + (
    "from orchestrator.contract.ledger.ledger import Ledger; from orchestrator.contract.server import connect\n"
    "s = get_settings(); WebhookSender(s, Ledger(connect(s.require_server_url()))).start(); input()"
)


@pytest.fixture
def home(tmp_path: Path, server: Server) -> Settings:
    """Settings of workers that may tell receivers on this machine."""
    return Settings(home=tmp_path / "home", server_url=server.url, notify_allow="127.0.0.0/8")


@pytest.fixture
def sender(home: Settings, ledger: Ledger) -> WebhookSender:
    return WebhookSender(home, ledger)


def ended_job(settings: Settings, ledger: Ledger, url: str, *, ago_s: float = 0, **outcome: object) -> JobFolder:
    """A job that ended just now."""
    job, now = new_job_id("train"), datetime.now(UTC) - timedelta(seconds=ago_s)
    request = TrainJobRequest(
        job=job, created=now, source="photos", name="birds", train={"architecture": "cnn"}, notify=url
    )
    folder = JobFolder.create(settings, request)
    folder.activate()
    facts = {"state": "succeeded", "num_images": 7, "num_done": 7, "result": "birds@1"} | outcome
    conclude(folder, Outcome(ended=now, **facts), RecoveringLedger(ledger, settings))
    return folder


def send_all(sender: WebhookSender, ledger: Ledger) -> None:
    """Send what is due, whenever it is due."""
    for job in undelivered_jobs(sender._settings):
        ledger.client.zadd("{pigeonhole}:webhooks", {job: 0})  # the pause, or the lease of who died, is over
    for job, attempt in ledger.deliveries.take(10, 60):
        sender.send(job, attempt)


def said(receiver: Receiver, settings: Settings) -> list[dict]:
    """What the receiver was told; every signature is good."""
    secret = secret_file(settings).read_text()
    return [verify(secret, headers, body) for headers, body in receiver.got]


def test_a_full_disk_lets_no_webhook_be_told_twice(home, ledger, sender, monkeypatch):
    monkeypatch.setattr(webhooks, "RECORD_AGAIN_S", 0.0)
    write, left, due_s = JobFolder.end_delivery, [1, 1, 1], []

    def full(folder, receipt):
        if left:
            left.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        due_s.append(ledger.deliveries.state(folder.job).due_in_s)
        write(folder, receipt)

    monkeypatch.setattr(JobFolder, "end_delivery", full)
    with receiving(204) as receiver:
        folder = ended_job(home, ledger, receiver.url)
        send_all(sender, ledger)
        send_all(sender, ledger)

        assert len(receiver.got) == 1
    assert due_s[0] > 10  # no other worker sends it meanwhile
    assert folder.receipt().state == "delivered"
    assert ledger.deliveries.num_waiting() == 0


def test_a_job_that_is_removed_by_hand_while_its_delivery_cannot_be_recorded_holds_up_nothing(
    home, ledger, sender, monkeypatch
):
    def full(folder, receipt):
        shutil.rmtree(folder.path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JobFolder, "end_delivery", full)
    with receiving(204) as receiver:
        ended_job(home, ledger, receiver.url)
        send_all(sender, ledger)

    assert ledger.deliveries.num_waiting() == 0


@pytest.mark.parametrize("state", ["succeeded", "partial", "failed", "cancelled"])
def test_the_end_of_a_job_is_told_once_and_signed(home, ledger, sender, state):
    with receiving(204) as receiver:
        folder = ended_job(home, ledger, receiver.url, state=state, error="e" if state == "failed" else None)
        for _ in range(3):
            send_all(sender, ledger)

    [told] = said(receiver, home)
    assert (told["type"], told["data"]["job"], told["data"]["state"]) == (f"job.{state}", folder.job, state)
    assert (told["data"]["model"], told["data"]["num_images"], told["data"]["result"]) == ("birds", 7, "birds@1")
    assert receiver.got[0][0]["webhook-id"].startswith(folder.job)
    assert folder.receipt().state == "delivered"
    assert (ledger.deliveries.num_waiting(), undelivered_jobs(home)) == (0, [])


def test_a_signature_of_another_body_time_or_secret_is_refused(home, ledger, sender):
    with receiving() as receiver:
        ended_job(home, ledger, receiver.url)
        send_all(sender, ledger)
    headers, body = receiver.got[0]
    secret = secret_file(home).read_text()

    for wrong in (
        lambda: verify(secret, headers, body.replace(b"birds", b"boids")),
        lambda: verify(secret, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}, body),
        lambda: verify("whsec_" + "A" * 32, headers, body),
        lambda: verify(secret, headers, body, now_s=int(headers["webhook-timestamp"]) + 301),
    ):
        with pytest.raises(ValueError, match="the webhook is"):
            wrong()


def test_what_fails_is_tried_again_later_and_shown(home, ledger, sender):
    with receiving(503, 500, 200) as receiver:
        folder = ended_job(home, ledger, receiver.url)
        facts = []
        for _ in range(3):
            send_all(sender, ledger)
            facts.append(delivery_facts(folder, folder.request(), ledger))
            assert ledger.deliveries.take(10, 60) == []  # not before its time

    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert [(each["state"], each["attempts"]) for each in facts] == [
        ("undelivered", 1), ("undelivered", 2), ("delivered", 3),
    ]  # fmt: skip
    assert PAUSES_S[1] - 5 < facts[1]["next_in_s"] <= PAUSES_S[1]
    assert "HTTP 503" in describe_delivery(facts[0])
    assert "s3cret" not in json.dumps(facts)


def test_a_worker_that_dies_while_it_sends_is_replaced_by_another(home, ledger, sender):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "PIGEONHOLE_HOME": str(home.home), "PIGEONHOLE_NOTIFY_ALLOW": home.notify_allow,
        "PIGEONHOLE_SERVER_URL": home.require_server_url(),
    }  # fmt: skip
    with receiving(0, 0, 200) as receiver:
        folder = ended_job(home, ledger, receiver.url)
        for tries in (1, 2):
            ledger.client.zadd("{pigeonhole}:webhooks", {folder.job: 0})
            process = subprocess.Popen([sys.executable, "-c", SENDER], env=environment, stdin=subprocess.PIPE)
            wait_until(lambda tries=tries: len(receiver.got) >= tries, what="a worker sends")
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert ledger.deliveries.take(10, 60) == []  # the lease of the dead worker
        send_all(sender, ledger)

    assert [told["data"]["job"] for told in said(receiver, home)] == [folder.job] * 3
    assert folder.receipt().state == "delivered"


def test_an_answer_that_could_not_be_recorded_is_asked_for_again_with_the_same_id(home, ledger, sender, monkeypatch):
    with receiving() as receiver:
        folder = ended_job(home, ledger, receiver.url)
        with monkeypatch.context() as patch:
            patch.setattr(JobFolder, "end_delivery", lambda *_: (_ for _ in ()).throw(RuntimeError("it dies here")))
            with pytest.raises(RuntimeError, match="dies here"):
                send_all(sender, ledger)
        send_all(sender, ledger)

    assert len(receiver.got) == 2
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert folder.receipt().state == "delivered"


def test_an_emptied_server_is_filled_again_from_the_disk(home, server, ledger, sender):
    with receiving() as receiver:
        folder = ended_job(home, ledger, receiver.url)
        server.empty()
        assert ledger.deliveries.take(10, 60) == []
        sweep(home, ledger, lambda queue, job: None)
        assert ledger.deliveries.state(folder.job) is not None
        send_all(sender, ledger)
        sweep(home, ledger, lambda queue, job: None)

    assert len(receiver.got) == 1
    assert ledger.deliveries.num_waiting() == 0


def test_a_job_that_ends_twice_in_the_ledger_is_told_once(home, ledger, sender):
    with receiving() as receiver:
        folder = ended_job(home, ledger, receiver.url)
        send_all(sender, ledger)
        conclude(folder, folder.outcome(), RecoveringLedger(ledger, home))  # another worker was slower
        send_all(sender, ledger)

    assert len(receiver.got) == 1


def test_after_three_days_it_is_given_up(home, ledger, sender):
    with receiving(500) as receiver:
        folder = ended_job(home, ledger, receiver.url, ago_s=GIVE_UP_S + 60)
        send_all(sender, ledger)

    facts = delivery_facts(folder, folder.request(), ledger)
    assert facts["state"] == "given_up"
    assert "given up after 1 attempt (webhook" in describe_delivery(facts)
    assert (ledger.deliveries.num_waiting(), undelivered_jobs(home)) == (0, [])


def test_jobs_names_those_that_are_not_told(home, ledger, sender, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(home.home))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", home.require_server_url())
    with receiving(503) as receiver:
        failing = ended_job(home, ledger, receiver.url).job
        sender.send(failing, ledger.deliveries.take(1, 60)[0][1])
        waiting = ended_job(home, ledger, receiver.url).job

    listed, shown = invoke("jobs"), invoke("status", waiting)
    facts = {each["job"]: each["notify"] for each in json.loads(invoke("jobs", "--json").stdout)}

    to = receiver.url.partition("/hook")[0]
    assert f"{failing}: {to} is not told yet after 1 attempt (webhook {to}: HTTP 503), again in" in listed.stderr
    assert f"{waiting}: {to}" not in listed.stderr
    assert f"notify     {to} is not told yet\n" in shown.stdout
    assert (facts[failing]["error"], facts[waiting]["attempts"]) == (f"webhook {to}: HTTP 503", 0)
    assert "s3cret" not in listed.output + shown.output


def test_what_somebody_else_wrote_among_the_webhooks_does_no_harm(home, ledger, sender):
    ledger.client.zadd("{pigeonhole}:webhooks", {"../../etc/passwd": 0, "c000000-000000-000000": 0})

    send_all(sender, ledger)

    assert ledger.deliveries.num_waiting() == 0


def test_a_receiver_that_does_not_answer_holds_up_no_other(home, ledger, sender, monkeypatch):
    monkeypatch.setattr("orchestrator.contract.webhooks.post.POST_S", 1.0)
    with receiving(0) as silent, receiving() as other:
        for _ in range(5):
            ended_job(home, ledger, silent.url)
        send_all(sender, ledger)
        ended_job(home, ledger, other.url)
        send_all(sender, ledger)

        wait_until(lambda: silent.got and other.got, what="both were asked")

    assert (len(silent.got), len(other.got)) == (1, 1)


def test_receivers_that_answer_again_are_not_remembered(home, ledger, sender, monkeypatch):
    monkeypatch.setattr("orchestrator.contract.webhooks.post.POST_S", 0.1)
    monkeypatch.setattr("workers.webhooks.SILENT_S", 0.0)
    for _ in range(2):
        with receiving(0) as silent:
            ended_job(home, ledger, silent.url)
            send_all(sender, ledger)

    assert len(sender._silent_until_s) == 1


def test_a_job_of_real_workers_is_told_and_shown(running_cluster: Cluster, tmp_path):
    make_pngs(tmp_path / "images", 3)
    with receiving(500, 200) as receiver:
        job = running_cluster.submit(
            "classify", str(tmp_path / "images"), "--model", "digits", "--notify", receiver.url
        )
        running_cluster.outcome(job)
        wait_until(lambda: len(receiver.got) >= 2, what="the job's end is sent again")
        wait_until(lambda: JobFolder.open(running_cluster.settings, job).receipt() is not None, what="that is recorded")
        status = running_cluster.run_ok("status", job)

    assert said(receiver, running_cluster.settings)[1]["data"]["job"] == job
    assert f"notify     {receiver.url.partition('/hook')[0]} was told" in status
    folder = JobFolder.open(running_cluster.settings, job).path
    secret = secret_file(running_cluster.settings).read_text().strip()
    assert not [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert secret not in running_cluster.logs()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.1:9/x?token=s3cret", "127.0.0.1 is not a public address"),
        ("http://user:s3cret@example.com/", "holds no user and password"),
        ("gopher://example.com/", "begins with https://"),
    ],
)
def test_a_url_that_cannot_be_used_is_told_before_anything_is_submitted(tmp_path, monkeypatch, url, error):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    data = make_class_folders(tmp_path / "data", 3)

    flag = invoke("train", data, "--name", "x", "--notify", url)
    monkeypatch.setenv("PIGEONHOLE_NOTIFY", url)
    setting = invoke("train", data, "--name", "x")

    for refused in (flag, setting):
        assert (refused.exit_code, error in refused.output) == (2, True), refused.output
        assert "s3cret" not in refused.output
    assert not (tmp_path / "home" / "jobs").exists()
