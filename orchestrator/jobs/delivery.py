"""How the webhook of a job stands, for people and for `--json`: never with its whole URL, which may be a password."""

from collections.abc import Mapping
from typing import Any

from orchestrator.contract.errors import MessageError, UsageError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import AnyJobRequest
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.webhooks.target import parse_target


def delivery_facts(folder: JobFolder, request: AnyJobRequest, ledger: Ledger | None) -> dict[str, Any] | None:
    """None: nobody is notified of the job's end.

    state: `waiting` while the job has not ended, `undelivered`, `delivered` or `given_up`. attempts: begun so far.
    error: of the last one. next_in_s: until the next attempt; None: unknown, or none comes.
    """
    if request.notify is None:
        return None
    facts = {"to": _shown(request.notify), "state": "waiting", "attempts": 0, "error": None, "next_in_s": None}
    try:
        receipt = folder.receipt()
    except MessageError as err:
        return facts | {"state": "undelivered", "error": str(err)}
    if receipt is not None:
        return facts | {"state": receipt.state, "attempts": receipt.attempts, "error": receipt.error}
    if not folder.is_undelivered():
        return facts
    waits = _waits(folder.job, ledger)
    return facts | {"state": "undelivered"} | waits


def describe_delivery(facts: Mapping[str, Any]) -> str:
    """The same in words."""
    to, attempts, error = facts["to"], facts["attempts"], facts["error"]
    if facts["state"] == "waiting":
        return f"{to} is notified when the job ends"
    if facts["state"] == "delivered":
        return f"{to} was told"
    tried = f"after {attempts} attempt{'s' * (attempts != 1)}" + (f" ({error})" if error else "")
    if facts["state"] == "given_up":
        return f"{to} was not told: given up {tried}"
    again = "" if facts["next_in_s"] is None else f", again in {facts['next_in_s']:.0f} s"
    return f"{to} is not told yet {tried}{again}" if attempts else f"{to} is not told yet"


def is_failing(facts: Mapping[str, Any] | None) -> bool:
    """Whether an attempt has failed, and none has succeeded."""
    return facts is not None and facts["state"] in ("undelivered", "given_up") and facts["attempts"] > 0


def _waits(job: str, ledger: Ledger | None) -> dict[str, Any]:
    from orchestrator.contract.server import SERVER_ERRORS  # takes redis, which no help text needs

    try:
        state = ledger.deliveries.state(job) if ledger is not None else None
    except SERVER_ERRORS:
        return {}
    if state is None:
        return {}
    return {"attempts": state.attempts, "error": state.error or None, "next_in_s": round(state.due_in_s, 1)}


def _shown(url: str) -> str:
    try:
        return parse_target(url).shown
    except UsageError:  # of another release
        return "a URL"
