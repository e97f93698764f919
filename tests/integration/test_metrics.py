"""One scrape of any gateway shows the whole fleet, whatever stands on the server."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from orchestrator.contract.ledger.counts import ERROR_CODES, shard_counts
from orchestrator.contract.ledger.ledger import Claim
from orchestrator.contract.ledger.live_workers import VITALS
from orchestrator.contract.lines.registry import LINES_KEY
from orchestrator.contract.lines.requests import Push
from orchestrator.contract.lines.stats import WorkerCounts
from orchestrator.gateway.guard.connection import ConnectionLimits
from orchestrator.gateway.metrics import routes
from orchestrator.gateway.metrics.jobs import UNKNOWN_IMAGE_S, UNKNOWN_JOB_S
from orchestrator.gateway.metrics.workers import MOST_PLACES
from tests.support.gateway import InProcessGateway, bearer, make_context, served, write_tokens
from tests.support.line_worker import enter_line, line_worker, make_line, report_for_a_minute
from tests.support.published_models import make_pngs
from tests.support.scrapes import scrape
from tests.support.server import wait_until
from tests.support.workers import Cluster

pytestmark = pytest.mark.integration
MONITORING = Path(__file__).parents[2] / "monitoring"
JOB, OTHER = "c261129-051201-7f3a2b", "t261129-051201-7f3a2c"
LABELS = {
    "outcome", "code", "stage", "kind", "state", "queue", "host", "device", "doing", "line", "reason", "cause", "le",
    "route", "method", "status", "version",
}  # fmt: skip


@pytest.fixture
def gateway(tmp_path, server, monkeypatch):
    monkeypatch.setattr(routes, "SHARED_S", 0.0)
    return InProcessGateway(make_context(tmp_path / "home", server_url=server.url))


def create(ledger, job=JOB, kind="classify", num_shards=2, num_images=20):
    fields = {"kind": kind, "listed": 1, "num_shards": num_shards, "num_images": num_images}
    ledger.create(job, fields)


def commit(ledger, **counts):
    claim = ledger.claim(JOB, "w", 60)
    assert isinstance(claim, Claim)
    seconds = {"read": 1.0, "decode": 3.0, "wait": 1.0, "predict": 2.0, "write": 0.5}
    facts = {"num_rows": 10, "errors": {"truncated": 2}, "decisions": {"accept": 5, "review": 3, "reject": 2}} | counts
    ledger.commit(claim, num_rows=10, num_failed=2, seconds=seconds, counts=shard_counts(**facts, seconds=seconds))
    return claim


def test_what_a_shard_had_is_counted_once_by_outcome_error_and_stage(ledger, gateway):
    create(ledger)
    claim = commit(ledger)

    again = ledger.commit(claim, num_rows=10, num_failed=2, counts={"images:accept": 5})
    found = scrape(gateway)

    assert again[0] == "already"
    assert [
        found.value("pigeonhole_images_total", outcome=each) for each in ("accept", "review", "reject", "failed")
    ] == [5, 3, 0, 2]
    assert found.value("pigeonhole_image_errors_total", code="truncated") == 2
    assert found.value("pigeonhole_stage_seconds_total", stage="decode") == 3.0
    assert found.value("pigeonhole_job_images", state="waiting") == 10
    assert found.value("pigeonhole_jobs", kind="classify", state="running") == 1


def test_outstanding_work_is_told_in_seconds_of_one_worker(ledger, gateway):
    create(ledger)
    create(ledger, OTHER, "train", 1, 0)
    before = scrape(gateway)
    commit(ledger)
    after = scrape(gateway)

    assert before.value("pigeonhole_queue_outstanding_seconds", queue="classify") == 20 * UNKNOWN_IMAGE_S
    assert before.value("pigeonhole_queue_outstanding_seconds", queue="train") == UNKNOWN_JOB_S
    assert (
        after.value("pigeonhole_queue_outstanding_seconds", queue="classify") == 10 * 0.4
    )  # 4 s of reading, 10 images
    assert before.value("pigeonhole_queue_oldest_seconds", queue="classify") >= 0


def test_jobs_that_end_are_counted_once_by_kind_and_state(ledger, gateway):
    create(ledger)
    ledger.claim(JOB, "w", 60)

    for _ in range(2):
        ledger.finish(JOB, "failed", error="x")
    found = scrape(gateway)

    assert found.value("pigeonhole_jobs_ended_total", kind="classify", state="failed") == 1
    assert found.value("pigeonhole_job_seconds_total", kind="classify") < 60
    assert found.value("pigeonhole_jobs_active") == 0


def test_workers_are_told_by_host_and_device_and_never_by_name(ledger, gateway):
    facts = {"host": "h1", "device": "cuda:0", "queues": "classify,finalize", "gpu_milli": 640, "rss_bytes": 1000}
    for number in range(2):
        ledger.live_workers.heartbeat(f"h1-cuda0-{number}-abcdef", facts | {"gpu_total_bytes": 8, "cpu_milli": 1500})
    ledger.live_workers.report_activity("h1-cuda0-1-abcdef", f"classify {JOB}")
    ledger.client.zadd("{pigeonhole}:workers", {"h1-cuda0-0-abcdef": time.time() - 600})

    found = scrape(gateway)

    place = {"host": "h1", "device": "cuda:0"}
    assert found.value("pigeonhole_workers", doing="classify", **place) == 1
    assert found.value("pigeonhole_workers_lost", **place) == 1
    assert found.value("pigeonhole_worker_seen_seconds", **place) < 60
    assert found.value("pigeonhole_worker_memory_bytes", **place) == 1000
    assert found.value("pigeonhole_worker_cpu_cores", **place) == 1.5
    assert found.value("pigeonhole_gpu_use_ratio", **place) == 0.64
    assert found.value("pigeonhole_gpu_memory_bytes", **place) == 8
    assert found.value("pigeonhole_queue_workers", queue="classify") == 1
    ledger.live_workers.heartbeat("h1-cuda0-1-abcdef", facts | {"draining": 1})
    assert scrape(gateway).value("pigeonhole_queue_workers", queue="classify") == 0


def test_more_places_than_there_may_be_count_together(ledger, gateway):
    for number in range(MOST_PLACES + 30):
        ledger.live_workers.heartbeat(f"w{number}", {"host": f"h{number}", "device": "cpu", "queues": "classify"})

    found = scrape(gateway)

    assert len(found.samples["pigeonhole_workers_lost"]) == MOST_PLACES + 1
    assert found.value("pigeonhole_workers", host="other", doing="starting") == 30


def pushed(store, name, num=3):
    pushes = [Push(f"item-{number}/1", f"{number:064x}", 60_000, 3, "image", b"abc") for number in range(num)]
    with line_worker(f"unix://{store.client.connection_pool.connection_kwargs['path']}", name):
        store.admit(pushes, "client")
        wait_until(lambda: store.counts().get("answers") == num, what="all are answered")


def test_a_line_is_told_with_its_latency_waits_batches_and_outcomes(server, gateway):
    store = enter_line(server.url, make_line("post"))
    enter_line(server.url, make_line("quiet", deadline_ms=5000))
    pushed(store, "post")
    counts = WorkerCounts()
    for size in (1, 1, 3):
        counts.batch(size)
    counts.wait("device", 12.5)
    store.count(counts.take())
    store.count({"refused:busy": 4, "cause:device": 1, "recovered": 2})

    found = scrape(gateway)

    assert found.value("pigeonhole_line_answers_total", line="post", reason="accept") == 3
    assert found.value("pigeonhole_line_latency_seconds_count", line="post") == 3
    assert found.value("pigeonhole_line_latency_seconds_bucket", line="post", le="+Inf") == 3
    assert 0 <= found.value("pigeonhole_line_latency_seconds_sum", line="post") < 60
    assert found.value("pigeonhole_line_batch_images_bucket", line="post", le="2.0") == 2
    assert found.value("pigeonhole_line_batch_images_sum", line="post") == 5
    assert found.value("pigeonhole_line_wait_seconds_sum", line="post", stage="device") == 0.0125
    assert found.value("pigeonhole_line_refused_total", line="post", reason="busy") == 4
    assert found.value("pigeonhole_line_misses_total", line="post", cause="device") == 1
    assert found.value("pigeonhole_line_recovered_total", line="post") == 2
    assert found.value("pigeonhole_line_answers_total", line="quiet", reason="late") == 0


def test_what_waits_on_a_line_is_told_as_work(server, gateway):
    store = enter_line(server.url, make_line("post"))
    report_for_a_minute(store, "w", "20.0 5.0 0 0", state="open", utilisation=0.25, bound_ms=40)
    store.admit([Push(f"i{number}/1", f"{number:064x}", 60_000, 3, "image", b"abc") for number in range(5)], "client")

    found = scrape(gateway)

    assert found.value("pigeonhole_line_waiting_requests", line="post") == 5
    assert found.value("pigeonhole_line_waiting_bytes", line="post") == 15
    assert found.value("pigeonhole_line_outstanding_seconds", line="post") == 0.1
    assert found.value("pigeonhole_line_workers", line="post") == 1
    assert found.value("pigeonhole_line_utilisation_ratio", line="post") == 0.25
    assert found.value("pigeonhole_line_bound_seconds", line="post") == 0.04
    assert 0 <= found.value("pigeonhole_line_oldest_seconds", line="post") < 60


def test_counters_never_fall_but_to_zero_when_the_server_is_emptied(server, ledger, gateway):
    create(ledger)
    store = enter_line(server.url, make_line("post"))
    pushed(store, "post")
    commit(ledger)
    first = dict(scrape(gateway).counters())
    commit(ledger)
    ledger.live_workers.heartbeat("w", {"host": "h", "device": "cpu", "queues": ""})
    ledger.live_workers.remove("w")
    second = dict(scrape(gateway).counters())
    server.empty()
    third = dict(scrape(gateway).counters())

    assert [name for name in first if second[name] < first[name] and "process_" not in name[0]] == []
    assert third["pigeonhole_images_total", "('outcome', 'accept')"] == 0
    assert not any("line_" in name[0] for name in third)


def test_rubbish_of_one_hides_nothing_of_the_others(server, ledger, gateway):
    create(ledger)
    client = ledger.client
    ledger.live_workers.heartbeat("good", {"host": "h", "device": "cpu", "queues": "classify"})
    for name, facts in {
        "bad1": {"num_images": "many"}, "bad2": {"rss_bytes": "-1", "gpu_milli": "1e9", "host": "h\"\n{}", "doing": ""},
    }.items():  # fmt: skip
        ledger.live_workers.heartbeat(name, {"device": "cpu", "queues": ""} | facts)
    client.zadd("{pigeonhole}:workers", {"bad3": time.time()})
    client.set("{pigeonhole}:worker:bad3", "a string")
    client.sadd("{pigeonhole}:active", OTHER, "../../x", "c261129-051201-7f3a2d")
    client.set(f"{{pigeonhole}}:job:{OTHER}", "a string")
    client.hset("{pigeonhole}:job:c261129-051201-7f3a2d", mapping={"kind": "classify", "num_images": "x"})
    client.hset("{pigeonhole}:counts", mapping={"images:accept": "7", "images:ok": "x", "images:hacked": "1", "": "2"})
    client.set("classify", "a string, no queue")
    enter_line(server.url, make_line("post"))
    enter_line(server.url, make_line("broken")).client.set("{pigeonhole}:line:broken:deadlines", "a string")
    client.hset(LINES_KEY, "rubbish", "{")
    client.hset("{pigeonhole}:line:post:capacity", "w", "rubbish")

    found = scrape(gateway)

    assert found.value("pigeonhole_server_up") == 1
    assert found.value("pigeonhole_unreadable_records") == 4
    assert found.value("pigeonhole_images_total", outcome="accept") == 7
    assert found.value("pigeonhole_workers", host="h", device="cpu", doing="starting") == 1
    assert (found.value("pigeonhole_line_up", line="post"), found.value("pigeonhole_line_up", line="broken")) == (1, 0)
    assert found.value("pigeonhole_jobs", kind="classify", state="queued") == 1


@pytest.mark.parametrize("key", ["counts", "active", "workers", "webhooks", "lines"])
def test_a_key_of_another_type_hides_nothing_else(ledger, gateway, key):
    ledger.client.set(f"{{pigeonhole}}:{key}", "a string")

    found = scrape(gateway)

    assert (found.value("pigeonhole_server_up"), found.value("pigeonhole_unreadable_records")) == (1, 1)


def test_without_the_server_a_gateway_tells_that_and_its_own_figures(own_server, tmp_path, monkeypatch):
    monkeypatch.setattr(routes, "SHARED_S", 0.0)
    gateway = InProcessGateway(make_context(tmp_path / "home", server_url=own_server.url))
    assert scrape(gateway).value("pigeonhole_server_up") == 1
    own_server.kill()

    found = scrape(gateway)

    assert found.value("pigeonhole_server_up") == 0
    assert found.value("pigeonhole_gateway_requests_total", route="/metrics", status="200") == 1
    assert "pigeonhole_workers" not in found.samples


def test_a_lines_own_server_that_is_away_hides_no_other_line(server, own_server, gateway):
    enter_line(server.url, make_line("post"))
    enter_line(server.url, make_line("away", server=own_server.url))
    own_server.kill()

    found = scrape(gateway)

    assert (found.value("pigeonhole_line_up", line="post"), found.value("pigeonhole_line_up", line="away")) == (1, 0)


def test_labels_are_a_fixed_set_and_hold_no_ids_paths_or_items(server, ledger, gateway):
    create(ledger)
    commit(ledger)
    ledger.live_workers.heartbeat("h-cpu-1-abcdef", {"host": "h", "device": "cpu", "queues": "", "pid": 7})
    store = enter_line(server.url, make_line("post"))
    pushed(store, "post")
    gateway.get(f"/v1/jobs/{JOB}")
    gateway.get("/made/up/path?x=1")

    found = scrape(gateway)

    labels = [given for samples in found.samples.values() for given, _ in samples]
    assert {name for given in labels for name in given} <= LABELS
    values = {value for given in labels for value in given.values()}
    assert not [value for value in values if JOB in value or "item-" in value or "abcdef" in value or "made" in value]


def test_scrapes_of_one_second_share_one_look_at_the_server(tmp_path, server, ledger, monkeypatch):
    gateway = InProcessGateway(make_context(tmp_path / "home", server_url=server.url))
    monkeypatch.setattr(routes, "SHARED_S", 60.0)

    first = scrape(gateway)
    create(ledger)

    assert scrape(gateway).value("pigeonhole_jobs_active") == first.value("pigeonhole_jobs_active") == 0


def everything(server, ledger, gateway):
    """A scrape of a fleet in which there is some of everything."""
    create(ledger)
    commit(ledger)
    facts = {"host": "h1", "device": "cuda:0", "queues": "classify", **dict.fromkeys(VITALS, 5)}
    ledger.live_workers.heartbeat("w", facts)
    pushed(enter_line(server.url, make_line("post")), "post")
    gateway.get("/v1/jobs")
    return scrape(gateway)


def named(expression):
    """The metrics of an expression with the labels and values that it asks for, and the labels that it groups by."""
    metrics = [
        (name, dict(re.findall(r'(\w+)="([^"]*)"', inside)), set(re.findall(r"(\w+)(?:=~|!=|!~|=)", inside)))
        for name, inside in re.findall(r"(pigeonhole_\w+)(?:\{([^}]*)\})?", expression)
    ]
    return metrics, set(re.findall(r"\w+", " ".join(re.findall(r"(?:by|without|on|ignoring) \(([^)]*)\)", expression))))


def test_rules_and_dashboard_name_nothing_that_a_scrape_lacks(server, ledger, gateway):
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    dashboard = json.loads((MONITORING / "grafana" / "dashboard.json").read_text())
    expressions = [rule["expr"] for rule in rules]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions += [each["definition"] for each in dashboard["templating"]["list"] if "definition" in each]
    found = everything(server, ledger, gateway)

    missing = []
    for expression in expressions:
        metrics, groups = named(expression)
        assert metrics or "up{" in expression, expression
        known = {"instance"}
        for name, wanted, labels in metrics:
            samples = [given for given, _ in found.samples.get(name, [])]
            known |= {label for given in samples for label in given}
            if not any(wanted.items() <= given.items() and labels <= set(given) for given in samples):
                missing.append(f"{name} {wanted or labels} of {expression}")
        missing += [f"{label} of {expression}" for label in groups - known]

    assert len(expressions) > 50
    assert missing == []


def test_every_metric_is_on_the_page(server, ledger, gateway):
    page = (MONITORING.parent / "docs" / "monitoring.md").read_text()
    found = everything(server, ledger, gateway)

    names = {name + "_total" * (kind == "counter") for name, kind in found.kinds.items() if "process_" not in name}
    assert sorted(name for name in names if f"`{name}`" not in page) == []
    documented = set(re.findall(r"^\| `(pigeonhole_\w+)`", page, re.MULTILINE))
    assert sorted(documented - names) == []


def test_a_line_a_place_and_a_route_have_as_many_series_as_the_page_says(server, ledger, gateway):
    page = " ".join((MONITORING.parent / "docs" / "monitoring.md").read_text().split())
    found = everything(server, ledger, gateway)

    labels = [given for samples in found.samples.values() for given, _ in samples]
    per_line = sum(given.get("line") == "post" for given in labels)
    per_place = sum(given.get("host") == "h1" for given in labels)
    per_route = sum(given.get("route") == "/v1/jobs" for given in labels)
    others = sum(not {"line", "host", "route"} & set(given) for given in labels)
    assert (
        f"About {round(others, -1)} series for the fleet, {per_place} for each host and device (200 of them; the "
        f"others count together as `other`), {per_line} for each line (the first 100 by name; "
        f"`pigeonhole_lines_left_out` counts the others), and {per_route - 1} for each route"
    ) in page


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_no_fault_with_a_scrape(server, ledger, gateway):
    everything(server, ledger, gateway)

    done = subprocess.run(
        ["promtool", "check", "metrics"], input=gateway.get("/metrics").text, capture_output=True, text=True
    )

    assert done.stdout + done.stderr == ""


def test_metrics_need_the_role_view(tmp_path, server):
    gateway = InProcessGateway(
        make_context(tmp_path / "home", server_url=server.url, token_file=write_tokens(tmp_path))
    )

    assert gateway.get("/metrics").status_code == 401
    assert gateway.get("/metrics", headers=bearer("view")).status_code == 200


def test_open_metrics_are_given_to_those_who_ask_for_them(gateway):
    answer = gateway.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


def test_slow_clients_that_are_cut_off_are_counted(tmp_path, server):
    limits = ConnectionLimits(header_s=0.2, check_s=0.05)
    with served(make_context(tmp_path / "home", server_url=server.url, port=0), limits) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as slow:
            slow.sendall(b"GET / HT")
            assert b" 408 " in slow.recv(1000)
        figures = gateway.context.figures.registry
        wait_until(lambda: figures.get_sample_value("pigeonhole_gateway_connections") == 0, what="it is closed")

    assert figures.get_sample_value("pigeonhole_gateway_cut_off_total", {"reason": "headers"}) == 1


def test_every_error_code_of_the_manifest_has_a_series():
    page = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text()
    table = page.partition("| `error_code` | meaning |")[2].partition("\n\n")[0]
    documented = {row.split("`")[1] for row in table.splitlines() if row.startswith("| `")}

    assert documented | {"other"} == set(ERROR_CODES)


def test_what_real_workers_do_and_use_is_in_the_ledger_for_metrics(running_cluster: Cluster, tmp_path):
    make_pngs(tmp_path / "images", 5)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    ledger = running_cluster.ledger
    before = Counter(ledger.counts.read())

    running_cluster.outcome(running_cluster.submit("classify", str(tmp_path / "images"), "--model", "digits"))
    wait_until(lambda: not ledger.active(), what="the ledger has its end")

    added = Counter(ledger.counts.read()) - before
    assert {name: added[name] for name in ("images:ok", "images:failed", "jobs:classify:partial")} == {
        "images:ok": 5, "images:failed": 1, "jobs:classify:partial": 1,
    }  # fmt: skip
    assert sum(num for name, num in added.items() if name.startswith("errors:")) == 1
    assert added["stage_us:predict"] > 0
    [worker] = [each for each in ledger.live_workers.workers() if each.alive]
    assert worker.vitals["rss_bytes"] > 1_000_000
