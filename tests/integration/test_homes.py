"""One home a server: who is let in, by the id in the home, and what a server without its data leads to."""

import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.contract.home import OtherHomeError, check_server, join_server, make_home_id, read_home_id
from orchestrator.contract.settings import Settings
from orchestrator.jobs.submit import JobClient
from tests.support.server import Server
from tests.support.workers import COMMAND, Cluster, wait_until, without_waiting

pytestmark = pytest.mark.integration


def settings_of(home: Path, server: Server) -> Settings:
    return Settings(home=home, server_url=server.url)  # type: ignore[arg-type]  # parsed by pydantic


def test_a_server_works_for_the_home_that_used_it_first(tmp_path: Path, server: Server):
    first, second = settings_of(tmp_path / "first", server), settings_of(tmp_path / "second", server)
    client = JobClient(first).ledger.client
    check_server(second, client)
    assert not (tmp_path / "first").exists()  # who only asks changes nothing

    own = join_server(first, client)

    assert (own, join_server(first, client)) == (read_home_id(first), own)
    make_home_id(second)
    for refused in (lambda: JobClient(second), lambda: join_server(second, client)):
        with pytest.raises(OtherHomeError) as caught:
            refused()
        for named in (own, str(first.home), str(read_home_id(second)), str(second.home)):
            assert named in str(caught.value)


def test_a_home_is_known_by_its_id_wherever_it_is_mounted(tmp_path: Path, server: Server):
    here, there = settings_of(tmp_path / "here", server), settings_of(tmp_path / "there", server)
    own = join_server(here, JobClient(here).ledger.client)

    here.home.rename(there.home)

    assert join_server(there, JobClient(there).ledger.client) == own
    with pytest.raises(OtherHomeError, match="not to a new one"):
        JobClient(here)
    assert not here.home.exists()  # an empty place where the home is not mounted gets no id


def test_a_worker_of_another_home_ends_with_one_line_that_names_both(cluster: Cluster, tmp_path: Path):
    own = join_server(cluster.settings, cluster.ledger.client)
    other = settings_of(tmp_path / "other", cluster.server)
    environment = os.environ | {"PIGEONHOLE_HOME": str(other.home), "PIGEONHOLE_SERVER_URL": cluster.server.url}

    done = subprocess.run(
        [*COMMAND, "worker", "--device", "cpu"], env=environment, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 2
    [line] = without_waiting(done.stderr).splitlines()
    assert line.startswith(f"error: the server belongs to another home, {own} ({cluster.home} on ")
    assert f"not to a new one ({other.home} here)" in line
    assert cluster.ledger.live_workers.workers() == []


@pytest.mark.timeout(600)
def test_a_running_worker_enters_its_home_again_or_ends_where_another_was_faster(cluster: Cluster, tmp_path: Path):
    worker = cluster.start_worker()
    wait_until(cluster.ledger.live_workers.workers, what="it is known")
    [record] = cluster.ledger.live_workers.workers()
    assert (record.worker, record.pid) == (worker.name, worker.process.pid)
    own = read_home_id(cluster.settings)
    client = cluster.ledger.client

    cluster.server.empty()
    wait_until(lambda: client.hlen("{pigeonhole}:home") == 3, what="the worker enters its home again")
    assert client.hget("{pigeonhole}:home", "id") == own

    client.hset("{pigeonhole}:home", mapping={"id": "0" * 16, "path": "/elsewhere", "host": "far"})
    wait_until(lambda: not worker.alive, what="the worker ends")

    assert worker.process.returncode == 2
    last = worker.log.read_text().splitlines()[-1]
    assert last.startswith("error: the server belongs to another home, 0000000000000000 (/elsewhere on far)")
