"""/v1/jobs: submit, list, show, cancel and follow jobs."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from starlette.responses import JSONResponse

from orchestrator.contract.errors import MessageError, UnavailableError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import Kind
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.documented import problems
from orchestrator.gateway.jobs.bodies import JobBody
from orchestrator.gateway.jobs.events import EventStream, JobWatches
from orchestrator.gateway.jobs.looking import look_at
from orchestrator.gateway.jobs.submissions import LONGEST_S, Submissions
from orchestrator.gateway.jobs.views import CancelView, JobsView, JobView, Submitted, Unreadable
from orchestrator.gateway.threads import LONGEST_CALL_S, LONGEST_QUESTION_S, SUBMITTERS, Calls, Questions
from orchestrator.jobs.follow import show_job
from orchestrator.jobs.pages import JobIndex, JobQuery
from orchestrator.jobs.roots import Roots

MOST_SUBMITTING = 40  # requests that are answered when their job is entered

Limit = Annotated[int, Query(ge=1, le=500, description="Most entries of the page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="Submit only once, however often the request is sent with the same key.",
    ),
]
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events; each `data` is a JobProgress.", "content": {"text/event-stream": {}}},
    204: {"description": "The job has ended, and `Last-Event-ID` is that of its end."},
}
_EXISTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "It was submitted before with this key.", "model": Submitted}
}


def jobs_router(context: GatewayContext) -> APIRouter:
    """The routes of jobs, but for their results."""
    router, calls = APIRouter(prefix="/v1/jobs", tags=["jobs"]), JobCalls(context)
    router.post(
        "",
        status_code=201,
        summary="Submit a job",
        response_model=Submitted,
        responses=_EXISTED | problems(404, 409),
    )(calls.submit)
    router.get("", summary="List jobs, newest first", responses=problems())(calls.list_jobs)
    router.get("/{job}", summary="Show a job", responses=problems(404))(calls.show)
    router.post("/{job}/cancel", summary="Cancel a job", responses=problems(404))(calls.cancel)
    router.get("/{job}/events", summary="Follow a job", response_class=Response, responses=_EVENTS | problems(404))(
        calls.follow
    )
    return router


class JobCalls:
    """The calls of jobs; what blocks runs in threads."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._settings = context.settings
        self._index = JobIndex(context.settings)
        self._readers = Calls("the home's disk or the server")
        self._submitters = Calls("the disk of the source", SUBMITTERS, limit_s=LONGEST_S + LONGEST_QUESTION_S)
        roots, stopping = Roots.of(*context.options.roots), context.stopping.is_set
        self._submissions = Submissions(context.settings, roots, context.submitters, stopping)
        self._num_submitting = 0
        looks = Questions("the home's disk or the server", limit_s=LONGEST_CALL_S)  # of streams, which are bounded
        self._watches = JobWatches(lambda job: look_at(context, looks, job))

    async def submit(self, body: JobBody, key: Key = None) -> Response:
        """Answers when the job is checked and entered; the images of a large source are listed after that."""
        if self._num_submitting >= MOST_SUBMITTING:
            raise UnavailableError(f"{MOST_SUBMITTING} jobs are being submitted; try again later")
        self._num_submitting += 1
        try:
            submission = await self._submitters.run(self._submissions.submit, body, key)
        finally:
            self._num_submitting -= 1
        answer = Submitted(job=submission.job, existed=submission.existed)
        headers = {"location": f"/v1/jobs/{submission.job}"}
        return JSONResponse(answer.model_dump(), 200 if submission.existed else 201, headers)

    async def list_jobs(
        self,
        limit: Limit = 50,
        cursor: Cursor = None,
        kind: Kind | None = None,
        active: Annotated[bool, Query(description="Only jobs that have not ended.")] = False,
    ) -> JobsView:
        query = JobQuery(limit, cursor, kind, active)
        page = await self._readers.run(lambda: self._index.page(self._ledger(), query))
        view = JobsView(jobs=[], unreadable=[], next=page.cursor, server_away=page.server_away)
        view.unreadable += [Unreadable(name=job, error=error) for job, error in page.unreadable]
        for facts in page.jobs:
            try:
                view.jobs.append(JobView.of(facts))
            except MessageError as err:
                view.unreadable.append(Unreadable(name=str(facts["job"]), error=str(err)))
        return view

    async def show(self, job: str) -> JobView:
        return await self._readers.run(self._show, job)

    def _show(self, job: str) -> JobView:
        JobFolder.open(self._settings, job)
        try:
            _, facts = show_job(self._settings, self._ledger(), job)
        except SERVER_ERRORS:
            _, facts = show_job(self._settings, None, job)
        return JobView.of(facts)

    async def cancel(self, job: str) -> CancelView:
        """Finished shards stay in the job's folder; no manifest is published. Twice is as once."""
        return await self._readers.run(self._cancel, job)

    def _cancel(self, job: str) -> CancelView:
        JobFolder.open(self._settings, job)
        return CancelView.model_validate({"job": job, "state": self._context.jobs().cancel(job)})

    async def follow(
        self,
        job: str,
        last_event_id: Annotated[str | None, Header(max_length=100, description="The last event you have.")] = None,
    ) -> Response:
        """Each `progress` is the whole state of the job; `end` is the last one, and the stream ends with it."""
        return EventStream(self._watches, job, last_event_id, self._context.stopping)

    def _ledger(self) -> Ledger | None:
        """None while no server has answered: what is on the disk is shown all the same."""
        try:
            return self._context.jobs().ledger
        except UnavailableError:
            return None
