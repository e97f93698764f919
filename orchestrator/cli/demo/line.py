"""The demo of a line: postcards pass a camera, a worker is killed, a model replaced, and every card accounted for."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redis

from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.cli.demo.own_stack import clear, own_settings, run_to_success
from orchestrator.cli.output import print_message, redraw_line
from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.lines.answers import Answer
from orchestrator.contract.lines.registry import LineRegistry
from orchestrator.contract.lines.settings import Line, LineSettings
from orchestrator.contract.lines.stats import read_stats
from orchestrator.contract.lines.status import read_status
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.contract.settings import Settings
from orchestrator.demo.accounts import Accounts, account
from orchestrator.demo.cards import CARDS_PER_DISTRICT, DISTRICTS, Card, belt_cards, write_training_cards
from orchestrator.jobs.prepare import prepare as prepare_job
from orchestrator.jobs.specs import TrainSpec
from orchestrator.jobs.submit import JobClient
from orchestrator.lines.client import LineClient
from orchestrator.lines.simulate.arrivals import Load
from orchestrator.lines.simulate.belt import Belt, BeltPlan, Sample
from orchestrator.lines.simulate.run import LAST_ANSWERS_S, LinePusher, plan_belt
from orchestrator.stack.process import Process
from orchestrator.stack.stack import SERVER, Stack

LINE, MODEL, ALIAS = "belt", "districts", "champion"
OPENING_S = 60.0
_WORKERS = ["cpu", "cpu"]
_TRAINING: dict[str, object] = {
    "architecture": "cnn", "image_size": 40, "batch_size": 32, "validation": 0.25, "max_error": 0.01,
}  # fmt: skip
_POLL_S = 0.1
_LOOK_S = 0.001
_WORST_MOMENT_S = 3.0  # longer is not waited for it


@dataclass(frozen=True, slots=True)
class Script:
    """What happens. per_district: cards to train on. epochs: of the two versions.

    replaced, killed: when, as shares of the belt's time.
    """

    load: Load = field(default_factory=lambda: Load(8, minutes=0.5, poisson=True))
    per_district: int = CARDS_PER_DISTRICT
    epochs: tuple[int, int] = (6, 10)
    replaced: float = 0.25
    killed: float = 0.6


@dataclass(frozen=True, slots=True)
class DemoRun:
    """What happened. killed: the worker's process. moved: what the alias stood for, before and after.

    recovered: cards of the killed worker that the other one answered. events: seconds from the belt's start, and what
    happened then.
    """

    cards: Sequence[Card]
    plan: BeltPlan
    samples: Sequence[Sample]
    elapsed_s: float
    cpu_s: float
    accounts: Accounts
    recovered: int
    killed: str
    moved: tuple[str, str]
    events: tuple[tuple[float, str], ...]


def tell_line_story(output: Path, seed: int, script: Script) -> DemoRun:
    """Train, open a line, run the belt, and account for every card; nothing runs afterwards."""
    clear(output)
    settings = own_settings(output)
    stack = Stack(settings)
    try:
        with ThreadPoolExecutor(1) as background:
            starting = background.submit(stack.up, _WORKERS)
            print_message("1/4  printing postcards; starting a server and two workers")
            num_cards = write_training_cards(output / "cards", seed, script.per_district)
            processes = starting.result()
        print_message(f"2/4  training a classifier of {len(DISTRICTS)} districts on {num_cards} cards, two versions")
        versions = _train(settings, output / "cards", seed, script.epochs)
        print_message("3/4  opening the line on both workers")
        store = ModelStore(settings.models)
        store.set_alias(versions[0], ALIAS)
        client = connect_raw(settings.require_server_url())
        line = LineRegistry(settings, client).create(line_settings())
        _wait_until_open(client, line)
        workers = [process for process in processes if process.name != SERVER]
        belt = _BeltRun(script, line, seed)
        return belt.run(settings, _Events(store, versions, LineStore(client, LINE), workers[-1]))
    finally:
        stack.down()


def line_settings() -> LineSettings:
    """A bin for each district; what a person should look at, and what was not decided in time, have their own."""
    bins: dict[str, tuple[str, ...]] = {
        district: (f"bin-{number}",) for number, district in enumerate(DISTRICTS, start=1)
    }
    return LineSettings(LINE, f"{MODEL}@{ALIAS}", "fallback", "review", deadline_ms=1000, bins=bins)


def _train(settings: Settings, cards: Path, seed: int, epochs: Sequence[int]) -> list[ModelVersion]:
    """Two versions, by number; each worker trains one."""
    client = JobClient(settings)
    options = [_TRAINING | {"epochs": num, "seed": seed + place} for place, num in enumerate(epochs)]
    jobs = [client.submit(prepare_job(settings, TrainSpec(cards, MODEL, each))).job for each in options]
    found = [ModelStore(settings.models).resolve(run_to_success(client, job).result) for job in jobs]
    return sorted(found, key=lambda version: version.version)


def _wait_until_open(client: redis.Redis, line: Line) -> None:
    """Raises PigeonholeError where a worker cannot open the line, or does not within `OPENING_S`."""
    store, deadline = LineStore(client, line.name), time.monotonic() + OPENING_S
    while True:
        workers = read_status(store, line).workers
        if sum(worker.is_open for worker in workers) == len(_WORKERS):
            return
        trouble = next((worker.trouble for worker in workers if worker.trouble), None)
        if trouble is not None or time.monotonic() > deadline:
            raise PigeonholeError(f"the line did not open on both workers: {trouble or 'they are not ready'}")
        time.sleep(_POLL_S)


class _Events:
    """What goes wrong on purpose."""

    def __init__(self, store: ModelStore, versions: Sequence[ModelVersion], line: LineStore, victim: Process) -> None:
        self._store = store
        self._line = line
        self._versions = versions
        self._victim = victim
        self._start = 0.0
        self.happened: list[tuple[float, str]] = []

    def start(self) -> None:
        """The belt starts now."""
        self._start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    @property
    def killed(self) -> str:
        return self._victim.name

    @property
    def moved(self) -> tuple[str, str]:
        return self._versions[0].ref, self._versions[1].ref

    def kill(self) -> None:
        """The worker and its children, as if its machine lost power, and at the worst moment: while it holds a card."""
        parent = psutil.Process(self._victim.pid)
        family = [parent, *parent.children(recursive=True)]
        waiting_until = time.monotonic() + _WORST_MOMENT_S
        while time.monotonic() < waiting_until and not self._holds_a_card():
            time.sleep(_LOOK_S)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.happened.append((self.elapsed_s, "worker killed"))
        print_message(
            f"     {self.killed} (pid {parent.pid}) and its children were killed with SIGKILL", color="yellow"
        )

    def _holds_a_card(self) -> bool:
        return any(f"-{self._victim.pid}-" in worker for worker in self._line.holders())

    def replace(self) -> None:
        self._store.set_alias(self._versions[1], ALIAS)
        self.happened.append((self.elapsed_s, "model replaced"))
        print_message(
            f"     the alias {MODEL}@{ALIAS} was moved from {self.moved[0]} to {self.moved[1]}", color="yellow"
        )


class _BeltRun:
    """The belt in a thread of its own, and beside it what the script has happen at its time."""

    def __init__(self, script: Script, line: Line, seed: int) -> None:
        self._script = script
        self._line = line
        self._plan = plan_belt(script.load, line, "card")
        arrivals = list(script.load.arrivals())
        self._arrivals = arrivals
        self._cards = list(belt_cards(seed, len(arrivals)))

    def run(self, settings: Settings, events: _Events) -> DemoRun:
        load = self._script.load
        print_message(
            f"4/4  {len(self._cards)} cards pass the camera at random in {load.duration_s:.0f} s; "
            f"each is at its gate after {load.gate_ms:,.0f} ms"
        )
        url = settings.require_server_url()
        with LineClient(LINE, url) as client:
            pusher = LinePusher(client)
            pusher.connect()
            belt = Belt(self._plan, pusher)
            cpu_s = time.process_time()
            self._run_belt(belt, events)
            cpu_s = time.process_time() - cpu_s
            decisions = [sample.answer for sample in belt.samples]
            records = {item: client.answer(item) for item in self._items()}
        stats = read_stats(LineStore(connect_raw(url), LINE))
        accounts = account(self._items(), decisions, records, stats.answers)
        return DemoRun(
            cards=self._cards,
            plan=self._plan,
            samples=list(belt.samples),
            elapsed_s=belt.elapsed_s,
            cpu_s=cpu_s,
            accounts=accounts,
            recovered=stats.recovered,
            killed=events.killed,
            moved=events.moved,
            events=tuple(events.happened),
        )

    def _items(self) -> list[str]:
        return [f"{self._plan.prefix}-{number}" for number in range(1, len(self._cards) + 1)]

    def _run_belt(self, belt: Belt, events: _Events) -> None:
        images: Iterator[bytes] = iter([card.image for card in self._cards])
        duration_s = self._script.load.duration_s
        happening: list[tuple[float, Callable[[], None]]] = [
            (self._script.replaced * duration_s, events.replace),
            (self._script.killed * duration_s, events.kill),
        ]
        with ThreadPoolExecutor(1, thread_name_prefix="belt") as thread, _stopped_at_the_end(belt):
            events.start()
            running = thread.submit(belt.run, self._arrivals, images)
            while wait([running], _POLL_S).not_done:
                elapsed_s = events.elapsed_s
                while happening and happening[0][0] <= elapsed_s:
                    redraw_line()
                    happening.pop(0)[1]()
                redraw_line(f"     {elapsed_s:.0f} s: {belt.num_sent} cards, {len(belt.pending)} without an answer yet")
            running.result()
        redraw_line()
        belt.wait_for_answers(self._plan.deadline_ms / 1000 + LAST_ANSWERS_S)


@contextmanager
def _stopped_at_the_end(belt: Belt) -> Iterator[None]:
    """After an interrupt nothing more is pushed."""
    try:
        yield
    finally:
        belt.stop()


def decisions_of(story: DemoRun) -> list[Answer]:
    """What became of each card, in the order of the answers."""
    return [sample.answer for sample in story.samples]
