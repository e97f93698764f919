"""What reaches the gateway at all: hosts, origins, tokens and roles. Without a socket."""

import asyncio
import json

import httpx2
import pytest
from starlette.responses import Response

from orchestrator.contract.errors import UsageError
from orchestrator.gateway.guard.access_log import AccessLog
from orchestrator.gateway.guard.bodies import read_body
from orchestrator.gateway.guard.guard import Guard, GuardOptions
from orchestrator.gateway.guard.hosts import Hosts, check_host_name
from orchestrator.gateway.guard.roles import required_role
from orchestrator.gateway.guard.tokens import Role, read_tokens
from orchestrator.gateway.problems import ProblemError, problem_response
from tests.support.gateway import TOKENS, InProcessGateway, bearer, make_context, write_tokens


@pytest.fixture
def gateway(tmp_path):
    return InProcessGateway(make_context(tmp_path / "home"))


@pytest.fixture
def guarded(tmp_path):
    return InProcessGateway(make_context(tmp_path / "home", token_file=write_tokens(tmp_path)))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example", "", "a b", "[::1"])
def test_a_request_for_another_host_is_refused(gateway, host):
    answer = gateway.get("/health/live", headers={"host": host})

    assert (answer.status_code, answer.json()["type"]) == (421, "urn:pigeonhole:other_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "localhost."])
def test_a_request_for_this_machine_passes(gateway, host):
    assert gateway.get("/health/live", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/lines/post/items/caf%E9", "/health/live?label=caf%E9", "/health/live?%ff"])
def test_a_path_or_query_that_is_no_utf8_is_refused(gateway, path):
    answer = gateway.get(path)

    assert (answer.status_code, answer.json()["type"]) == (400, "urn:pigeonhole:invalid")
    assert gateway.get("/health/live/caf%EF%BF%BD?label=caf%C3%A9").status_code == 404


def test_names_are_those_of_the_machine_and_those_allowed():
    hosts = Hosts("0.0.0.0", ["sorter.example"])

    allowed = [hosts.allows(host, ("10.0.0.5", 80)) for host in (b"sorter.example", b"10.0.0.5:80", b"10.0.0.6")]

    assert allowed == [True, True, False]
    assert Hosts("127.0.0.2").allows(b"127.0.0.2:8080", None)
    assert Hosts("::").allows(b"10.0.0.5", ("::ffff:10.0.0.5", 80))


@pytest.mark.parametrize("name", ["http://sorter", "sorter:8080", "[fd00::5]:80", "a b", ""])
def test_a_name_that_no_host_header_can_have_is_an_error(name):
    with pytest.raises(UsageError, match="--allow-host"):
        check_host_name(name)

    assert [check_host_name(good) for good in ("sorter.example", "[fd00::5]")] == ["sorter.example", "fd00::5"]


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/jobs"), ("DELETE", "/v1/x"), ("GET", "/v1/jobs/x/events"), ("GET", "/v2/models/m/ready")],
)
def test_pages_of_other_sites_may_do_nothing_also_without_a_token(gateway, headers, method, path):
    answer = gateway.request(method, path, headers=headers)

    assert (answer.status_code, "pages of other sites may not do this" in answer.text) == (403, True)


@pytest.mark.parametrize(
    "headers",
    [{}, {"sec-fetch-site": "same-origin", "origin": "http://x"}, {"origin": "http://localhost:8080"}],
)
def test_programs_and_pages_of_this_gateway_pass(gateway, headers):
    assert gateway.post("/v1/nothing", headers=headers).status_code == 404


def test_without_a_token_only_health_answers(guarded):
    codes = [guarded.get(path).status_code for path in ("/health/live", "/v1/lines", "/openapi.json", "/docs")]

    assert codes == [200, 401, 401, 401]


def test_a_wrong_token_is_refused_and_shown_nowhere(guarded):
    wrong = "wrong-token-0123456789"

    answer = guarded.get("/v1/lines", headers={"authorization": f"Bearer {wrong}"})

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert wrong not in answer.text + guarded.log


@pytest.mark.parametrize("name", ["token", "access_token", "api_key", "%74oken", "x=1&Token"])
def test_a_token_in_the_url_is_refused_and_shown_nowhere(guarded, name):
    token = TOKENS["operate"]

    answer = guarded.get(f"/v1/lines?{name}={token}", headers=bearer("operate"))

    assert (answer.status_code, answer.json()["type"]) == (400, "urn:pigeonhole:token_in_url")
    assert token not in answer.text + guarded.log


def test_a_role_does_what_it_may_and_no_more(guarded):
    refused = [
        (role, method)
        for role in TOKENS
        for method, path in (("GET", "/v1/none"), ("POST", "/v1/lines/x/items"), ("POST", "/v1/jobs"))
        if guarded.request(method, path, headers=bearer(role)).status_code == 403
    ]

    assert refused == [("view", "POST"), ("view", "POST"), ("push", "POST")]


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/health/ready", None),
        ("GET", "/v2/health/live", None),
        ("POST", "/v2/repository/index", Role.VIEW),
        ("POST", "/v2/models/m/versions/1/infer", Role.PUSH),
        ("POST", "/v1/lines/x/items", Role.PUSH),
        ("PATCH", "/v1/lines/x/items", Role.OPERATE),
        ("POST", "/v1/jobs/items", Role.OPERATE),
        ("GET", "/v1/health/x", Role.VIEW),
    ],
)
def test_which_role_a_request_needs(method, path, role):
    assert required_role(method, path) == role


def test_a_header_that_counts_twice_is_refused(gateway):
    answer = gateway.get("/health/live", headers=[("host", "localhost"), ("host", "evil.example")])

    assert (answer.status_code, answer.json()["detail"]) == (400, "the header host was sent twice")


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("view short", 0o600, "16 to 512"),
        ("king 0123456789abcdef", 0o600, "ROLE TOKEN"),
        ("view 0123456789abcdef a b", 0o600, "ROLE TOKEN"),
        ("# nothing", 0o600, "no token"),
        ("view 0123456789abcdef", 0o640, "chmod 600"),
        ("view 0123456789abcdef\npush 0123456789abcdef", 0o600, "line 2: this token stands"),
    ],
)
def test_a_token_file_that_cannot_be_used_is_an_error_without_its_text(tmp_path, text, mode, says):
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(mode)

    with pytest.raises(UsageError, match=says) as caught:
        read_tokens(path)

    assert "0123456789abcdef" not in str(caught.value)


@pytest.mark.parametrize(("mode", "is_read"), [(0o440, True), (0o444, False), (0o460, False)])
def test_a_file_of_tokens_that_systemd_gives_to_the_service_may_be_read_by_the_group(
    tmp_path, monkeypatch, mode, is_read
):
    path = tmp_path / "tokens.txt"
    path.write_text("view 0123456789abcdef")
    path.chmod(mode)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    if is_read:
        assert read_tokens(path).find(b"Bearer 0123456789abcdef") is not None
    else:
        with pytest.raises(UsageError, match="can be read by others"):
            read_tokens(path)


def test_each_request_has_an_id_and_a_line_in_the_log(gateway):
    given = gateway.get("/health/live?secret=1", headers={"x-request-id": "belt-7.1"})
    made = gateway.get("/health/live", headers={"x-request-id": 'a"b'})

    lines = [json.loads(line) for line in gateway.log.splitlines()]
    assert [given.headers["x-request-id"], made.headers["x-request-id"]] == [line["id"] for line in lines]
    assert given.headers["x-request-id"] == "belt-7.1"
    assert [(line["path"], line["status"]) for line in lines] == [("/health/live", 200)] * 2


def test_the_page_of_all_calls_names_each_and_loads_nothing(gateway):
    page, schema = gateway.get("/docs"), gateway.get("/openapi.json").json()

    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert [path for path in schema["paths"] if path not in page.text] == []
    assert "<script" not in page.text
    assert "//" not in page.text.replace("/docs/gateway.md", "")


def test_every_call_is_described_with_what_it_may_answer(gateway):
    schema = gateway.get("/openapi.json").json()

    operations = [operation for methods in schema["paths"].values() for operation in methods.values()]
    assert [each for each in operations if not each.get("summary") or not each["responses"]] == []
    assert len({each["operationId"] for each in operations}) == len(operations)
    push = schema["paths"]["/v1/lines/{line}/items"]["post"]
    assert {"200", "202", "409", "429", "503"} <= set(push["responses"])
    names = {parameter["name"] for parameter in push["parameters"] if parameter["in"] == "header"}
    assert names == {"Pigeonhole-Item", "Pigeonhole-Pass", "Pigeonhole-Deadline-Ms", "Pigeonhole-Age-Ms"}
    look_up = schema["paths"]["/v1/lines/{line}/items/{item}"]["get"]
    assert look_up["responses"]["202"] == push["responses"]["202"]


def test_requests_and_bodies_that_are_too_many_are_refused_with_a_time_to_come_again():
    many = GuardOptions(Hosts("127.0.0.1"), most_requests=1)
    large = GuardOptions(Hosts("127.0.0.1"), most_held_bytes=10)

    refused, then = asyncio.run(ask_beside_another(many, b"123456", b"12345"))
    too_large, later = asyncio.run(ask_beside_another(large, b"123456", b"12345"))

    assert [answer.status_code for answer in refused] == [503, 200]  # health answers in any case
    assert (refused[0].json()["type"], refused[0].headers["retry-after"]) == ("urn:pigeonhole:overloaded", "1")
    assert (too_large[0].status_code, too_large[0].json()["type"]) == (503, "urn:pigeonhole:overloaded")
    assert (then.status_code, later.status_code) == (200, 200)


async def ask_beside_another(options, held, body):
    """The answers to a body and about health while another body is worked on, and that to the same body after it."""
    working, done = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        try:
            read = await read_body(scope, receive, 100)
            if read == held:
                working.set()
                await done.wait()
            answer = Response(read)
        except ProblemError as err:
            answer = problem_response(err, scope["path"])
        await answer(scope, receive, send)

    guard = Guard(app, options, AccessLog(None))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=guard), base_url="http://localhost") as client:
        first = asyncio.create_task(client.post("/v1/x", content=held))
        await working.wait()
        beside = [await client.post("/v1/x", content=body), await client.get("/health/live")]
        done.set()
        await first
        return beside, await client.post("/v1/x", content=body)
