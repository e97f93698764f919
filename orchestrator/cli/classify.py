"""`pigeonhole classify`."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modeling.inference.engines.precision import WANTED_PRECISIONS
from orchestrator.cli.client import follow_unless_detached, open_or_start_client, print_existed
from orchestrator.cli.output import duration, json_option, print_json, print_line, print_message, redraw_line
from orchestrator.cli.parameters import FailureLimit, notify_option, priority_option
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.formats import FORMAT_NAMES

if TYPE_CHECKING:
    from orchestrator.contract.jobs.job_folder import JobFolder
    from orchestrator.contract.jobs.merge_plan import PlanFacts
    from orchestrator.contract.jobs.requests import MaxFailures
    from orchestrator.contract.ledger.record import JobRecord
    from orchestrator.contract.settings import Settings
    from orchestrator.jobs.forecast import Forecast, Share
    from orchestrator.jobs.lister import OnListing
    from orchestrator.jobs.prepare import PreparedClassify

MUCH_MEMORY = 0.8  # of what is allowed: a worker's other processes and larger images need the rest


@click.command()
@click.argument("source")
@click.option("--model", required=True, help="A published model: name, name@version.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The manifest to write; default: one in the job's folder."
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(FORMAT_NAMES),
    help="Format of the manifest; default: by the output's name.",
)
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists, once the job has succeeded.")
@click.option(
    "--top-k", type=click.IntRange(1, 1000), default=5, show_default=True, help="Number of best labels per row."
)
@click.option(
    "--shard-size", type=click.IntRange(1, 100_000),
    help="Images per shard, the unit that a worker claims and repeats after a crash; default: two seconds of work.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(WANTED_PRECISIONS), default="auto", show_default=True,
    help="Numeric precision of the network; auto: the fastest measured one that gives the model's answers.",
)  # fmt: skip
@click.option(
    "--max-failures",
    type=FailureLimit(),
    help="Stop and exit with 3 once more than this number or share of images has failed; default: exit with 3 if all "
    "have.",
)
@click.option("--checksum", is_flag=True, help="Keep a digest of each image in OUT.sources, beside its size and time.")
@click.option("--recursive/--no-recursive", default=True, show_default=True, help="Descend into folders.")
@click.option("--follow-symlinks", is_flag=True, help="Also read images outside the source that symlinks point to.")
@click.option("--all-files", is_flag=True, help="Treat every file as an image, also without an image's extension.")
@click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False),
    help="Folder that the paths of a list are relative to; default: the list's folder, the root of a manifest's job, "
    "or the current folder for '-'.",
)  # fmt: skip
@click.option(
    "--since", metavar="JOB|MANIFEST",
    help="Classify only images that are new since, or whose size or time has changed; the other rows are taken over. "
    "With --checksum, contents are compared. OUT may be that manifest itself, which stays as OUT.1.",
)  # fmt: skip
@click.option("--idempotency-key", help="Submit only once, however often the command is repeated with the same key.")
@priority_option
@notify_option
@click.option("--detach", is_flag=True, help="Print the job's id when its images are listed, and return.")
@click.option(
    "--plan",
    is_flag=True,
    help="Submit nothing: measure a sample on this machine, and print the time, what limits it, and what fails.",
)
@json_option
def classify(
    source: str,
    max_failures: "MaxFailures | None",
    recursive: bool,
    follow_symlinks: bool,
    all_files: bool,
    root: Path | None,
    detach: bool,
    plan: bool,
    as_json: bool,
    **spec: Any,
) -> None:
    """Classify the images of SOURCE; every image becomes a row of the manifest.

    SOURCE is a folder, a quoted glob, an image, a list of paths (.txt; .csv, .tsv, .jsonl or .json with a column
    `path`; or a manifest), or - for a list on standard input. Hidden files, what systems leave behind and files without
    an image's extension are counted, not classified; every path of a list is classified. A source whose paths would
    all fail for one reason is refused with it, unless it is standard input.

    \b
    Examples:
      pigeonhole classify inbox/ --model birds -o birds.csv
      pigeonhole classify 'inbox/**/*.jpg' --model birds@2 -o birds.jsonl --top-k 3
      find /scans -name '*.png' -print0 | pigeonhole classify - --root /scans --model digits -o digits.json
      pigeonhole classify inbox/ --model birds -o birds.csv --max-failures 0.5% --detach
      pigeonhole classify inbox/ --model birds -o birds.csv --since birds.csv
      pigeonhole classify inbox/ --model birds --plan
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.prepare import prepare
    from orchestrator.jobs.specs import ClassifySpec
    from orchestrator.jobs.walk import SourceOptions

    reading = SourceOptions(recursive=recursive, follow_symlinks=follow_symlinks, all_files=all_files, root=root)
    full = ClassifySpec(source, **spec, max_failures=max_failures, reading=reading, need_worker=not detach)
    if plan and full.since is not None:
        raise UsageError("--plan measures a whole source; leave --since out")
    if plan:
        full = replace(full, idempotency_key=None)  # a key stands for a submission
    with doing(f"checking {source}"):
        prepared = prepare(get_settings(), full)
    if plan:
        _show_plan(prepared, as_json=as_json)
        return
    submit_and_follow_rows(prepared, detach=detach, as_json=as_json)


def submit_and_follow_rows(prepared: "PreparedClassify", *, detach: bool, as_json: bool) -> None:
    """Submit a classify job; print its id if it is detached, else follow it to its end, show its result, and exit."""
    from orchestrator.contract.jobs.job_folder import JobFolder
    from orchestrator.contract.jobs.merge_plan import read_plan_facts
    from orchestrator.jobs.skipped import describe_skipped

    client = open_or_start_client()
    with doing(f"listing {prepared.spec.source}") as replace_words:
        try:
            submission = client.submit(prepared, on_listing=_show_listing(replace_words))
        finally:
            redraw_line()
    print_existed(submission)
    if submission.facts:
        counted = _count(submission.facts.num_images, "image")
        print_message(f"job {submission.job}: {counted}{describe_skipped(submission.facts.skipped)}")
        if plan := read_plan_facts(JobFolder.open(client.settings, submission.job).work):
            print_message(describe_plan(plan))
    follow_unless_detached(client, submission.job, _show_result, detach=detach, as_json=as_json)


def describe_plan(plan: "PlanFacts") -> str:
    """What a merge does with the rows of its base, and what has changed since."""
    facts = [f"{_count(plan.num_kept, 'row')} taken over"]
    if plan.num_changed:
        facts.append(f"{_count(plan.num_changed, 'image')} of these {plan.num_new:,} changed since")
    if plan.num_gone:
        whose = "whose image is" if plan.num_gone == 1 else "whose images are"
        facts.append(f"{_count(plan.num_gone, 'row')} left out, {whose} gone")
    if plan.num_stale:
        facts.append(
            f"{_count(plan.num_stale, 'row')} taken over although the images have changed since: "
            "`classify --since` classifies those"
        )
    return "; ".join(facts)


def _show_listing(replace_words: Callable[[str], None]) -> "OnListing":
    """Show the progress of a long listing: on a terminal as it goes, elsewhere when nothing else was printed."""

    def show(job: str, num_images: int) -> None:
        line = f"{job}: listing, {num_images:,} images"
        replace_words(line)
        redraw_line(line)

    return show


def _show_result(settings: "Settings", record: "JobRecord", as_json: bool) -> None:
    from orchestrator.contract.jobs.job_folder import JobFolder
    from orchestrator.jobs.follow import to_json

    if record.result:
        print_decisions(JobFolder.open(settings, record.job))
    if as_json:
        print_json(to_json(settings, record))
    elif record.result:
        print_line(record.result)


def print_decisions(folder: "JobFolder") -> None:
    """Print how many images need a review, if the model is calibrated, and what was remarked about images."""
    from orchestrator.cli.results.show import describe_decisions, describe_remarks
    from orchestrator.jobs.results import read_summary

    counts = read_summary(folder.summary)["counts"]
    if decided := describe_decisions(counts):
        print_message(decided)
    if counts["decisions"].get("review"):
        print_message(f"`pigeonhole results show {folder.job} --where decision=review` shows them")
    for line in describe_remarks(counts):
        print_message(line)


def _show_plan(prepared: "PreparedClassify", *, as_json: bool) -> None:
    """Measure a sample of the images on this machine, and print how the job would go."""
    from orchestrator.jobs.forecast import forecast  # imports numpy, so only here

    print_message("measuring a sample on this machine; nothing is submitted")
    with doing(f"measuring a sample of {prepared.spec.source}"):
        planned = forecast(prepared)
    if as_json:
        print_json(asdict(planned))
        return
    for name, text in _lines(planned):
        print_line(f"{name:12} {text}")


def _lines(plan: "Forecast") -> list[tuple[str, str]]:
    from orchestrator.jobs.skipped import skipped_text

    stages = ", ".join(f"{stage} {rate:,.0f}" for stage, rate in plan.stage_images_per_sec.items())
    times = ", ".join(
        f"{_count(num_workers, 'worker')} {duration(seconds)}" for num_workers, seconds in plan.expected_s.items()
    )
    codes = ", ".join(f"{count} {code}" for code, count in plan.error_codes.items())
    shared = " if the storage, which they share, keeps up" if plan.bound == "storage" else ""
    lines = [
        ("source", f"{plan.source}: {_count(plan.num_images, 'image')} in {_count(plan.num_shards, 'shard')}"),
        ("left out", skipped_text(plan.skipped)),
        ("model", f"{plan.model} by {plan.engine}, {_count(plan.batch_size, 'image')} in a batch"),
        (
            "measured",
            f"{_count(plan.num_measured, 'image')} in {duration(plan.elapsed_s)}: {plan.images_per_sec:,.0f} images/s",
        ),
        ("machine", _machine_text(plan)),
        ("limited by", f"{plan.bound} (images/s by stage: {stages})" if plan.bound else ""),
        ("time", f"{times} (workers like this machine, each with its own device and cores{shared})"),
        ("unreadable", _share_text(plan.unreadable) + (f": {codes} in the sample" if codes else "")),
        *((name, _share_text(share)) for name, share in plan.decisions.items()),
    ]
    return [(name, text) for name, text in lines if text]


def _machine_text(plan: "Forecast") -> str:
    """What the measuring process could use, and what it needed."""
    limited = plan.cpu_quota is not None and plan.cpu_quota <= plan.num_cores
    cores = _count(plan.num_cores, "core") + (f" within a quota of {plan.cpu_quota:g}" if limited else "")
    used, allowed = plan.peak_bytes / 1e9, plan.memory_bytes / 1e9
    short = "; a worker may be killed here: give it more memory" if used > MUCH_MEMORY * allowed else ""
    return f"{cores}, {used:.1f} GB of {allowed:.1f} GB memory{short}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _share_text(share: "Share") -> str:
    """A share, with its interval unless it is exact."""
    if share.low == share.high:
        return f"{share.share:.1%}"
    return f"{share.share:.1%} ({share.low:.1%} to {share.high:.1%})"
