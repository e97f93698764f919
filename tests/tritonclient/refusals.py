"""Checks what a gateway with tokens refuses to an unmodified tritonclient, and with which words and headers.

Runs in the environment `.venv-tritonclient`, without any code of ours:

    python refusals.py HOST:PORT FOLDER TOKENS

The gateway has a model `digits`, a line `too-full` whose bounds no image fits, and a line `at-rest`, which is paused.
FOLDER is that of conformance.py, TOKENS the gateway's token file. Prints one JSON object: each check with its failure,
or null.
"""

import asyncio
import contextlib
import io
import json
import re
import sys
from pathlib import Path

import tritonclient.http.aio as aio
from conformance import Checks, Client, fails, image_input, run, texts, wait_until
from tritonclient.http import InferenceServerClient

Headers = dict[str, str]
REFUSING_LINES = {"too-full": "busy", "at-rest": "paused"}


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


class GuardedClient(Client):
    """A client with the header of each role."""

    def __init__(self, url: str, folder: Path, tokens: Path) -> None:
        super().__init__(url, folder)
        roles = (line.split()[:2] for line in tokens.read_text().splitlines())
        self.roles = {role: bearer(token) for role, token in roles}


def without_a_token_or_with_a_wrong_one_all_but_health_is_401(client: GuardedClient) -> None:
    each = client.http
    assert each.is_server_live()
    for headers in (None, bearer("wrong-token-0123456789"), {"Authorization": "Basic dXNlcjpwYXNz"}):
        assert not each.is_model_ready("digits", headers=headers)
        for call in (
            lambda headers: each.get_server_metadata(headers=headers),
            lambda headers: each.get_model_metadata("digits", headers=headers),
            lambda headers: each.get_model_repository_index(headers=headers),
            lambda headers: each.get_inference_statistics("digits", headers=headers),
            lambda headers: client.infer(client.images[:1], headers=headers),
            lambda headers: each.async_infer("digits", [image_input(client.images[:1])], headers=headers).get_result(),
        ):
            with fails(401, "send a token of this gateway"):
                call(headers)


def a_token_counts_for_what_its_role_may(client: GuardedClient) -> None:
    each, view, push = client.http, client.roles["view"], client.roles["push"]
    wait_until(lambda: each.is_model_ready("digits", headers=view))
    assert each.get_server_metadata(headers=view)["name"] == "pigeonhole"
    with fails(403, "the role push"):
        client.infer(client.images[:1], headers=view)
    with fails(403, "the role push"):
        each.async_infer("digits", [image_input(client.images[:1])], headers=view).get_result()
    assert texts(client.infer(client.images[:1], headers=push), "reason") == [""]


def a_token_in_the_url_is_refused(client: GuardedClient) -> None:
    token = client.roles["push"]["Authorization"].split()[1]
    with fails(400, "never in the URL"):
        client.infer(client.images[:1], query_params={"token": token})


def a_line_that_is_busy_or_paused_is_503_and_says_when_to_come_again(client: GuardedClient) -> None:
    push, printed = client.roles["push"], io.StringIO()
    for line, reason in REFUSING_LINES.items():
        with fails(503, f"{line} is {reason}"):
            client.infer(client.images[:1], line, headers=push)
        with fails(503, f"{line} is {reason}"):
            client.infer(client.images, line, headers=push)
        with (
            contextlib.redirect_stdout(printed),  # the client shows headers of an error in no other way
            InferenceServerClient(client.url, verbose=True) as verbose,
            fails(503),
        ):
            verbose.infer(line, [image_input(client.images[:1])], headers=push)
    assert len(re.findall(r"'retry-after'[:,] '[1-9]", printed.getvalue().lower())) == 2, printed.getvalue()[-500:]


def a_line_that_refuses_is_waited_for_where_the_client_says_so(client: GuardedClient) -> None:
    for line, reason in REFUSING_LINES.items():
        result = client.infer(
            client.images[:1], line, headers=client.roles["push"], timeout=200_000, parameters={"wait": True}
        )
        assert (texts(result, "bin"), texts(result, "reason")) == (["F"], [reason])


def the_client_for_asyncio_is_refused_the_same(client: GuardedClient) -> None:
    asyncio.run(_with_asyncio(client))


async def _with_asyncio(client: GuardedClient) -> None:
    inputs = [image_input(client.images[:1], aio)]
    async with aio.InferenceServerClient(client.url) as each:
        with fails(401):
            await each.infer("digits", inputs)
        with fails(403):
            await each.infer("digits", inputs, headers=client.roles["view"])
        for line, reason in REFUSING_LINES.items():
            with fails(503, reason):
                await each.infer(line, inputs, headers=client.roles["push"])


CHECKS: Checks = {
    check.__name__: check
    for check in (
        without_a_token_or_with_a_wrong_one_all_but_health_is_401,
        a_token_counts_for_what_its_role_may,
        a_token_in_the_url_is_refused,
        a_line_that_is_busy_or_paused_is_503_and_says_when_to_come_again,
        a_line_that_refuses_is_waited_for_where_the_client_says_so,
        the_client_for_asyncio_is_refused_the_same,
    )
}

if __name__ == "__main__":
    print(json.dumps(run(CHECKS, GuardedClient(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))))
