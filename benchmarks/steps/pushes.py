"""Images are pushed to a line: by a hot folder, and by a client."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.steps.chore import Chore
from benchmarks.steps.scenario import PATIENCE_S
from orchestrator.contract.lines.answers import decode_record
from orchestrator.contract.lines.registry import images_folder
from tests.support.hot_folders import Scans
from tests.support.published_models import publish_model
from tests.support.pushes import digit_png, make_line, registry_of, workers_of
from tests.support.server import running_server, wait_until
from tests.support.steps.compare import differences
from tests.support.steps.faults import Faults
from tests.support.steps.step import Step
from tests.support.steps.table import steps_of
from tests.support.workers import WORKER_PATIENCE_S, Cluster, open_cluster
from workers.lines.kept_images import KeptImage

NUM_FILES = 12
NUM_WORKERS = 2
_KEPT_S = 30.0
_ALONE = (b"late", b"no_server")  # reasons of clients
_ALL_STEPS = frozenset(step.name for step in steps_of("line"))
_SWEEP_STEPS = frozenset({"line.sweep", "line.store"})


class HotFolder(Chore):
    """Files of a hot folder are pushed to a line, whose worker has no model."""

    lease_s = 1.5  # of owners: `CONSTANTS`

    def __init__(self, folder: Path, faults: Faults, url: str) -> None:
        super().__init__(folder, faults)
        self.environment["PIGEONHOLE_SERVER_URL"] = url
        self.url = url
        self.scans = Scans(folder / "scans")

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("hotfolder", str(self.scans.path), "--line", "post", "--once", "--poll", "20ms")

    def begin(self) -> None:
        shutil.rmtree(self.scans.path, ignore_errors=True)
        (self.scans.path / "in").mkdir(parents=True)
        for number in range(NUM_FILES):
            self.scans.drop(f"{number:03}.jpg", b"bad" if number % 5 == 4 else b"image %d" % number)

    def found(self) -> dict[str, bytes]:
        found = {}
        for part in ("in", "working", "done", "error"):
            for name in self.scans.names(part):
                data = (
                    (self.scans.path / part / name).read_bytes() if (self.scans.path / part / name).is_file() else b""
                )
                found[f"{part}/{name}"] = self._without_names(data) if name.endswith(".json") else data
        return found

    @staticmethod
    def _without_names(sidecar: bytes) -> bytes:
        facts = json.loads(sidecar)
        return json.dumps({key: facts.get(key) for key in ("file", "bin", "reason", "label", "error")}).encode()

    def problems(self) -> list[str]:
        return [f"working/{name} is left" for name in self.scans.hidden("working")]

    @contextlib.contextmanager
    def while_frozen(self) -> Iterator[None]:
        """Another process works on the folder, and takes over."""
        other = self.start(self.folder / "other.log")
        try:
            yield
        finally:
            other.send_signal(signal.SIGTERM)
            other.wait(PATIENCE_S)


class Push(Chore):
    """Images are pushed to a line that two workers serve; each run pushes new items.

    Workers take nothing before all images wait on the server: so a fault strikes where there is something to take.
    """

    lease_s = 2.0  # the longest that requests have
    line, deadline = "post", "10s"
    unreached = _SWEEP_STEPS | {"line.settle"}

    def __init__(self, folder: Path, faults: Faults, cluster: Cluster) -> None:
        super().__init__(folder, faults)
        self.environment |= {"PIGEONHOLE_HOME": str(cluster.home), "PIGEONHOLE_SERVER_URL": cluster.server.url}
        self.cluster = cluster
        self.store = registry_of(cluster).store(make_line(cluster, self.line, **self.settings()))
        self._images = folder / "images"
        self._runs = 0
        self._counts_before: dict[str, int] = {}
        self._begun_with: set[int] = set()

    def settings(self) -> dict[str, object]:
        """Of the line: every image is kept."""
        return {"keep_share": 1.0}

    @property
    def arguments(self) -> tuple[str, ...]:
        images = sorted(str(path) for path in self._images.iterdir())
        return ("push", *images, "--line", self.line, "--deadline", self.deadline, "--json")

    def begin(self) -> None:
        self._start_missing_workers()
        self._images = self.folder / f"images-{self._runs}"
        self._images.mkdir()
        self._runs += 1
        for number in range(NUM_FILES):
            image = b"bad" if number % 5 == 4 else digit_png(number)
            (self._images / f"{number:03}.png").write_bytes(image)
        (self.folder / "command.log").unlink(missing_ok=True)
        self._counts_before = self.store.counts()
        self._begun_with = set(self._children())

    def _start_missing_workers(self) -> None:
        """As many workers as before a fault, with the line open."""
        for worker in self.cluster.workers:
            if not worker.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.process.pid, signal.SIGKILL)  # its children
        self.cluster.workers = [worker for worker in self.cluster.workers if worker.alive]
        while len(self.cluster.workers) < NUM_WORKERS:
            self.cluster.start_worker(wait=False)
        self.wait_for_workers()

    def wait_for_workers(self) -> None:
        """The report of a child that was killed counts for a moment still; its name ends with its number."""
        wait_until(
            lambda: len(self._children().keys() & self._open_in()) == NUM_WORKERS,
            what="the workers serve the line",
            timeout_s=WORKER_PATIENCE_S,
        )

    def _open_in(self) -> set[int]:
        """The pool children that say so."""
        return {int(name.rpartition("-")[2]) for name, state in workers_of(self.store).items() if state == "open"}

    def _children(self) -> dict[int, psutil.Process]:
        """The pool children that live, one for each worker."""
        parents = (psutil.Process(worker.process.pid) for worker in self.cluster.workers)
        return {child.pid: child for parent in parents for child in parent.children() if _is_pool_child(child)}

    def start(self, log: Path) -> "subprocess.Popen[bytes]":
        with self.workers_wait():
            process = super().start(log)
            wait_until(
                lambda: self._num_waiting() == NUM_FILES or process.poll() is not None or _is_frozen(process.pid),
                what="all images wait on the server",
            )
        return process

    @contextlib.contextmanager
    def workers_wait(self) -> Iterator[None]:
        """The pool children take nothing in this block."""
        children = self._children().values()
        for child in children:
            child.suspend()
        try:
            yield
        finally:
            for child in children:
                child.resume()

    def _num_waiting(self) -> int:
        return int(self.store.client.zcard(self.store.key("deadlines")))

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Besides, what it says is added to what was said before: there may be two decisions of an item."""
        done = super().run(*arguments)
        with (self.folder / "command.log").open("a") as log:
            log.write(done.stdout)
        return done

    def found(self) -> dict[str, bytes]:
        """The record of each item."""
        records: dict[bytes, bytes] = self.store.client.hgetall(self.store.key("answers"))  # type: ignore[assignment]
        answers = [decode_record(record) for record in records.values()]
        own = (each for each in answers if each.item.startswith(f"{self._images}/"))
        return {Path(each.item).name: _said(each.bin, each.reason, each.label) for each in own}

    def differences(self, step: Step) -> list[str]:
        """One item may have the answer that the step states."""
        found = self.found()
        stated = [name for name, said in found.items() if said != self.expected.get(name) and _is_stated(step, said)]
        allowed = {name: found[name] for name in stated[:1]}
        return differences(self.expected | allowed, found)

    def problems(self) -> list[str]:
        return [*self._other_decisions(), *self._counted(), *self._not_kept()]

    def _other_decisions(self) -> list[str]:
        """Decisions that are not as recorded, and items that no client has decided."""
        records, decided = self.found(), set()
        problems = []
        for line in (self.folder / "command.log").read_text().splitlines():
            if not line.startswith("{"):
                continue
            facts = json.loads(line)
            name, said = Path(facts["item"]).name, _said(facts["bin"], facts["reason"], facts["label"])
            decided.add(name)
            if not _agree(said, records.get(name, b"")):
                problems.append(f"{name}: decided {said!r}, recorded {records.get(name)!r}")
        return problems + [f"{name}: no decision" for name in records.keys() - decided]

    def _counted(self) -> list[str]:
        num = self._since("answers")
        return [f"{num} answers counted of {NUM_FILES} items"] if num != NUM_FILES else []

    def _since(self, name: str) -> int:
        return self.store.counts().get(name, 0) - self._counts_before.get(name, 0)

    def _not_kept(self) -> list[str]:
        """Every image is kept, or counted as not kept; a child that was killed takes with it what it had to write."""
        kept = self._kept()
        if self._begun_with <= self._children().keys():
            with contextlib.suppress(TimeoutError):
                wait_until(self._all_kept, what="all images are kept or counted", timeout_s=_KEPT_S)
            kept, num = self._kept(), self._since("images_not_kept")
            if len(kept) + num < NUM_FILES:
                return [f"{len(kept)} of {NUM_FILES} images are kept, {num} are counted as not kept"]
        records = self.found()
        return [f"{name} is kept as {said!r}" for name, said in kept.items() if said != records[name]]

    def _all_kept(self) -> bool:
        return len(self._kept()) + self._since("images_not_kept") >= NUM_FILES

    def _kept(self) -> dict[str, bytes]:
        """What the indexes say of the kept images of this run."""
        folder = images_folder(registry_of(self.cluster).folder(self.line))
        lines = [line for index in folder.glob("*/index-*.jsonl") for line in index.read_bytes().splitlines()]
        kept = [KeptImage.decode(line) for line in lines]
        own = (each for each in kept if each.item.startswith(f"{self._images}/"))
        return {Path(each.item).name: _said(each.bin, each.reason, each.label) for each in own}


class PushLate(Push):
    """Images are pushed to a line that no worker can serve: they are answered when their time is over."""

    line, deadline = "nobody", "1s"
    unreached = _ALL_STEPS - _SWEEP_STEPS

    def settings(self) -> dict[str, object]:
        return {"model": "absent"}

    def start(self, log: Path) -> "subprocess.Popen[bytes]":
        return Chore.start(self, log)  # nobody takes anything

    def wait_for_workers(self) -> None:
        for worker in self.cluster.workers:
            wait_until(worker.ready, what="the worker is ready", timeout_s=WORKER_PATIENCE_S)


class PushAlone(PushLate):
    """Images are pushed while no worker lives: the client alone sees to their deadlines, and no image is kept."""

    line = "alone"
    unreached = _ALL_STEPS - {"line.settle"}

    def _start_missing_workers(self) -> None:
        pass

    def differences(self, step: Step) -> list[str]:
        """Reasons say what the client could learn: `no_worker`, `late` or `no_server`."""
        expected, found = ({name: said.split()[0] for name, said in each.items()}
                           for each in (self.expected, self.found()))  # fmt: skip
        return differences(expected, found)

    def _not_kept(self) -> list[str]:
        return []


def _said(bin_: str, reason: str | None, label: str | None) -> bytes:
    return f"{bin_} {reason} {label}".encode()


def _agree(decided: bytes, recorded: bytes) -> bool:
    """Whether a decision is the record, or, of a client that was frozen at the deadline, the same bin."""
    (bin_, reason, _), its_bin = decided.split(), recorded.partition(b" ")[0]
    return decided == recorded or (bin_ == its_bin and reason in _ALONE)


def _is_stated(step: Step, said: bytes) -> bool:
    return step.stated is not None and re.search(step.stated, said.decode()) is not None


def _is_pool_child(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return False


def _is_frozen(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


@contextlib.contextmanager
def open_line_cluster(folder: Path, faults: Faults) -> Iterator[Cluster]:
    """A home with a model, and a server; faults strike its workers."""
    home = folder / "home"
    publish_model(home / "models", "digits")
    (folder / "engines").mkdir()
    with running_server() as server:
        yield from open_cluster(home, server, folder / "engines", **faults.environment())
