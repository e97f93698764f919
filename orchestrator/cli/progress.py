"""Shows the progress of a job: a live table on a terminal, a plain line every few seconds elsewhere.

Own lines, not rich's progress bars, where output is piped: a log needs a line only when something changed.
"""

import sys
import time
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli import speaking
from orchestrator.cli.output import duration, on_interrupt, print_message
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import ExitCode
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.settings import Settings
from orchestrator.contract.shown import printable
from orchestrator.jobs.follow import JobSnapshot, all_failed, describe, describe_event, follow, share_done, warnings
from orchestrator.jobs.submit import JobClient

LINE_EVERY_S = 5.0
NO_WORKER_AFTER_S = 5.0
_COLORS = {"succeeded": "green", "partial": "yellow", "failed": "red", "cancelled": "yellow"}


def follow_to_end(client: JobClient, job: str, *, timeout_s: float | None = None, fresh: bool = True) -> JobRecord:
    """Show a job until it ends, and return its record; after an interrupt the job continues.

    Exits with 130 on an interrupt, with 124 after `timeout_s`.
    """
    snapshots = follow(client.settings, client.ledger, job, timeout_s=timeout_s, fresh=fresh)
    with on_interrupt(job):
        last = _show_live(snapshots) if sys.stderr.isatty() else _show_lines(snapshots)
    if not last.record.ended:
        is_paused = f"it is paused: {last.record.paused_reason}" if last.record.state == "paused" else "it continues"
        print_message(f"job {job} has not ended within {duration(timeout_s or 0)}; {is_paused}")
        sys.exit(ExitCode.TIMED_OUT)
    for warning in warnings(JobFolder.open(client.settings, job).events):
        print_message(warning, color="yellow")
    return last.record


def print_end(settings: Settings, record: JobRecord) -> None:
    """Print how a job ended, on one line."""
    color = _COLORS.get(record.state)
    elapsed_s = max(record.ended_ms - (record.started_ms or record.created_ms), 1) / 1000
    if record.kind != "classify":
        text = f"job {record.job}: {record.state} after {duration(elapsed_s)}"
    else:
        rate = f", {record.num_done / elapsed_s:,.0f} images/s" if record.num_done else ""
        counts = f"{record.num_done} images, {record.num_failed} failed"
        text = f"job {record.job}: {record.state}: {counts}, {duration(elapsed_s)}{rate}"
    print_message(text + (f": {record.error}" if record.error else ""), color=color)
    outcome = JobFolder.open(settings, record.job).outcome()
    if outcome is not None and outcome.incomplete:
        print_message(f"what was found so far is in {outcome.incomplete}")
        print_message(f"`pigeonhole jobs resume {record.job} --max-failures N` goes on with another limit")
    if record.state == "partial":
        print_message(f"`pigeonhole results errors {record.job}` shows what failed and why")
    if all_failed(settings, record):
        print_message(
            "no image has an answer: the exit code is 3, unless --max-failures 100% allows it", color="yellow"
        )


def _show_lines(snapshots: Iterator[JobSnapshot]) -> JobSnapshot:
    """A line when the state changes, and every few seconds."""
    last_line, last_at, state = "", 0.0, ""
    no_worker = _NoWorkerWarning()
    with doing("following the job", log_after_s=LINE_EVERY_S + 1) as replace_words:
        for snapshot in snapshots:
            now = time.monotonic()
            due = now - last_at > LINE_EVERY_S or snapshot.record.state != state
            line = describe(snapshot)
            replace_words(line)
            if due and line != last_line and not snapshot.record.ended:
                print_message(line)
                last_line, last_at, state = line, now, snapshot.record.state
            if warning := no_worker.check(snapshot):
                print_message(warning, color="yellow")
    return snapshot


def _show_live(snapshots: Iterator[JobSnapshot]) -> JobSnapshot:
    """A table that is redrawn, and removed at the end."""
    console = Console(stderr=True)
    no_worker = _NoWorkerWarning()
    warning = ""
    with speaking.output(), Live(console=console, refresh_per_second=8, transient=True) as live:
        for snapshot in snapshots:
            warning = no_worker.check(snapshot) or (warning if snapshot.num_workers == 0 else "")
            live.update(_render(snapshot, warning))
    return snapshot


def _render(snapshot: JobSnapshot, warning: str) -> RenderableType:
    record = snapshot.record
    shown: list[RenderableType] = [
        _heading(record),
        Text(printable(describe(snapshot)).partition(": ")[2], overflow="ellipsis"),
    ]
    if record.kind == "classify":
        shown[1] = _numbers(snapshot)
    if snapshot.server_away:
        warning = "the server is away, waiting for it"
    warning = warning or snapshot.missing_version or record.paused_reason or record.trouble
    if record.kind == "classify" and not warning:
        warning = describe_event(record.progress)
    return Group(*shown, Text(printable(warning), style="yellow")) if warning else Group(*shown)


def _heading(record: JobRecord) -> RenderableType:
    """The job, its state, and a progress bar in the rest of the line."""
    heading = Table.grid(padding=(0, 2), expand=True)
    heading.add_column(no_wrap=True)
    heading.add_column(ratio=1)
    heading.add_row(Text(printable(f"{record.job} {record.state}"), style="bold"), _bar(record))
    return heading


def _bar(record: JobRecord) -> ProgressBar:
    """How much is done; the bar pulses where that is unknown."""
    if record.kind == "classify":
        return ProgressBar(total=record.num_images or 1, completed=record.num_done, width=40, pulse=not record.listed)
    share = share_done(record.progress)
    done, total = share or (0, 1)
    return ProgressBar(total=total, completed=done, width=40, pulse=share is None and record.state == "running")


def _numbers(snapshot: JobSnapshot) -> Text:
    """The progress of a classify job, on one line."""
    record = snapshot.record
    text = Text(overflow="ellipsis", no_wrap=True)
    text.append(f"{record.num_done:,}/{record.num_images:,}{'' if record.listed else '+'} images")
    text.append(f"  {snapshot.images_per_sec:,.0f} images/s")
    text.append(f"  {record.num_failed:,} failed", style="red" if record.num_failed else "dim")
    if snapshot.eta_s is not None:
        text.append(f"  {duration(snapshot.eta_s)} left")
    if record.bound:
        text.append(f"  limited by {record.bound}", style="dim")
    return text


class _NoWorkerWarning:
    """Warns once, each time that no worker has been alive for some seconds."""

    def __init__(self) -> None:
        self._no_worker_since: float | None = None
        self._warned = False

    def check(self, snapshot: JobSnapshot) -> str:
        if snapshot.num_workers or snapshot.server_away or snapshot.record.ended:
            self._no_worker_since, self._warned = None, False
            return ""
        self._no_worker_since = self._no_worker_since or time.monotonic()
        if self._warned or time.monotonic() - self._no_worker_since < NO_WORKER_AFTER_S:
            return ""
        self._warned = True
        return f"no worker is alive; job {snapshot.record.job} waits for one: start it with `pigeonhole worker`"
