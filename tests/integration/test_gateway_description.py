"""The OpenAPI description is true: whatever is sent, the answer is one that it names, and never a 500.

Requests are made from the description, those that fit it and those that do not, with names that exist and others.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given

from orchestrator.contract.jobs.job_folder import Outcome
from orchestrator.gateway.guard.roles import required_role
from tests.support.fakes import FakeFinalizeLease, make_job, write_fake_parts
from tests.support.gateway import InProcessGateway, make_context
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.published_models import publish_model
from tests.support.server import running_server
from workers.finalize.publish import publish_manifest

if TYPE_CHECKING:  # every process that collects tests would import it for a second
    import schemathesis
    from schemathesis.python import asgi

pytestmark = [pytest.mark.integration, pytest.mark.hypothesis]  # `make fuzz` makes many more requests

BASE_URL = "http://localhost:8080"
NUM_REQUESTS = min(100, hypothesis.settings().max_examples // 16)  # of one kind to one operation
QUICK = hypothesis.settings(
    max_examples=NUM_REQUESTS,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Described:
    """A gateway, its description, and the names of what exists there. wrong: answers that the description lacks."""

    schema: "schemathesis.BaseSchema"
    client: "asgi.ASGIClient"
    names: dict[str, str]
    statuses: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def try_out(self, operation: "schemathesis.APIOperation") -> None:
        """Requests with any names, with existing ones, and with what does not fit beside these."""
        existing = {parameter.name: self.names[parameter.name] for parameter in operation.path_parameters}
        others = [*operation.query, *operation.headers, *operation.body]
        self._send(operation, "positive", None)
        if existing:
            self._send(operation, "positive", existing)
        if others:
            self._send(operation, "negative", existing or None)

    def _send(self, operation: "schemathesis.APIOperation", mode: str, existing: dict[str, Any] | None) -> None:
        from schemathesis import GenerationMode
        from schemathesis.core.failures import FailureGroup
        from schemathesis.specs.openapi import checks

        conformance = [
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_headers_conformance,
            checks.response_schema_conformance,
        ]

        @QUICK
        @given(case=operation.as_strategy(generation_mode=GenerationMode(mode), path_parameters=existing))
        def send(case: "schemathesis.Case") -> None:
            response = case.call(base_url=BASE_URL, session=self.client)
            self.statuses.add(response.status_code)
            try:
                assert response.status_code != 500
                case.validate_response(response, checks=conformance)
            except (AssertionError, FailureGroup) as err:
                self.wrong.append(f"{case.as_curl_command()}\n{response.status_code} {response.text[:500]}\n{err}")

        with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # everything fits, such as any text
            send()


@pytest.fixture(scope="module")
def described(_server_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    """A gateway with a model and its alias, a line that is served, and a job with a manifest."""
    import schemathesis
    from schemathesis.python import asgi

    folder = tmp_path_factory.mktemp("described")
    with running_server() as server:
        enter_line(server.url, make_line("post"))
        publish_model(folder / "home" / "models", "digits")
        context = make_context(folder / "home", server_url=server.url, roots=(folder,))
        gateway = InProcessGateway(context)
        gateway.request("PUT", "/v1/models/digits/aliases/champion", json={"version": 1})
        names = {"line": "post", "item": "1", "model": "digits", "name": "digits", "alias": "champion", "version": "1"}
        names["job"] = publish_job(context.settings, folder)
        schema = schemathesis.openapi.from_dict(gateway.get("/openapi.json").json())
        schema.app = gateway.app
        with line_worker(server.url, "post"), asgi.get_client(gateway.app) as client:
            yield Described(schema, client, names)
        asgi.shutdown_lifespans()


def publish_job(settings: Any, folder: Path) -> str:
    """A classify job that has ended, with rows and errors."""
    output = folder / "out.csv"
    job = make_job(settings, [f"{number}.jpg" for number in range(9)], root=folder, output=output)
    write_fake_parts(job, calibrated=True)
    publish_manifest(job, job.request(), None, FakeFinalizeLease())
    job.write_outcome(Outcome(state="partial", ended=datetime.now(UTC), num_images=9, result=str(output)))
    return job.job


def test_no_request_gets_a_500_or_an_answer_that_is_not_described(described: Described):
    for operation in described.schema.get_all_operations():
        described.try_out(operation.ok())

    assert described.wrong == []
    assert described.statuses >= {200, 202, 400, 403, 404, 422}  # the requests get somewhere


def test_every_operation_names_what_the_gateway_may_answer_before_it(described: Described):
    for path, operations in described.schema.raw_schema["paths"].items():
        for method, operation in operations.items():
            expected = {"400", "408", "421", "431", "500", "503"}
            expected |= {"401", "403"} if required_role(method.upper(), path) is not None else set()
            expected |= {"413", "415"} if method not in ("get", "head") else set()
            assert expected <= set(operation["responses"]), (method, path)
            for status, response in operation["responses"].items():
                media_types = set(response.get("content", {}))
                problem = "application/json" if path.startswith("/v2") else "application/problem+json"
                if int(status) >= 400 and not (status == "503" and path.startswith("/health/ready")):
                    assert media_types == {problem}, (method, path, status)
