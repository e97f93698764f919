"""Pauses that an operator asks for.

The file in the job folder is the truth, as with a cancel: it is written first and removed first, and the sweep makes
the ledger follow it.
"""

from orchestrator.contract.jobs.history import note, operator
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.contract.queues import QUEUE_OF_KIND
from orchestrator.jobs.submit import JobClient


def pause(client: JobClient, job: str, reason: str = "") -> str:
    """Pause a job; returns its state after that, which is another one where it is too late.

    Workers finish or hand back what they hold between two batches. A training is stopped, and goes on from its last
    checkpoint later.
    """
    folder = JobFolder.open(client.settings, job)
    outcome = folder.outcome()
    if outcome is not None:
        return outcome.state
    text = f"{operator()}: {reason}" if reason else f"{operator()} paused it"
    folder.write_pause("operator", text)
    state = RecoveringLedger(client.ledger, client.settings).pause(job, text, by="operator")
    if state == "paused":
        note(folder, "paused", reason=reason or None)
    else:
        folder.withdraw_pause("operator")
    return state


def unpause(client: JobClient, job: str) -> str:
    """End the operator's pause of a job; returns its state after that. It stays paused while its source is away."""
    folder = JobFolder.open(client.settings, job)
    outcome = folder.outcome()
    if outcome is not None:
        return outcome.state
    state = RecoveringLedger(client.ledger, client.settings).unpause(job, by="operator")
    if state in ("queued", "running"):
        client.ring(QUEUE_OF_KIND[folder.request().kind], job)
    return state
