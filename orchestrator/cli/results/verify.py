"""`pigeonhole results verify`."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestrator.cli.item_progress import item_progress
from orchestrator.cli.output import json_option, print_json, print_line, print_message
from orchestrator.contract.errors import ExitCode

if TYPE_CHECKING:
    from orchestrator.jobs.verification import Missing


@click.command("verify")
@click.argument("job")
@json_option
def verify_results(job: str, as_json: bool) -> None:
    """Verify JOB's manifest: rows, counts, checksums, listing and model. Exit 1 if something differs or is missing.

    \b
    Example:
      pigeonhole results verify birds.csv
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.results import find_published
    from orchestrator.jobs.verification import verify

    published = find_published(get_settings(), job)
    with item_progress("verifying") as progress:
        verification = verify(get_settings(), published, progress)
    if as_json:
        head = {"manifest": str(published.manifest), "ok": verification.ok}
        print_json(head | asdict(verification))
    else:
        for difference in verification.differences:
            print_message(f"differs: {difference}", color="red")
        for item in verification.unchecked:
            print_message(f"not checked: {item}", color="yellow")
        if (missing := verification.missing) is not None:
            print_message(describe_missing(missing), color="red")
        verdict = "DIFFERS from its summary" if verification.differences else "agrees with its summary"
        print_line(f"{published.manifest}: {verification.num_rows} rows, {len(verification.checked)} checks: {verdict}")
    sys.exit(ExitCode.OK if verification.ok else ExitCode.FAILED)


def describe_missing(missing: "Missing") -> str:
    """What an incomplete manifest lacks, on one line."""
    more = "" if missing.listed else ", and those that were not listed yet"
    first = f"; the first: {', '.join(missing.paths)}" if missing.paths else ""
    return f"incomplete: {missing.num_rows:,} rows are missing{more} ({missing.reason}){first}"
