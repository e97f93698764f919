"""`pigeonhole jobs retry`."""

import click

from orchestrator.cli.classify import submit_and_follow_rows
from orchestrator.cli.output import json_option
from orchestrator.cli.speaking import doing


@click.command()
@click.argument("job")
@click.option("--code", "codes", multiple=True, help="Only images that failed with this error code; may be repeated.")
@click.option("--detach", is_flag=True, help="Print the new job's id when its images are listed, and return.")
@json_option
def retry(job: str, codes: tuple[str, ...], detach: bool, as_json: bool) -> None:
    """Try the failed images of JOB again, as they are now.

    A new job classifies them. Its manifest, which has all rows, takes the place of JOB's; that stays as OUT.1, or the
    number after the last one. Its summary says which rows come from which job. Of a job that was retried before, the
    images are tried that failed in the latest attempt.

    \b
    Examples:
      pigeonhole jobs retry c261123-143355-7f3a2b
      pigeonhole jobs retry c261123-143355-7f3a2b --code missing --code permission
    """
    with doing(f"looking for the failed images of {job}"):
        from orchestrator.contract.settings import get_settings
        from orchestrator.jobs.retry import prepare_retry

        prepared = prepare_retry(get_settings(), job, codes, need_worker=not detach)
    submit_and_follow_rows(prepared, detach=detach, as_json=as_json)
