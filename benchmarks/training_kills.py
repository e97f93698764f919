"""Does a training that is killed time after time, on two workers, end with the same weights, bit for bit?

    python -m benchmarks.training_kills --kills 5 --freezes 1 --cuts 1 --trainings 3 --seed 7

Trains a network on a CPU undisturbed, then again with two workers while it kills, at seeded moments, the training
process, the worker that trains with all its processes, or freezes that worker, or cuts its network, until the other
worker has taken over; the process of a worker that is cut off computes meanwhile, and its work does not count. Some
kills come before the first checkpoint, some within an epoch. Prints a line for each kill, and for each training whether
its weights and its card are those of the undisturbed one; the last line is JSON and is kept in `benchmarks/results/`.
Exit code 1 if any differs. Takes a few minutes for each training of five kills, on 2 cores.
"""

import argparse
import hashlib
import itertools
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import describe_run, keep
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE
from modeling.registry.store import ModelStore
from modeling.training.attempt import checkpoints_in
from orchestrator.contract.jobs.attempts import read_attempts
from orchestrator.contract.jobs.job_folder import JobFolder
from tests.support.cut_proxy import DIRECTIONS, CutProxy
from tests.support.published_models import make_shapes
from tests.support.server import Server, wait_until
from tests.support.workers import JOB_PATIENCE_S, Cluster, Worker

KILLS = ("process", "worker")
OPTIONS = ("--arch", "mlp", "--epochs", "120")
MOST_EPOCHS = 8  # that a kill waits for
LEASE_S = 3.0


class Network:
    """The workers of a cluster, each with a way of its own to the server."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._proxies: dict[str, CutProxy] = {}

    def start_worker(self) -> None:
        folder = self.cluster.server.folder
        proxy = CutProxy(folder / f"p{len(self._proxies)}", f"{folder}/s.sock")
        self._proxies[proxy.url] = proxy
        self.cluster.start_worker(wait=False, PIGEONHOLE_SERVER_URL=proxy.url)

    def cut_off(self, worker: Worker) -> AbstractContextManager[None]:
        """Nothing passes between this worker and the server while the block runs."""
        return self._proxies[worker.environment["PIGEONHOLE_SERVER_URL"]].cut(*DIRECTIONS)


class Killer:
    """Disturbs one training of a cluster with two workers."""

    def __init__(self, network: Network, job: str, log: Callable[[str], None]) -> None:
        self._network, self._cluster, self._log = network, network.cluster, log
        self._folder = JobFolder.open(self._cluster.settings, job)

    def strike(self, kind: str, *, num_epochs: int) -> None:
        """Kill, freeze or cut off what trains, once that many epochs more are saved, and wait for the next attempt."""
        number, worker, process = self._training()
        started = self._num_saved()
        wait_until(
            lambda: self._num_saved() >= started + num_epochs or self._folder.outcome() is not None,
            what=f"{num_epochs} more epochs are saved",
            timeout_s=JOB_PATIENCE_S,
        )
        assert self._folder.outcome() is None, "the training ended before it was disturbed as often as it should be"
        self._log(f"attempt {number}: {kind} after {num_epochs} epochs more")
        if kind == "process":
            process.kill()
            self._wait_for_attempt(number + 1)
        elif kind == "worker":
            worker.kill_group()
            process.wait(JOB_PATIENCE_S)  # it notices that its worker is gone
            self._wait_for_attempt(number + 1)
            self._cluster.workers.remove(worker)
            self._network.start_worker()
        else:
            with worker.frozen() if kind == "freeze" else self._network.cut_off(worker):
                self._wait_for_attempt(number + 1)

    def _num_saved(self) -> int:
        """The epochs that were saved by any attempt."""
        history = self._folder.training / "history.csv"
        steps = [name.step for name in checkpoints_in(self._folder.training)]
        return len(history.read_text().splitlines()) - 1 if steps and history.exists() else 0

    def _training(self) -> tuple[int, Worker, psutil.Process]:
        """The number of the last attempt, the worker that makes it, and its training process, once there is one."""
        found: list[tuple[int, Worker, psutil.Process]] = []

        def look() -> bool:
            number = len(read_attempts(self._folder))
            last = str(self._folder.path / f"training_request.{number}.json")
            for worker in self._cluster.workers:
                for process in _processes_of(worker):
                    if last in _command_of(process):
                        found.append((number, worker, process))
            return bool(found) or self._folder.outcome() is not None

        wait_until(look, what="the training has a process", timeout_s=JOB_PATIENCE_S)
        assert found, f"the training ended: {self._folder.outcome()}"
        return found[0]

    def _wait_for_attempt(self, number: int) -> None:
        wait_until(
            lambda: len(read_attempts(self._folder)) >= number or self._folder.outcome() is not None,
            what=f"attempt {number} begins",
            timeout_s=JOB_PATIENCE_S,
        )
        assert len(read_attempts(self._folder)) >= number, "the training ended before it was disturbed"


def _processes_of(worker: Worker) -> list[psutil.Process]:
    try:
        return psutil.Process(worker.process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def train_with_kills(
    network: Network,
    data: Path,
    name: str,
    kills: Sequence[tuple[str, int]],
    log: Callable[[str], None],
    *,
    options: Sequence[str] = OPTIONS,
) -> str:
    """Train, and strike for each pair of a kind and a number of epochs to wait for; returns the job."""
    cluster = network.cluster
    job = cluster.submit("train", str(data), "--name", name, *options)
    killer = Killer(network, job, log)
    for kind, num_epochs in kills:
        killer.strike(kind, num_epochs=num_epochs)
    outcome = cluster.outcome(job)
    assert outcome.state == "succeeded", f"{outcome.error}\n{cluster.logs()}"
    return job


def digests(cluster: Cluster, name: str) -> dict[str, str]:
    """The sha256 of the weights and of the card of a model."""
    version = ModelStore(cluster.settings.models).resolve(name)
    return {file: hashlib.sha256((version.path / file).read_bytes()).hexdigest() for file in (WEIGHTS_FILE, CARD_FILE)}


def choose_kills(chance: random.Random, num_kills: int, num_freezes: int, num_cuts: int) -> list[tuple[str, int]]:
    """Kinds in a random order, those of kills about as often as each other, each with a number of epochs to wait for.

    Two in a row never come without a new checkpoint.
    """
    kinds = [*itertools.islice(itertools.cycle(KILLS), num_kills), *["freeze"] * num_freezes, *["cut"] * num_cuts]
    chance.shuffle(kinds)
    kills: list[tuple[str, int]] = []
    for kind in kinds:
        early = chance.random() < 0.3 and (not kills or kills[-1][1] > 0)
        kills.append((kind, 0 if early else chance.randint(1, MOST_EPOCHS)))
    return kills


@contextmanager
def open_cluster(folder: Path) -> Iterator[Network]:
    """A server and two workers of this run's own."""
    (folder / "home").mkdir()
    cluster = Cluster(folder / "home", Server(), {"PIGEONHOLE_LEASE_S": str(LEASE_S)})
    cluster.server.start()
    try:
        network = Network(cluster)
        for _ in range(2):
            network.start_worker()
        yield network
    finally:
        cluster.close()
        cluster.server.stop()


def run(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """All trainings; the figures."""
    chance, rows = random.Random(given.seed), []
    data = make_shapes(folder / "in")
    with open_cluster(folder) as network:
        cluster = network.cluster
        train_with_kills(network, data, "undisturbed", (), print)
        expected = digests(cluster, "undisturbed")
        for number in range(given.trainings):
            name = f"killed-{number}"
            kills = choose_kills(chance, given.kills, given.freezes, given.cuts)
            job = train_with_kills(network, data, name, kills, print)
            attempts = read_attempts(JobFolder.open(cluster.settings, job))
            found = digests(cluster, name)
            row = {
                "kills": [f"{kind} after {num_epochs} epochs" for kind, num_epochs in kills],
                "num_attempts": len(attempts),
                "num_workers": len({attempt.begin.worker for attempt in attempts}),
                "same_weights": found[WEIGHTS_FILE] == expected[WEIGHTS_FILE],
                "same_card": found[CARD_FILE] == expected[CARD_FILE],
            }
            print(f"training {number}: {row}")
            rows.append(row)
    return {
        "seed": given.seed,
        "options": " ".join(OPTIONS),
        "weights_sha256": expected[WEIGHTS_FILE],
        "trainings": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="of the training process, or of its worker with it")
    parser.add_argument("--freezes", type=int, default=1, help="of the worker, besides")
    parser.add_argument("--cuts", type=int, default=1, help="of the network of the worker, besides")
    parser.add_argument("--trainings", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ph-training-kills-") as folder:
        figures = run(Path(folder), given)
    keep(describe_run("training_kills") | figures, "training-kills", given.output)
    sys.exit(0 if all(row["same_weights"] and row["same_card"] for row in figures["trainings"]) else 1)


if __name__ == "__main__":
    main()
