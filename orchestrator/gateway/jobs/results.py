"""/v1/jobs/{job}/...: what a classify job has published."""

from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Header, Query, Response

from modeling.metrics.decisions import Decision
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.documented import problems
from orchestrator.gateway.jobs.files import Conditions, FileAnswer, FileFacts
from orchestrator.gateway.jobs.routes import Cursor, Limit
from orchestrator.gateway.jobs.views import ErrorsView, RowsView, RowView
from orchestrator.gateway.threads import SCANNERS, Calls, Questions
from orchestrator.jobs.results import Published, find_published
from orchestrator.jobs.row_pages import RowQuery, RowsPage, open_manifest, read_page

MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json", "jsonl": "application/x-ndjson"}
_TEXT = {"schema": {"type": "string"}}
_BYTES: dict[str, Any] = {"text/csv": _TEXT, "application/json": {}, "application/x-ndjson": _TEXT}
_MANIFEST: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole manifest.", "content": _BYTES},
    206: {"description": "The range that was asked for.", "content": _BYTES},
    304: {"description": "The client has this version, by `If-None-Match`."},
}


def results_router(context: GatewayContext) -> APIRouter:
    """The routes of results."""
    router, calls = APIRouter(prefix="/v1/jobs/{job}", tags=["results"]), ResultCalls(context)
    file = _MANIFEST | problems(404, 416)
    router.get("/manifest", summary="Download the manifest", response_class=Response, responses=file)(calls.manifest)
    router.head("/manifest", summary="Facts of the manifest", response_class=Response, responses=file)(calls.manifest)
    router.get("/summary", summary="Counts, checksums and timings", responses=problems(404))(calls.summary)
    router.get("/rows", summary="Rows of the manifest, by page and filter", responses=problems(404))(calls.rows)
    router.get("/errors", summary="The rows that failed, and why", responses=problems(404))(calls.errors)
    return router


class ResultCalls:
    """The calls of results; what blocks runs in threads."""

    def __init__(self, context: GatewayContext) -> None:
        self._settings = context.settings
        self._readers = Calls("the disk of the results")
        self._scanners = Calls("the disk of the results", SCANNERS)
        self._files = Questions("the disk of the results")

    async def manifest(
        self,
        job: str,
        wanted: Annotated[str | None, Header(alias="Range", description="One range, such as `bytes=0-1023`.")] = None,
        if_range: Annotated[str | None, Header()] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Ranges, `ETag`, `If-None-Match` and `If-Range` work as for any file."""
        file, facts, headers = await self._readers.run(self._open, job)
        return FileAnswer(file, facts, headers, Conditions(wanted, if_range, if_none_match), self._files)

    async def summary(self, job: str) -> dict[str, Any]:
        """What stands in the summary beside the manifest."""
        return (await self._readers.run(self._published, job)).summary

    async def rows(
        self,
        job: str,
        limit: Limit = 50,
        cursor: Cursor = None,
        decision: Decision | None = None,
        label: Annotated[str | None, Query(max_length=1000, description="Only rows with this best label.")] = None,
        below: Annotated[float | None, Query(ge=0, le=1, description="Only rows with a lower best score.")] = None,
        failed: Annotated[bool | None, Query(description="Only rows that failed, or only the others.")] = None,
        error_code: Annotated[str | None, Query(max_length=100)] = None,
    ) -> RowsView:
        query = RowQuery(limit, cursor, decision, label, below, failed, error_code)
        _, page = await self._scanners.run(self._page, job, query)
        return RowsView(rows=_rows(page), next=page.cursor)

    async def errors(self, job: str, limit: Limit = 50, cursor: Cursor = None) -> ErrorsView:
        found, page = await self._scanners.run(self._page, job, RowQuery(limit, cursor, failed=True))
        return ErrorsView(rows=_rows(page), next=page.cursor, error_codes=found.summary["counts"]["error_codes"])

    def _published(self, job: str) -> Published:
        """Raises NotFoundError also for what is not a job's id: `find_published` would take it for a path."""
        JobFolder.open(self._settings, job)
        return find_published(self._settings, job)

    def _page(self, job: str, query: RowQuery) -> tuple[Published, RowsPage]:
        found = self._published(job)
        return found, read_page(found, query)

    def _open(self, job: str) -> tuple[BinaryIO, FileFacts, dict[str, str]]:
        found = self._published(job)
        row_format = found.summary["manifest"]["format"]
        headers = {
            "content-type": MEDIA_TYPES[row_format],
            "content-disposition": f'attachment; filename="{job}.{row_format}"',
        }
        file, facts, version = open_manifest(found)
        return file, FileFacts.of(facts, version), headers


def _rows(page: RowsPage) -> list[RowView]:
    return [RowView.of(number, row) for number, row in page.rows]
