"""`pigeonhole jobs show`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from orchestrator.cli.client import find_ledger
from orchestrator.cli.output import json_option, print_json, print_line, print_table
from orchestrator.cli.speaking import doing

if TYPE_CHECKING:
    from orchestrator.contract.jobs.attempts import Attempt
    from orchestrator.contract.jobs.history import Event
    from orchestrator.jobs.story import Run, Story

_FACTS = ("job", "kind", "state", "source", "model", "error", "trouble")
_MOST_ROWS = 60  # characters
_SHOWN_EVENTS = 50  # and as many attempts: the last ones; --json has all


@click.command("show")
@click.argument("job")
@json_option
def show_job(job: str, as_json: bool) -> None:
    """Tell the whole story of JOB: its runs and attempts, the workers with their rows, troubles, history and files.

    Works without a server, too, also for a job that has ended.

    \b
    Examples:
      pigeonhole jobs show c261123-143355-7f3a2b
      pigeonhole jobs show c261123-143355-7f3a2b --json
    """
    from orchestrator.contract.jobs.job_folder import JobFolder
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.story import tell_story

    settings = get_settings()
    JobFolder.open(settings, job)
    ledger = find_ledger()
    with doing(f"reading the parts of job {job}"):
        story = tell_story(settings, ledger, job)
    if as_json:
        print_json(story.to_json())
        return
    for name, text in _lines(story):
        print_line(f"{name:10} {text}")
    if story.workers:
        print_line()
        columns = ("worker", "shards", "rows", "failed", "engine")
        print_table(
            columns, [(w.worker, w.num_shards, w.num_rows, w.num_failed, ", ".join(w.engines)) for w in story.workers]
        )
    if story.history:
        print_line()
        for event in story.history[-_SHOWN_EVENTS:]:
            print_line(f"{event.at[:19].replace('T', ' ')}  {event.by}: {describe_event(event)}")


def _lines(story: "Story") -> Iterator[tuple[str, str]]:
    """What the job is, what became of it, and where its files are."""
    facts = story.facts
    for name in _FACTS:
        if facts.get(name):
            yield name, str(facts[name])
    if facts["kind"] == "classify":
        total = f"{facts['num_images']:,}{'' if facts['listed'] else '+'}"
        done = "?" if facts["state"] == "unknown" else f"{facts['num_done']:,}"
        yield "images", f"{done} of {total} done, {facts['num_failed']:,} failed"
    yield from story.files.items()
    for attempt in (story.summary or {}).get("attempts", ()):
        yield "rows", f"{attempt['num_rows']:,} of job {attempt['job']}: {_shortened(str(attempt['rows']))}"
    for run in story.runs:
        yield f"run {run.run}", describe_run(run)
    for each in story.attempts[-_SHOWN_EVENTS:]:
        yield f"attempt {each.number}", describe_attempt(each)


def _shortened(rows: str) -> str:
    return rows if len(rows) <= _MOST_ROWS else f"{rows[:_MOST_ROWS]}..."


def describe_run(run: "Run") -> str:
    """How a run began and ended, on one line."""
    began = f"{'resumed' if run.run else 'submitted'} {run.began[:19].replace('T', ' ')} UTC"
    words = [began + (f" by {run.by}" if run.by else "")]
    if run.relisted:
        words.append("its images were listed again")
    if run.outcome is None:
        return ", ".join([*words, "not ended"])
    ended = f"{run.outcome.ended:%Y-%m-%d %H:%M:%S} UTC"
    words.append(f"{run.outcome.state} {ended}, {run.outcome.num_done:,} done, {run.outcome.num_failed:,} failed")
    return ", ".join(words) + (f": {run.outcome.error}" if run.outcome.error else "")


def describe_attempt(attempt: "Attempt") -> str:
    """Who worked on a training or an evaluation, and how that ended, on one line."""
    began = f"{attempt.begin.worker} on {attempt.begin.device}, began {attempt.begin.at:%Y-%m-%d %H:%M:%S} UTC"
    if attempt.end is None:
        return f"{began}, not ended"
    left = ", after a new checkpoint" if attempt.end.progressed else ""
    return f"{began}, ended {attempt.end.at:%Y-%m-%d %H:%M:%S} UTC{left}: {attempt.end.how}"


def describe_event(event: "Event") -> str:
    """An event and its facts, on one line."""
    facts = dict(event.facts)
    text = str(facts.pop("text", ""))
    shown = [f"{name.removeprefix('num_')} {value}" for name, value in facts.items()]
    return ": ".join(filter(None, [event.event, ", ".join(filter(None, [text, *shown]))]))
