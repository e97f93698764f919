"""Is anything lost, and does any process grow, in an hour of work with faults?

    python -m benchmarks.soak --minutes 60 [--seed 0] [--samples FILE] [-o FILE]

Two workers do jobs one after another, with a small training now and then; a client pushes images to a line at a low
rate, and images are dropped into a hot folder. At seeded moments workers and hot folders are killed, frozen and
stopped, the server is killed, frozen and emptied, is at its memory limit or cannot write to its disk, the network is
cut, doorbells are lost and doubled, parts are damaged, and sources moved away. Clocks that are set, and full disks, are
in `benchmarks.surroundings`. In the second half of the hour nobody is killed or stopped any more, so that processes
live long enough to be seen growing, which is looked for in that half. At the end every manifest must have the bytes of
an undisturbed run, every push one decision, and every dropped file one result. Memory, descriptors, open files and
threads of all processes are sampled (`soak_growth.py`): none may grow by more than it is meant to hold. Faults go to
standard error; the last line is JSON. Exit code 1 if something was lost, or grows.
"""

import argparse
import math
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from redis import RedisError

from benchmarks import chaos_hot_folder, chaos_lines
from benchmarks.chaos import (
    NUM_WORKERS,
    Rhythm,
    Run,
    await_or_report,
    check_promises,
    inject_faults,
    open_run,
    show,
    start_clients,
    wait_for_end,
)
from benchmarks.chaos_faults import (
    Target,
    damage_part,
    double_bells,
    empty_server,
    freeze_server,
    freeze_worker,
    kill_both,
    kill_child,
    kill_parent,
    kill_server,
    lose_bells,
    lose_server,
    move_source,
    stop_worker,
)  # fmt: skip
from benchmarks.chaos_refusals import cut_network, refuse_for_disk, refuse_for_memory
from benchmarks.lines.ideal import poisson_arrivals_ms
from benchmarks.lines.load import Load
from benchmarks.lines.runs import Generator, Place
from benchmarks.machine import describe_run, keep
from benchmarks.soak_growth import Sampler, growing, growth, kind_of_child, read_samples
from orchestrator.contract.lines.archive import AnswerArchive
from orchestrator.contract.lines.store import LineStore
from orchestrator.hot_folder.folders import open_hot_folder
from orchestrator.jobs.prune import PruneOptions, prune
from tests.support.hot_folders import HotFolderProcesses, Scans
from tests.support.pushes import digit_png, make_line, registry_of, wait_until_open

LINE, FALLBACK = "gate", "F"
PUSHES_PER_S, DEADLINE_MS, NUM_IMAGES = 4.0, 2_000, 50
DROP_EVERY_S, AHEAD = 2.0, 500  # a hot folder that has so many files left gets no more
CALM_S = 900.0  # a training that was interrupted often may have just begun
JOB_PAUSE_S, TRAINING_PAUSE_S = 1.0, 180.0
MONITOR_TICK_S = 0.25
TAKEN_OVER_S = 60.0  # other benchmarks measure that; here it would be lost
PRUNE_EVERY_S, KEPT_S = 300.0, 120.0
WARM_UP_S = 600.0  # of a process: it has seen every kind of work, and used all its connections and threads, by then
FAULTS: dict[Callable[[Target], str | None], int] = {
    kill_parent: 1, kill_child: 2, kill_both: 2, freeze_worker: 4, stop_worker: 2, kill_server: 3, lose_server: 1,
    empty_server: 2, freeze_server: 3, lose_bells: 2, double_bells: 2, damage_part: 3, move_source: 2,
    refuse_for_memory: 2, refuse_for_disk: 2, cut_network: 2,
}  # fmt: skip
ENDING = (kill_parent, kill_child, kill_both, stop_worker, kill_server, lose_server)  # of the first half alone
# What processes are meant to hold more after an hour: the server the answers of that hour (`mover.py`), 0.7 kB each,
# the load generator its note of each push, 0.4 kB.
KEPT_MB = {"server": 0.7e-3 * PUSHES_PER_S * 3600, "push client": 0.4e-3 * PUSHES_PER_S * 3600}
RARE_S = 90.0  # every kind of fault is rare enough that processes live for minutes


@dataclass
class HotFolder:
    """A hot folder, the process that works on it, and a thread that drops images into it."""

    scans: Scans
    processes: HotFolderProcesses
    dropped: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    frozen: psutil.Process | None = None
    stopped: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self) -> None:
        self.processes.start()
        self._thread = threading.Thread(target=self._drop, name="dropper", daemon=True)
        self._thread.start()

    def stop_dropping(self) -> None:
        self.stopping.set()
        self._thread.join()

    def wanted(self) -> set[bytes]:
        """The contents of all files that were dropped."""
        return {digit_png(number) for number in range(self.dropped)}

    def stop(self) -> list[int]:
        """Stop the process; the exit codes of all that were stopped. One that had just started has no handler yet."""
        codes = [*self.processes.stop(), *(process.wait(60) for process in self.stopped)]
        return [code for code in codes if code not in (0, -signal.SIGTERM)]

    def is_done(self) -> bool:
        return not self.scans.names("in") and not self.scans.names("working")

    def kill_hot_folder(self, target: Target) -> str | None:
        """Kill the process, and start another."""
        if self.frozen is not None:
            return None
        self.processes.kill()
        self.processes.start()
        return "SIGKILL to the hot folder; another is started"

    def freeze_hot_folder(self, target: Target) -> str | None:
        """Freeze the process, maybe for so long that it would count as dead, were there another."""
        if self.frozen is not None:
            return None
        seconds = target.random.uniform(1, 20)
        self.frozen = psutil.Process(self.processes.running[0].pid)
        self.frozen.suspend()
        target.repairs.later(seconds, self._thaw)
        return f"SIGSTOP to the hot folder for {seconds:.1f} s"

    def stop_hot_folder(self, target: Target) -> str | None:
        """Stop the process, as an operator does, and start another."""
        if self.frozen is not None:
            return None
        [stopping] = self.processes.running
        stopping.send_signal(signal.SIGTERM)
        self.processes.start()
        self.processes.running.remove(stopping)
        self.stopped.append(stopping)
        return "SIGTERM to the hot folder; another is started"

    def faults(self) -> dict[Callable[[Target], str | None], int]:
        return {self.kill_hot_folder: 2, self.freeze_hot_folder: 1, self.stop_hot_folder: 1}

    def _thaw(self) -> None:
        if self.frozen is not None:
            self.frozen.resume()
        self.frozen = None

    def _drop(self) -> None:
        while not self.stopping.wait(DROP_EVERY_S):
            if len(self.scans.names("in")) < AHEAD:
                self.scans.drop(f"{self.dropped:06}.png", digit_png(self.dropped))
                self.dropped += 1


@dataclass
class Soak:
    """A chaos run with a line and a hot folder besides."""

    run: Run
    store: LineStore
    archive: AnswerArchive
    pushing: Generator
    hot_folder: HotFolder

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """All processes that live now, with their kinds."""
        with suppress(psutil.Error, AssertionError):  # a killed server has no process
            yield "server", psutil.Process(self.run.target.cluster.server.pid)
        for worker in [worker for worker in self.run.target.workers if worker.alive]:
            with suppress(psutil.Error):
                parent = psutil.Process(worker.process.pid)
                yield "worker parent", parent
                for child in parent.children(recursive=True):
                    if command := child.cmdline():  # one that has ended has none
                        yield kind_of_child(command), child
        for process in list(self.hot_folder.processes.running):
            with suppress(psutil.Error):
                yield "hot folder", psutil.Process(process.pid)
        with suppress(psutil.Error):
            yield "push client", psutil.Process(self.pushing.pid)
        yield "submitter", psutil.Process()

    def faults(self) -> dict[Callable[[Target], str | None], int]:
        return FAULTS | self.hot_folder.faults()

    def gentle_faults(self) -> dict[Callable[[Target], str | None], int]:
        """Those that end no process."""
        gentle = {fault: weight for fault, weight in FAULTS.items() if fault not in ENDING}
        return {**gentle, self.hot_folder.freeze_hot_folder: 1}

    def lost(self) -> tuple[list[str], dict[str, Any]]:
        """What was lost of jobs, pushes and dropped files, with the figures."""
        jobs = check_promises(self.run, TAKEN_OVER_S)
        outcome, name = self.pushing.outcome(), self.pushing.load.name
        records = chaos_lines.Records(self.store, self.archive, name)
        found = [records.of(number) for number in range(len(outcome.due))]
        counted = chaos_lines.counted_alone(self.store)
        all_the_time = [(-math.inf, math.inf)]  # the server is struck again and again
        conditions = chaos_lines.Conditions(counted["counted_disagreements"], server_lost=True, strikes=all_the_time)
        pushes = chaos_lines.judge(outcome, found, conditions) | counted
        codes = self.hot_folder.stop()
        files = chaos_hot_folder.judge(
            self.hot_folder.scans, self.hot_folder.wanted(), lambda facts: bool(facts["bin"])
        )
        files += [f"a hot folder ended with {code}" for code in codes]
        lost = [*self.run.broken, *pushes.pop("broken_promises"), *files]
        jobs.pop("broken_promises")
        return lost, {"jobs": jobs, "pushes": pushes, "files_dropped": self.hot_folder.dropped}


@contextmanager
def open_soak(seed: int, seconds: float, num_images: int) -> Iterator[Soak]:
    """Server, workers, line and hot folder, at work; all ended at the end."""
    with open_run(seed, 1, num_images, can_cut=True) as run, ExitStack() as stack:
        cluster, folder = run.target.cluster, run.folder
        line = make_line(cluster, LINE, fallback=FALLBACK)
        registry = registry_of(cluster)
        wait_until_open(registry.store(line), NUM_WORKERS)
        (folder / "pushed").mkdir()
        for number in range(NUM_IMAGES):
            (folder / "pushed" / f"{number}.png").write_bytes(digit_png(number))
        load = Load("line", cluster.server.url, str(folder / "pushed"), "", "push", line=LINE, fallback=FALLBACK)
        due_ms = poisson_arrivals_ms(PUSHES_PER_S, round(seconds * PUSHES_PER_S), seed)
        pushing = stack.enter_context(Place(load, folder).opening(due_ms, DEADLINE_MS))
        environment = {"PIGEONHOLE_HOME": str(cluster.home), "PIGEONHOLE_SERVER_URL": cluster.server.url}
        scans = Scans(open_hot_folder(folder / "scans").path)
        processes = HotFolderProcesses(scans.path, ["--line", LINE, "--poll", "200ms"], environment, log=folder / "log")
        stack.callback(processes.close)
        archive = AnswerArchive(registry.folder(LINE) / "answers")
        yield Soak(run, registry.store(line), archive, pushing, HotFolder(scans, processes))


def prune_now_and_then(run: Run, stopping: threading.Event) -> None:
    """Remove the folders of ended jobs, as an operator does: the disk does not fill."""
    settings = run.target.cluster.settings
    while not stopping.wait(PRUNE_EVERY_S):
        with suppress(RedisError):
            pruned = prune(settings, PruneOptions(KEPT_S), run.target.cluster.ledger.active())
            run.broken += [f"{job} could not be pruned: {why}" for job, why in pruned.failed.items()]


def soak(seed: int, seconds: float, num_images: int, samples: Path) -> dict[str, Any]:
    """The whole run: what was lost, and what grows."""
    with open_soak(seed, seconds, num_images) as running:
        run, hot_folder = running.run, running.hot_folder
        client, training = run.clients
        run.monitor.tick_s = MONITOR_TICK_S
        client.pause_s, training.pause_s = JOB_PAUSE_S, TRAINING_PAUSE_S
        sampler, stopping = Sampler(samples, running.processes), threading.Event()
        pruning = threading.Thread(target=prune_now_and_then, args=(run, stopping), daemon=True)
        running.pushing.start()
        hot_folder.start()
        sampler.start()
        pruning.start()
        pause_s = (0.2 * RARE_S / NUM_WORKERS, 0.8 * RARE_S / NUM_WORKERS)
        start_clients(run)
        for faults in (running.faults(), running.gentle_faults()):
            inject_faults(run, seconds / 2, Rhythm(faults, pause_s, pause_s))
        hot_folder.stop_dropping()
        stopping.set()
        wait_for_end(run, CALM_S)
        await_or_report(run, hot_folder.is_done, "the hot folder is done")
        await_or_report(run, lambda: not running.pushing.sending, "every push is decided")
        sampler.stopping.set()
        sampler.join()
        pruning.join()
        lost, figures = running.lost()
    processes = growth(read_samples(samples), min(WARM_UP_S, seconds / 4), calm_s=seconds / 2, kept_mb=KEPT_MB)
    return figures | {"processes": processes, "growing": growing(processes), "lost": lost}


def print_table(figures: dict[str, Any]) -> None:
    """Print jobs, pushes, files and processes."""
    show(figures["jobs"] | {"broken_promises": []})
    chaos_lines.show("pushes", figures["pushes"] | {"broken_promises": []})
    print(f"    {'files dropped':30}{figures['files_dropped']:>14,}")
    heads = "".join(f"{text:>18}" for text in ("an hour", "settled", "later ones"))
    print(f"{'processes':16}{'number':>8}{'figure':>14}{'median':>10}{'peak':>10}{heads}")
    for kind, facts in figures["processes"].items():
        for name in ("rss_mb", "descriptors", "files", "threads"):
            each = facts[name]
            shown = [f"{slope[0]:+.1f} +- {slope[1]:.1f}" if slope else "-" for slope in _slopes(each)]
            print(
                f"{kind:16}{facts['processes']:>8}{name:>14}{each['median']:>10}{each['peak']:>10}"
                f"{''.join(f'{text:>18}' for text in shown)}{'' if each['flat'] else '  GROWS'}"
            )
    print("\n".join(f"    LOST: {text}" for text in figures["lost"]) or "    nothing lost")


def _slopes(facts: dict[str, Any]) -> list[list[float] | None]:
    return [facts["slope_per_hour"], facts["settled_per_hour"], facts["later_per_hour"]]


def main() -> None:
    """Run, judge, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="minutes with faults")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the faults")
    parser.add_argument("--num-images", type=int, default=2000, help="28x28 PNGs in the largest job")
    parser.add_argument("--samples", type=Path, help="keep the samples of all processes in this file")
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it ends the processes that it started
    with tempfile.TemporaryDirectory(prefix="ph-soak-") as folder:
        figures = soak(
            options.seed, options.minutes * 60, options.num_images, options.samples or Path(folder) / "samples"
        )
    print_table(figures)
    asked = {"minutes": options.minutes, "seed": options.seed}
    keep(describe_run("soak") | asked | {"figures": figures}, "soak", options.output)
    sys.exit(bool(figures["lost"] or figures["growing"]))


if __name__ == "__main__":
    main()
