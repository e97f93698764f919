"""Bodies of jobs that are made to break a parser, and names that are made to leave a folder: refused, never a 500."""

import pytest

from tests.support.gateway import InProcessGateway, bearer, make_context, write_tokens


@pytest.fixture
def gateway(tmp_path):
    return InProcessGateway(make_context(tmp_path / "home", roots=(tmp_path,)))


CLASSIFY = b'{"kind": "classify", "source": "%s", "model": "m"}'


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"", {422}),
        (b"null", {422}),
        (b"{", {422}),
        (b"\xff\xfe", {400, 422}),
        (b"[" * 100_000, {400, 422}),
        (b'{"kind":' * 100_000, {400, 422}),
        (b'{"kind": "classify", "source": "/", "model": "m", "top_k": 1e999}', {422}),
        (b'{"kind": "classify", "source": "/", "model": "m", "top_k": NaN}', {422}),
        (b'{"kind": "classify", "source": "/", "model": "m", "top_k": ' + b"9" * 5000 + b"}", {400, 422}),
        (b'{"kind": "train", "data": ["/x"], "name": "m", "max_error": NaN}', {422}),
        (b'{"kind": "evaluate", "data": "/x", "model": "m", "\\ud800": 1}', {400, 422}),
        (CLASSIFY % b"\\ud800", {400, 422}),
        (CLASSIFY % b"\\u0000", {403}),
        (CLASSIFY % b"/etc", {403}),
        (CLASSIFY % (b"a" * 5000), {422}),
        (CLASSIFY % (b"a" * (2 << 20)), {413}),
    ],
)
def test_a_body_that_no_client_means_is_refused(gateway, body, statuses):
    answer = gateway.post("/v1/jobs", content=body, headers={"content-type": "application/json"})

    assert answer.status_code in statuses
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_compressed_body_is_refused(gateway):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}

    assert gateway.post("/v1/jobs", content=b"\x1f\x8b", headers=headers).status_code == 415


@pytest.mark.parametrize("key", ["", "a b", b"\xc3\xa9", "k" * 201, "a\tb"])
def test_a_key_is_printable_text_of_moderate_length(gateway, key):
    body = {"kind": "evaluate", "model": "m", "data": "/x"}

    assert gateway.post("/v1/jobs", json=body, headers={"idempotency-key": key}).status_code == 422


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/..", "/v1/models/%2e%2e", "/v1/models/..%2f..%2fetc", "/v1/models/a%00b", "/v1/models/m@..",
        "/v1/models/m@99999999999999999999999", "/v1/models/.engines", "/v1/models/-/aliases", "/v1/models/%ff",
        "/v1/models?cursor=x", "/v1/models?cursor=m@%D9%A1", "/v1/jobs?cursor=../x", "/v1/jobs?limit=0",
        "/v1/jobs?limit=501", "/v1/jobs?kind=x", "/v1/jobs/x/rows?below=nan", "/v1/jobs/x/rows?below=1e400",
    ],
)  # fmt: skip
def test_a_name_or_value_that_is_none_is_refused(gateway, path):
    answer = gateway.get(path)

    assert answer.status_code in (400, 404, 422), answer.text


def test_aliases_are_what_they_are_on_the_command_line(gateway):
    answers = [
        gateway.request("PUT", f"/v1/models/digits/aliases/{alias}", json={"version": 1})
        for alias in ("latest", "Champion", "2", "%2e%2e")
    ]

    assert {answer.status_code for answer in answers} <= {400, 404}


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("POST", "/v1/jobs", "operate"),
        ("POST", "/v1/jobs/c261129-000000-000000/cancel", "operate"),
        ("PUT", "/v1/models/m/aliases/a", "operate"),
        ("DELETE", "/v1/models/m/aliases/a", "operate"),
        ("GET", "/v1/jobs", "view"),
        ("GET", "/v1/jobs/c261129-000000-000000/manifest", "view"),
        ("GET", "/v1/models", "view"),
    ],
)
def test_each_call_needs_its_role(tmp_path, method, path, role):
    gateway = InProcessGateway(make_context(tmp_path / "home", token_file=write_tokens(tmp_path)))

    codes = {
        name: gateway.request(method, path, headers=bearer(name)).status_code for name in ("view", "push", "operate")
    }

    assert (codes["view"] == 403) == (codes["push"] == 403) == (role == "operate")
    assert codes["operate"] not in (401, 403)
