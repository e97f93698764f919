"""What the demos share: a folder of their own, with a home and a local stack in it, and jobs that must succeed."""

import shutil
from pathlib import Path

from orchestrator.cli.progress import follow_to_end
from orchestrator.contract.errors import PigeonholeError, UsageError
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.settings import Settings
from orchestrator.jobs.submit import JobClient
from orchestrator.stack.stack import Stack

MARKER = ".pigeonhole-demo"  # marks a folder that a demo made and may replace


def own_settings(output: Path) -> Settings:
    """The settings of a demo, whatever server the environment names."""
    return Settings(home=output / "home", server_url=None)


def clear(output: Path) -> None:
    """Make the output folder; that of an earlier demo is replaced, any other is refused."""
    if (output / MARKER).exists():
        Stack(own_settings(output)).down()
        shutil.rmtree(output)
    elif output.exists() and any(output.iterdir()):
        raise UsageError(f"{str(output)!r} holds other files; name another folder with --output")
    output.mkdir(parents=True, exist_ok=True)
    (output / MARKER).touch()


def run_to_success(client: JobClient, job: str) -> JobRecord:
    """Follow a job to its end. Raises PigeonholeError where it did not succeed."""
    record = follow_to_end(client, job)
    if record.state != "succeeded":
        raise PigeonholeError(f"job {job} of the demo ended as {record.state}: {record.error}")
    return record
