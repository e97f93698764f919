"""The status of each outcome of a push, and its body."""

import json
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from orchestrator.contract.errors import PushRefusedError
from orchestrator.contract.lines.answers import Answer
from orchestrator.gateway.problems import ProblemError, retry_later


def answer_facts(answer: Answer) -> dict[str, Any]:
    """An answer as data: the keys of `push --json` first."""
    facts = answer.to_json()
    facts["cause"], facts["error"], facts["map_version"] = answer.cause, answer.error, answer.map_version
    return facts


def answered(answer: Answer) -> Response:
    """A record is 200, the fallback bin included. Raises ProblemError for an item that was pushed with other bytes."""
    if answer.reason == "conflict":
        raise conflict(answer)
    return Response(json.dumps(answer_facts(answer)), media_type="application/json")


def conflict(answer: Answer) -> ProblemError:
    text = f"item {answer.item!r:.80}, pass {answer.pass_}, was pushed with other bytes; `answer` is what those got"
    return ProblemError(409, "conflict", text, members={"answer": answer_facts(answer)})


def accepted(line: str, item: str, pass_: int) -> Response:
    """The server has the push; the answer is to be looked up."""
    place = item_path(line, item, pass_)
    body = {"item": item, "pass": pass_, "status": "waiting", "location": place}
    return Response(json.dumps(body), 202, {"location": place}, "application/json")


def item_path(line: str, item: str, pass_: int) -> str:
    """Where the answer of an item is."""
    return f"/v1/lines/{line}/items/{quote(item, safe='')}" + ("" if pass_ == 1 else f"?pass={pass_}")


def refused(err: PushRefusedError) -> ProblemError:
    """A refusal at once: too much waits, or the line is paused."""
    status = 503 if err.reason == "paused" else 429
    return retry_later(status, err.reason, str(err), err.retry_s)
