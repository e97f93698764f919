"""Lines: their settings, state and counts, and the answers of items."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import JSONResponse, Response

from orchestrator.contract.errors import NotFoundError
from orchestrator.contract.lines.answers import Answer, request_key
from orchestrator.contract.lines.archive import AnswerArchive
from orchestrator.contract.lines.limits import MOST_MINUTES
from orchestrator.contract.lines.lookup import look_up
from orchestrator.contract.lines.registry import answers_folder
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.stats import read_stats
from orchestrator.contract.lines.status import read_status
from orchestrator.contract.lines.store import LineStore
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.documented import problems
from orchestrator.gateway.items.describe import ANSWER, WAITING
from orchestrator.gateway.items.outcomes import accepted
from orchestrator.gateway.problems import invalid
from orchestrator.gateway.threads import Questions
from orchestrator.lines.facts import answer_facts, line_facts, stats_facts, status_facts
from orchestrator.lines.request import check_item

WAITING_RETRY_S = "1"
LineName = Annotated[str, Path(description="Name of the line.")]
Item = Annotated[str, Path(description="Name of the item, percent-encoded.")]
Pass = Annotated[int, Query(alias="pass", ge=1, le=1_000_000, description="How often the item has come by.")]
Minutes = Annotated[int, Query(ge=1, le=MOST_MINUTES, description="Minutes of `recent`.")]
Bin = Annotated[str, Body(embed=True, min_length=1, max_length=100, description="Where the item really went.")]
BodyPass = Annotated[int, Body(alias="pass", embed=True, ge=1, le=1_000_000, description="How often it has come by.")]


class ItemConvertor(PathConvertor):
    """The rest of a path, also where it holds a line break."""

    regex = r"[\s\S]+"


register_url_convertor("item", ItemConvertor())


def lines_router(context: GatewayContext) -> APIRouter:
    """`/v1/lines` but for pushes."""
    router = APIRouter(prefix="/v1/lines", tags=["lines"])
    archives = Questions("the home's disk")

    @router.get("", summary="All lines, by name", responses=problems(503))
    def list_lines() -> list[dict[str, Any]]:
        lines = context.lines.all(0.0)
        return [line_facts(lines[name]) for name in sorted(lines)]

    @router.get("/{line}", summary="Settings and state of a line", responses=problems(400, 404, 503))
    def show_line(line: LineName) -> dict[str, Any]:
        found, store = _open(context, line)
        return line_facts(found) | status_facts(read_status(store, found))

    @router.get("/{line}/stats", summary="What became of pushes", responses=problems(400, 404, 503))
    def show_stats(line: LineName, minutes: Minutes = 10) -> dict[str, Any]:
        _, store = _open(context, line)
        recent, whole = read_stats(store, minutes), read_stats(store)
        return {"line": line, "recent": stats_facts(recent), "whole": stats_facts(whole)}

    @router.get(
        "/{line}/items/{item:item}", summary="The answer of an item",
        responses={200: ANSWER, 202: WAITING, **problems(400, 404, 503)},
    )  # fmt: skip
    async def look_up_item(line: LineName, item: Item, pass_: Pass = 1) -> Response:
        checked = _checked(item)
        ask = partial(archives.ask, (line, checked, pass_), lambda: find_item(context, line, checked, pass_))
        answer, waits = await ask()
        if answer is None and not waits:  # that may be the answer of one who asked before the item was pushed
            answer, waits = await ask()
        if answer is not None:
            return JSONResponse(answer_facts(answer))
        if waits:
            response = accepted(line, item, pass_)
            response.headers["retry-after"] = WAITING_RETRY_S
            return response
        raise NotFoundError(
            f"line {line!r} has no answer for item {item!r:.80}, pass {pass_}: not pushed, or forgotten"
        )

    @router.post(
        "/{line}/discharged", summary="Report where an item really went", status_code=202,
        responses=problems(400, 404, 503),
    )  # fmt: skip
    def report_discharged(
        line: LineName,
        item: Annotated[str, Body(embed=True)],
        bin_: Annotated[Bin, Body(alias="bin")],
        pass_: BodyPass = 1,
    ) -> dict[str, str]:
        """Answers when the server has the report."""
        _, store = _open(context, line)
        store.discharge(request_key(_checked(item), pass_), bin_)
        return {"status": "reported"}

    return router


def find_item(context: GatewayContext, line: str, item: str, pass_: int) -> tuple[Answer | None, bool]:
    """The answer of an item, and whether it still waits for one. Raises NotFoundError for an unknown line."""
    _, store = _open(context, line)
    key = request_key(item, pass_)
    archive = AnswerArchive(answers_folder(context.registry().folder(line)))
    answer = look_up(store, archive, key)
    if answer is not None:
        return answer, False
    return None, bool(store.client.exists(store.key(f"r:{key}")))


def _open(context: GatewayContext, name: str) -> tuple[Line, LineStore]:
    line = context.lines.get(name)
    return line, context.registry().store(line)


def _checked(item: str) -> str:
    try:
        return check_item(item)
    except ValueError as err:
        raise invalid(str(err)) from err
