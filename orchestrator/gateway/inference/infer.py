"""Inference: a request's images are pushed to a line, and their answers returned as tensors."""

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import MutableMapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from modeling.errors import ModelingError
from orchestrator.contract.errors import PushRefusedError, UnavailableError
from orchestrator.contract.lines.answers import Answer
from orchestrator.gateway.guard.bodies import HELD, read_body
from orchestrator.gateway.guard.guard import BEGAN
from orchestrator.gateway.inference.compression import decompress
from orchestrator.gateway.inference.images import images_of
from orchestrator.gateway.inference.outputs import Labels, chosen_outputs, tensor_of
from orchestrator.gateway.inference.requests import InferenceRequest, RequestedOutput, decode_request
from orchestrator.gateway.inference.responses import InferenceResponse
from orchestrator.gateway.inference.targets import InferenceTarget, Targets
from orchestrator.gateway.problems import retry_later
from orchestrator.gateway.threads import Questions
from orchestrator.gateway.waiters import Waiters
from orchestrator.lines.client import AT_ONCE_BYTES, LineClient
from orchestrator.lines.request import PushOptions

MOST_BODY_BYTES = 128 << 20
_OF_THE_IMAGE = ("unreadable", "crashed")  # reasons that lie in the image, not in the server
_LEAST_S = 0.02  # what is left of a deadline and still of use
_MOST_PASSES = 10
_RETRY_S = 1.0
_WHY_NOT = {
    "late": "not predicted by the deadline",
    "no_worker": "no worker has opened the model; look at `pigeonhole workers list`",
    "busy": "refused: more is asked for than the workers can do",
    "paused": "its line is paused",
    "no_server": "the server did not answer",
}


@dataclass(frozen=True, slots=True)
class Push:
    """How images are pushed. target: as it is called. began: when the request came, by perf_counter: the deadline
    counts from then. wait: whether a line that refuses is asked again.
    """

    target: str
    waiters: Waiters
    scope: MutableMapping[str, Any]
    began: float
    deadline_s: float | None
    wait: bool
    pass_: int = 1


class Inference:
    """Answers POST requests for inference."""

    def __init__(self, targets: Targets, waiters: Waiters, disk: Questions) -> None:
        """disk: asks for targets, which are on the home's disk."""
        self._targets = targets
        self._waiters = waiters
        self._disk = disk
        self._decompressing = asyncio.Lock()

    async def __call__(self, request: Request) -> Response:
        names = request.path_params
        name, version = names["model"], names.get("version", "")
        target = self._targets.known(name, version) or await self._find(name, version)
        body = await self._read(request)
        length = request.headers.get("inference-header-content-length")
        if len(body) <= AT_ONCE_BYTES:
            asked, images, items = _parse(body, length)
        else:
            asked, images, items = await asyncio.to_thread(_parse, body, length)
        outputs = chosen_outputs(asked, target.outputs)
        client = self._targets.opened(target) or await self._open(target)
        if target.model is not None and _has_scores(outputs):
            await self._labels(target.model.ref)  # before the push: where the disk hangs, no prediction is lost
        deadline_s = target.deadline_s(asked.timeout_us, asked.priority)
        push = Push(target.name, self._waiters, request.scope, request.scope[BEGAN], deadline_s, asked.wait)
        answer = push_all if target.reference is None else push_until_predicted
        answers = await answer(client, images, items, push)
        return await self._response(target, asked, outputs, answers)

    async def _find(self, name: str, version: str) -> InferenceTarget:
        """The target; as it was found last where the disk hangs: its line may be well."""
        try:
            return await self._disk.ask(("find", name, version), lambda: self._targets.find(name, version))
        except UnavailableError:
            target = self._targets.found_last(name, version)
            if target is None:
                raise
            return target

    async def _open(self, target: InferenceTarget) -> LineClient:
        """The client of its line; the one that is there already where the disk hangs."""
        try:
            return await self._disk.ask(("open", target.line), lambda: self._targets.open(target))
        except UnavailableError:
            client = self._targets.opened_before(target)
            if client is None:
                raise
            return client

    async def _read(self, request: Request) -> bytes:
        """The body as the client meant it. One is decompressed at a time: a small body may become a huge one."""
        body = await read_body(request.scope, request.receive, MOST_BODY_BYTES)
        encoding = request.headers.get("content-encoding", "")
        if not encoding:
            return body
        async with self._decompressing:
            plain = await asyncio.to_thread(decompress, body, encoding, MOST_BODY_BYTES)
            request.scope[HELD].add(len(plain))
        return plain

    async def _response(
        self,
        target: InferenceTarget,
        asked: InferenceRequest,
        outputs: Sequence[RequestedOutput],
        answers: Sequence[Answer],
    ) -> Response:
        model = next((answer.model for answer in answers if answer.model), target.model.ref if target.model else None)
        labels = await self._labels(model) if model is not None and _has_scores(outputs) else None
        if labels is None:
            labels = Labels(tuple(dict.fromkeys(label for answer in answers for label, _ in answer.scores)))
        parameters = {"model": model} if model else {}
        if target.reference is None:
            parameters["item"] = answers[0].item
        for place, answer in enumerate(answers):
            if answer.error:
                parameters["error"] = f"image {place}: {answer.error}"
                break
        version = (model or "").partition("@")[2]
        tensors = [tensor_of(output, answers, labels) for output in outputs]
        body, length = InferenceResponse(target.name, version, asked.id, tensors, parameters).encode()
        if length is None:
            return Response(body, media_type="application/json")
        headers = {"inference-header-content-length": str(length)}
        return Response(body, headers=headers, media_type="application/octet-stream")

    async def _labels(self, model: str) -> Labels | None:
        """The labels of a version; None where it was removed. Raises UnavailableError where the disk hangs."""
        labels = self._targets.known_labels(model)
        if labels is None:
            with contextlib.suppress(ModelingError):
                return await self._disk.ask(("labels", model), lambda: self._targets.labels(model))
        return labels


def _has_scores(outputs: Sequence[RequestedOutput]) -> bool:
    """Whether labels are needed, which say what each score is of."""
    return any(output.name == "scores" for output in outputs)


def _parse(body: bytes, header_length: str | None) -> tuple[InferenceRequest, list[bytes], list[str]]:
    """The request, its images and their items."""
    asked = decode_request(body, header_length)
    images = images_of(asked)
    return asked, images, _items(asked, body, len(images))


def _items(asked: InferenceRequest, body: bytes, num: int) -> list[str]:
    """The items of a request's images. Clients use an id again and again: only the same body makes the same request."""
    item = f"{asked.id}.{hashlib.sha256(body).hexdigest()[:16]}" if asked.id else secrets.token_hex(12)
    return [item] if num == 1 else [f"{item}.{place}" for place in range(num)]


async def push_all(client: LineClient, images: Sequence[bytes], items: Sequence[str], push: Push) -> list[Answer]:
    """The answers in the images' order. Raises ProblemError where the line refuses one."""

    def submit() -> list["Future[Answer]"]:
        age_s = time.perf_counter() - push.began
        options = PushOptions(push.deadline_s, time.time() - age_s, retry=push.wait)
        return [client.submit_with(image, item, push.pass_, options) for image, item in zip(images, items, strict=True)]

    try:
        at_once = sum(map(len, images)) <= AT_ONCE_BYTES
        futures = submit() if at_once else await asyncio.to_thread(submit)
        waiting = [push.waiters.open(push.scope) for _ in futures]
        for future, waiter in zip(futures, waiting, strict=True):
            future.add_done_callback(partial(push.waiters.come, waiter))
        if len(waiting) == 1:
            return [await waiting[0]]
        await asyncio.wait(waiting)
        for err in [waiter.exception() for waiter in waiting]:  # of all: asyncio logs those that nobody looks at
            if err is not None:
                raise err
        return [waiter.result() for waiter in waiting]
    except PushRefusedError as err:
        text = f"{push.target} is {err.reason}: {_WHY_NOT[err.reason]}"
        raise retry_later(503, err.reason, text, err.retry_s) from err


async def push_until_predicted(
    client: LineClient, images: Sequence[bytes], items: Sequence[str], push: Push
) -> list[Answer]:
    """The predictions of a model, which has no fallback bin.

    A request that is sent again after it failed has the records of that failure: it is tried again as another pass.

    Raises ProblemError where an image could not be predicted in time.
    """
    assert push.deadline_s is not None
    due_s = push.began + push.deadline_s
    answers = await push_all(client, images, items, push)
    while missing := [place for place, answer in enumerate(answers) if _is_missing(answer)]:
        now_s = time.perf_counter()
        left_s = due_s - now_s
        if left_s < _LEAST_S or push.pass_ == _MOST_PASSES:
            reason = answers[missing[0]].reason or "no prediction"
            text = f"{push.target}: {reason}: {_WHY_NOT.get(reason, 'no prediction')}"
            raise retry_later(503, reason, text, _RETRY_S)
        push = replace(push, began=now_s, deadline_s=left_s, pass_=push.pass_ + 1)
        again = await push_all(client, [images[place] for place in missing], [items[place] for place in missing], push)
        for place, answer in zip(missing, again, strict=True):
            answers[place] = answer
    return answers


def _is_missing(answer: Answer) -> bool:
    return not answer.predicted and answer.reason not in _OF_THE_IMAGE
