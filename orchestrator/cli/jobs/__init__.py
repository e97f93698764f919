"""`pigeonhole jobs ...`; alone it lists."""

from typing import Any

import click

from orchestrator.cli.jobs.options import list_options
from orchestrator.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "list": LazyCommand("jobs.list:list_jobs", "List jobs, newest first; `pigeonhole jobs` alone does the same."),
    "rerun": LazyCommand(
        "jobs.rerun:rerun_job", "Classify a job's images again, and compare the bytes of the manifests."
    ),
    "prune": LazyCommand("jobs.prune:prune_jobs", "Remove what jobs that ended long ago leave behind."),
    "pause": LazyCommand("jobs.pause:pause_jobs", "Pause jobs until `jobs unpause`."),
    "resume": LazyCommand("jobs.resume:resume_job", "Go on with a job that was cancelled, failed or forgotten."),
    "retry": LazyCommand("jobs.retry:retry", "Try the failed images of a job again, as they are now."),
    "show": LazyCommand("jobs.show:show_job", "Tell the whole story of a job."),
    "unpause": LazyCommand("jobs.pause:unpause_jobs", "Let paused jobs go on."),
}


@click.group(cls=LazyGroup, table=COMMANDS, invoke_without_command=True)
@list_options
@click.pass_context
def jobs(ctx: click.Context, /, **options: Any) -> None:
    """Jobs. Alone: list them, newest first.

    \b
    Examples:
      pigeonhole jobs
      pigeonhole jobs --active --json
    """
    if ctx.invoked_subcommand is None:
        from orchestrator.cli.jobs.list import list_jobs

        ctx.invoke(list_jobs, **options)
