"""`pigeonhole lines simulate`."""

import os
import secrets
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modeling.images.quotas import num_cores
from orchestrator.cli.lines.options import LineName
from orchestrator.cli.output import (
    duration,
    json_option,
    print_json,
    print_line,
    print_message,
    print_table,
    redraw_line,
)
from orchestrator.cli.speaking import doing
from orchestrator.contract.access import describe_access
from orchestrator.contract.errors import ExitCode, UnavailableError, UsageError

if TYPE_CHECKING:
    from orchestrator.contract.lines.settings import Line
    from orchestrator.contract.lines.status import LineStatus
    from orchestrator.lines.simulate.figures import Figures
    from orchestrator.lines.simulate.run import Outcome, Simulation

MOST_IMAGES = 100_000  # of the folder: more are not looked at
OPENING_S = 120.0  # a worker that has just started imports its libraries, then loads and warms the model
_LOOK_TIMEOUT_S = 1.0
_POLL_S = 0.2
_LINE_EVERY_S = 10.0  # where standard error is not a terminal


@click.command("simulate")
@click.argument("line", type=LineName())
@click.option(
    "--images", required=True, type=click.Path(), help="Folder of images to push, again and again in random order."
)
@click.option("--per-second", type=float, required=True, help="Items that pass the camera in a second.")
@click.option("--poisson", is_flag=True, help="Let items arrive at random (Poisson); default: evenly spaced.")
@click.option("--speed", type=float, default=3.0, show_default=True, help="Speed of the belt in metres a second.")
@click.option(
    "--distance", type=float, default=3.0, show_default=True, help="Metres from the camera to the first gate."
)
@click.option("--minutes", type=float, default=1.0, show_default=True, help="Minutes for which the belt runs.")
@click.option(
    "--burst/--no-burst", default=True, show_default=True,
    help="Measure how many items a second the line takes, with some seconds of full load after the belt.",
)  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="PNG file for a timeline of all answers.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of arrivals.")
@json_option
def simulate_line(line: str, images: str, plot: Path | None, burst: bool, as_json: bool, **load: float) -> None:
    """Push images to LINE as a belt would, and report what a sorter needs to know.

    Items arrive at their times, whatever becomes of earlier ones. An item is at the gate after distance / speed; that
    is its deadline, unless the line's own is shorter. The items are named sim-RUN-NUMBER; they count in the line's
    statistics like others. Ctrl-C ends the belt and reports what was measured so far.

    \b
    Examples:
      pigeonhole lines simulate post --images photos/ --per-second 8
      pigeonhole lines simulate post --images photos/ --per-second 20 --poisson --distance 1.5 --plot post.png
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.lines.client import LineClient
    from orchestrator.lines.simulate.arrivals import Load
    from orchestrator.lines.simulate.run import LinePusher, Simulation

    belt = Load(**load)  # type: ignore[arg-type]
    paths = _find_images(images)
    if plot is not None:
        _check_plot(plot)
    found, look = _open_line(line)
    _wait_until_open(found, look)
    with LineClient(line, get_settings().require_server_url()) as client:
        pusher = LinePusher(client)
        pusher.connect()
        simulation = Simulation(belt, found, f"sim-{secrets.token_hex(3)}", pusher, look)
        outcome = simulation.run(paths, _Progress(), burst=burst)
    redraw_line()
    if as_json:
        print_json(outcome.to_json() | {"plot": None if plot is None else str(plot)})
    else:
        _print_outcome(outcome, len(paths))
    if not outcome.figures.generator.valid:
        print_message(_invalid(outcome.figures), color="red")
    if plot is not None:
        from orchestrator.lines.simulate.plot import draw_timeline

        draw_timeline(plot, _title(outcome), outcome.samples, outcome.plan, outcome.figures)
    if outcome.interrupted:
        sys.exit(ExitCode.INTERRUPTED)


# Before the belt


def _find_images(images: str) -> list[Path]:
    """Raises NotFoundError and UsageError where there is none."""
    from orchestrator.jobs.sources import open_source
    from orchestrator.jobs.walk import SourceOptions

    if images == "-":
        raise UsageError("--images - is not a folder; name one")
    source = open_source(images, SourceOptions())
    paths = [Path(source.root, path) for path in islice(source.paths, MOST_IMAGES)]
    if not paths:
        raise UsageError(f"--images {images!r} holds no file with the extension of an image (.jpg, .png, ...)")
    return paths


def _check_plot(plot: Path) -> None:
    """Raises UsageError where the file could not be written in the end."""
    folder = Path(os.path.abspath(plot)).parent  # noqa: PTH100 `..` must go
    if not folder.is_dir():
        raise UsageError(f"--plot {str(plot)!r}: there is no folder {str(folder)!r}")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--plot {str(plot)!r} cannot be written: {describe_access(str(folder))}")


def _open_line(name: str) -> tuple["Line", Callable[[], "LineStatus"]]:
    """The line, and a look at its workers. Raises NotFoundError, UsageError where it is paused."""
    from orchestrator.cli.lines.connect import LinesView
    from orchestrator.contract.lines.status import read_status
    from orchestrator.contract.lines.store import LineStore
    from orchestrator.contract.server import connect_raw
    from orchestrator.contract.settings import get_settings

    view = LinesView()
    if view.trouble is not None:
        raise view.trouble
    line = view.get(name)
    if line.paused:
        raise UsageError(
            f"line {name!r} is paused and would refuse every item; `pigeonhole lines resume {name}` opens it"
        )
    own = line.settings.server or get_settings().require_server_url()
    store = LineStore(connect_raw(own, timeout_s=_LOOK_TIMEOUT_S), name)
    return line, lambda: read_status(store, line)


def _wait_until_open(line: "Line", look: Callable[[], "LineStatus"]) -> None:
    """Raises UnavailableError where no worker is alive, or none opens the line in time."""
    from orchestrator.contract.ledger.ledger import Ledger
    from orchestrator.contract.server import connect
    from orchestrator.contract.settings import get_settings

    live_workers = Ledger(connect(get_settings().require_server_url())).live_workers
    workers, start = look().workers, time.monotonic()
    if not any(worker.is_open for worker in workers):
        print_message(f"waiting for a worker that opens line {line.name}")
    with doing("") as replace_words:
        while not any(worker.is_open for worker in workers):
            loading = next((worker.loading for worker in workers if worker.loading), "no worker is ready yet")
            replace_words(f"waiting for line {line.name}: {loading}")
            if not (any(worker.alive for worker in workers) or any(worker.alive for worker in live_workers.workers())):
                raise UnavailableError(
                    f"no worker is alive that could open line {line.name!r}; start `pigeonhole worker`"
                )
            if time.monotonic() - start > OPENING_S:
                trouble = next((f": {worker.trouble}" for worker in workers if worker.trouble), "")
                raise UnavailableError(
                    f"no worker opens line {line.name!r}{trouble}; see `pigeonhole lines show {line.name}`"
                )
            time.sleep(_POLL_S)
            workers = look().workers


# While it runs


class _Progress:
    """One line on the terminal, or a line now and then."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._printed = self._start

    def __call__(self, simulation: "Simulation") -> None:
        now = time.monotonic()
        text = "measuring how many items a second the line takes"
        if simulation.is_on_belt:
            elapsed_s = min(now - self._start, simulation.load.duration_s)
            waiting = len(simulation.belt.pending)
            text = (
                f"{duration(elapsed_s)} of {duration(simulation.load.duration_s)}: {simulation.belt.num_sent:,} items, "
                f"{simulation.num_missed:,} missed the gate, {waiting:,} waiting"
            )
        redraw_line(text)
        if not sys.stderr.isatty() and now - self._printed > _LINE_EVERY_S:
            self._printed = now
            print_message(text)


# After it


def _print_outcome(outcome: "Outcome", num_images: int) -> None:
    load, plan, figures = outcome.load, outcome.plan, outcome.figures
    deadline = "the gate" if plan.deadline_ms >= plan.gate_ms else f"{plan.deadline_ms:,.0f} ms, the line's own"
    spaced = "at random (Poisson)" if load.poisson else "evenly spaced"
    print_line(f"line {outcome.line}, {outcome.model}: items {plan.prefix}-1, ...", bold=True)
    print_line(
        f"gate {plan.gate_ms:,.0f} ms after the trigger ({load.distance:g} m at {load.speed:g} m/s); "
        f"deadline: {deadline}"
    )
    print_line(
        f"{figures.num_items:,} items in {duration(figures.elapsed_s)}, {load.per_second:g} a second, {spaced}; "
        f"{num_images:,} images"
    )
    print_line()
    rows = [(reason, f"{num:,}", _percent(num, figures)) for reason, num in figures.by_reason.items()]
    rows += [("no answer", f"{figures.num_unanswered:,}", _percent(figures.num_unanswered, figures))] * bool(
        figures.num_unanswered
    )
    print_table(("answer", "items", "share"), rows)
    print_line()
    for name, text in _summary(outcome):
        print_line(f"{name:11}{text}", bold=True if name == "missed" and figures.num_missed else None)


def _summary(outcome: "Outcome") -> list[tuple[str, str]]:
    from orchestrator.lines.simulate.figures import LATE_SEND_MS

    figures, times, generator = outcome.figures, outcome.figures.times, outcome.figures.generator
    causes = ", ".join(f"{cause} {num:,}" for cause, num in figures.by_cause.items())
    missed = (
        f"{figures.num_missed:,} items ({_percent(figures.num_missed, figures)}) passed the gate without a prediction"
    )
    rows = [
        (
            "answers",
            f"p50 {times.p50:,.1f} ms, p95 {times.p95:,.1f} ms, p99 {times.p99:,.1f} ms, worst {times.worst:,.1f} ms, "
            "from the trigger"
            if times
            else "none came",
        ),
        ("missed", missed + (f"; time lost: {causes}" if causes else "")),
    ]
    rows += [("busy", f"{worker}: {100 * used:.0f} % of the time") for worker, used in outcome.utilisation.items()]
    rows.append(("capacity", _capacity(outcome)))
    rows.append(
        (
            "generator",
            f"pushes that began more than {LATE_SEND_MS:.0f} ms late: {generator.num_late:,}, the worst "
            f"{generator.worst_late_ms:,.1f} ms; {100 * generator.cpu_share:.0f} % of a core, with the client",
        )
    )
    return rows


def _capacity(outcome: "Outcome") -> str:
    capacity = outcome.capacity
    if capacity is None:
        return "not measured"
    at_least = "at least " if capacity.client_bound else ""
    text = (
        f"{at_least}{capacity.per_second:,.1f} items a second, measured for {duration(capacity.duration_s)} with "
        f"{capacity.in_flight} waiting; this load was {100 * outcome.load.per_second / capacity.per_second:.0f} % of it"
    )
    return text + ("; this process was the limit" if capacity.client_bound else "")


def _invalid(figures: "Figures") -> str:
    from orchestrator.lines.simulate.figures import LATE_SEND_MS

    generator = figures.generator
    return (
        f"the figures are not valid: {generator.num_late:,} of {figures.num_items:,} pushes began more than "
        f"{LATE_SEND_MS:.0f} ms late: this machine is too busy to make the load; lower --per-second, or run the "
        "command on another machine"
    )


def _percent(num: int, figures: "Figures") -> str:
    return f"{100 * num / max(figures.num_items, 1):.2f} %"


def _title(outcome: "Outcome") -> str:
    spaced = ", at random" if outcome.load.poisson else ""
    return (
        f"line {outcome.line}, {outcome.model}: {outcome.load.per_second:g} items a second{spaced}; "
        f"pushed from {os.uname().nodename} ({num_cores()} cores)"
    )
