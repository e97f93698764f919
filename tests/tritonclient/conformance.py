"""Checks a gateway with an unmodified tritonclient: every call of the open inference protocol, and its errors.

Runs in the environment `.venv-tritonclient`, without any code of ours:

    python conformance.py HOST:PORT FOLDER

The gateway has a model `digits` (version 1, alias `champion`, ten labels) and a line `over-http` with it. FOLDER holds
images 0.png, 1.png, ...; pixels.npy has the RGB pixels of 0.png. Prints one JSON object: each check with
its failure, or null.
"""

import asyncio
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent  # before ssl is imported
import gevent.monkey
import numpy as np
import tritonclient.http as http
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

LABELS = [str(digit) for digit in range(10)]
OUTPUTS = ["label", "score", "decision", "scores", "reason"]
EXTENSIONS = {
    "binary_tensor_data", "classification", "schedule_policy", "statistics", "model_configuration", "parameters",
}  # fmt: skip
PATIENCE_S = 60
Checks = dict[str, Callable[["Client"], None]]
CHECKS: Checks = {}
JUNK = b"\xff\xd8 this is no image"


def check(function: Callable[["Client"], None]) -> Callable[["Client"], None]:
    CHECKS[function.__name__] = function
    return function


@contextmanager
def fails(status: int, words: str = "") -> Iterator[None]:
    """The block must raise the client's exception, with this status and these words of the server."""
    raised: InferenceServerException | None = None
    try:
        yield
    except InferenceServerException as err:
        raised = err
    assert raised is not None, f"nothing failed with {status}"
    assert raised.status() == str(status), f"status {raised.status()}, not {status}: {raised.message()}"
    assert words in raised.message(), f"{words!r} is not in {raised.message()!r}"
    assert "exception occurred in the client" not in raised.message(), raised.message()


class Client:
    """A client and images. All calls of the client are made by its own methods."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.http = http.InferenceServerClient(url, concurrency=4)
        self.images = [(folder / f"{number}.png").read_bytes() for number in range(6)]
        self.pixels = np.load(folder / "pixels.npy")

    def infer(self, images: list[bytes], model: str = "digits", **options: Any) -> http.InferResult:
        return self.http.infer(model, [image_input(images)], **options)


def image_input(images: list[bytes], kind: Any = http) -> http.InferInput:
    return kind.InferInput("image", [len(images)], "BYTES").set_data_from_numpy(np.array(images, dtype=np.object_))


def pixel_input(pixels: np.ndarray, *, binary: bool = True) -> http.InferInput:
    return http.InferInput("pixels", list(pixels.shape), "UINT8").set_data_from_numpy(pixels, binary_data=binary)


def texts(result: http.InferResult, name: str) -> list[str]:
    array = result.as_numpy(name)
    return [each.decode() if isinstance(each, bytes) else each for each in array.reshape(-1)]


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# Health, metadata, index


@check
def the_server_is_live_and_ready(client: Client) -> None:
    assert client.http.is_server_live()
    wait_until(client.http.is_server_ready)


@check
def a_model_is_ready_soon_after_it_is_asked_for(client: Client) -> None:
    wait_until(lambda: client.http.is_model_ready("digits"))
    wait_until(lambda: client.http.is_model_ready("digits", "1"))
    wait_until(lambda: client.http.is_model_ready("digits@champion"))
    assert client.http.is_model_ready("over-http")
    assert not client.http.is_model_ready("no-such-model")
    assert not client.http.is_model_ready("digits", "9")


@check
def metadata_of_the_server_names_its_extensions(client: Client) -> None:
    metadata = client.http.get_server_metadata()
    assert metadata["name"] == "pigeonhole"
    assert metadata["version"]
    assert set(metadata["extensions"]) == EXTENSIONS


@check
def metadata_and_configuration_of_a_model_name_its_tensors(client: Client) -> None:
    for name, version in (("digits", ""), ("digits", "1"), ("digits@champion", ""), ("over-http", "")):
        metadata = client.http.get_model_metadata(name, version)
        outputs = OUTPUTS if name != "over-http" else [*OUTPUTS, "bin"]
        assert (metadata["name"], metadata["platform"]) == (name, "pigeonhole")
        assert metadata["versions"] == ([] if name == "over-http" else ["1"])
        assert [(each["name"], each["datatype"], each["shape"]) for each in metadata["inputs"]] == [
            ("image", "BYTES", [-1]),
            ("pixels", "UINT8", [-1, -1, -1, 3]),
        ]
        assert [each["name"] for each in metadata["outputs"]] == outputs
        assert metadata["outputs"][3] == {"name": "scores", "datatype": "FP32", "shape": [-1, 10]}
        config = client.http.get_model_config(name, version)
        assert config["max_batch_size"] > 1
        assert [each["name"] for each in config["output"]] == outputs
        assert json.loads(config["parameters"]["labels"]["string_value"]) == LABELS


@check
def the_index_of_the_repository_has_models_and_lines_with_states(client: Client) -> None:
    index = client.http.get_model_repository_index()
    assert {"name": "over-http", "version": "", "state": "READY", "reason": ""} in index
    assert {"name": "digits", "version": "1", "state": "READY", "reason": ""} in index


@check
def what_there_is_not_is_not_found(client: Client) -> None:
    image = [client.images[0]]
    for call in (
        lambda: client.http.get_model_metadata("no-such-model"),
        lambda: client.http.get_model_config("No Such/Model"),
        lambda: client.http.get_inference_statistics("no-such-model"),
        lambda: client.infer(image, "no-such-model"),
        lambda: client.infer(image, model_version="9"),
        lambda: client.infer(image, "digits@no-such-alias"),
        lambda: client.infer(image, "over-http", model_version="1"),
    ):
        with fails(404):
            call()


# Inference


@check
def one_image_is_answered_with_all_outputs_in_binary(client: Client) -> None:
    result = client.infer([client.images[0]])
    response = result.get_response()
    assert (response["model_name"], response["model_version"]) == ("digits", "1")
    assert response["parameters"]["model"] == "digits@1"
    assert [(each["name"], each["shape"]) for each in response["outputs"]] == [
        ("label", [1]), ("score", [1]), ("decision", [1]), ("scores", [1, 10]), ("reason", [1]),
    ]  # fmt: skip
    assert all("binary_data_size" in each["parameters"] for each in response["outputs"])
    scores = result.as_numpy("scores")[0]
    assert texts(result, "label") == [LABELS[int(scores.argmax())]]
    assert result.as_numpy("score")[0] == scores.max()
    assert abs(scores.sum() - 1) < 1e-4
    assert (texts(result, "decision"), texts(result, "reason")) == ([""], [""])


@check
def a_batch_is_answered_in_its_order_by_name_alias_and_version(client: Client) -> None:
    alone = [texts(client.infer([image]), "label")[0] for image in client.images]
    assert len(set(alone)) > 1
    for name, version in (("digits", ""), ("digits", "1"), ("digits@champion", ""), ("digits@1", "")):
        result = client.infer(client.images, name, model_version=version)
        assert texts(result, "label") == alone
        assert result.as_numpy("scores").shape == (len(alone), 10)


@check
def one_unreadable_image_has_its_own_reason_and_the_others_their_answers(client: Client) -> None:
    good = client.images[1]
    result = client.infer([good, JUNK, good, b""])
    label = texts(client.infer([good]), "label")[0]
    assert texts(result, "reason") == ["", "unreadable", "", "unreadable"]
    assert texts(result, "label") == [label, "", label, ""]
    assert result.as_numpy("score")[1] == 0.0
    assert "image 1: " in result.get_response()["parameters"]["error"]


@check
def outputs_come_as_they_are_asked_for(client: Client) -> None:
    wanted = [
        http.InferRequestedOutput("scores", binary_data=False),
        http.InferRequestedOutput("label", binary_data=True),
        http.InferRequestedOutput("score", binary_data=False),
    ]
    result = client.infer([client.images[0]], outputs=wanted)
    assert [each["name"] for each in result.get_response()["outputs"]] == ["scores", "label", "score"]
    assert "data" in result.get_output("scores")
    assert "data" not in result.get_output("label")
    assert texts(result, "label") == texts(client.infer([client.images[0]]), "label")
    in_json = client.infer([client.images[0]], outputs=[http.InferRequestedOutput("label", binary_data=False)])
    assert in_json.get_output("label")["data"] == texts(result, "label")


@check
def classification_names_the_best_labels(client: Client) -> None:
    images = [client.images[0], client.images[1], JUNK]
    for binary in (True, False):
        wanted = [http.InferRequestedOutput("scores", binary_data=binary, class_count=3)]
        result = client.infer(images, outputs=wanted)
        assert result.as_numpy("scores").shape == (3, 3)
        rows = [texts(result, "scores")[row * 3 : row * 3 + 3] for row in range(3)]
        assert rows[2] == ["", "", ""]
        scores = client.infer(images).as_numpy("scores")
        for row in range(2):
            best = np.argsort(-scores[row])[:3]
            assert rows[row] == [f"{scores[row][index]:.6f}:{index}:{LABELS[index]}" for index in best]
    many = client.infer([images[0]], outputs=[http.InferRequestedOutput("scores", class_count=1000)])
    assert many.as_numpy("scores").shape == (1, 10)


@check
def pixels_are_answered_as_the_image_is(client: Client) -> None:
    expected = client.infer([client.images[0]]).as_numpy("scores")
    batch = np.stack([client.pixels, client.pixels])
    for tensor in (pixel_input(client.pixels), pixel_input(batch), pixel_input(client.pixels, binary=False)):
        scores = client.http.infer("digits", [tensor]).as_numpy("scores")
        assert np.allclose(scores, expected, atol=1e-5)  # the batch may have another size


@check
def a_line_answers_as_a_model_with_bin_and_reason(client: Client) -> None:
    result = client.infer([client.images[0], JUNK], "over-http")
    label = texts(result, "label")[0]
    assert texts(result, "bin") == [f"bin-{label}", "F"]
    assert texts(result, "reason") == ["", "unreadable"]
    assert result.get_response()["model_version"] == "1"


@check
def an_id_comes_back_and_the_same_request_is_one_request(client: Client) -> None:
    def item(image: bytes, request_id: str) -> str:
        response = client.infer([image], "over-http", request_id=request_id).get_response()
        assert response["id"] == request_id
        return str(response["parameters"]["item"])

    first, again = item(client.images[0], "1"), item(client.images[0], "1")
    other_body, other_id = item(client.images[1], "1"), item(client.images[0], "2")
    assert first == again
    assert len({first, other_body, other_id}) == 3
    assert "id" not in client.infer([client.images[0]]).get_response()


@check
def compressed_requests_are_read_and_responses_come_plain(client: Client) -> None:
    expected = client.infer([client.images[0]]).as_numpy("scores")
    for algorithm in ("gzip", "deflate"):
        result = client.infer(
            [client.images[0]], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
        )
        assert np.allclose(result.as_numpy("scores"), expected, atol=1e-5)


@check
def priority_timeout_and_parameters_are_taken(client: Client) -> None:
    label = texts(client.infer([client.images[0]]), "label")
    for options in ({"priority": 1}, {"priority": 9}, {"timeout": 0}, {"timeout": 30_000_000}):
        assert texts(client.infer([client.images[0]], **options), "label") == label
    own = client.infer([client.images[0]], parameters={"camera": "north", "shift": 3, "wait": True})
    assert texts(own, "label") == label


@check
def a_deadline_that_nobody_can_keep_is_an_error_of_a_model_and_an_answer_of_a_line(client: Client) -> None:
    with fails(503):
        client.infer([client.images[0]], timeout=1)
    result = client.infer([client.images[0]], "over-http", timeout=1000, parameters={"wait": True})
    assert texts(result, "bin") == ["F"]
    assert texts(result, "reason")[0] in ("busy", "late", "no_server")


@check
def requests_run_at_the_same_time_with_gevent(client: Client) -> None:
    expected = [texts(client.infer([image]), "label") for image in client.images]
    requests = [client.http.async_infer("digits", [image_input([image])]) for image in client.images * 4]
    assert [texts(request.get_result(), "label") for request in requests] == expected * 4
    wrong = client.http.async_infer("digits", [image_input([client.images[0]])], model_version="9")
    with fails(404):
        wrong.get_result()


@check
def inference_is_counted(client: Client) -> None:
    def stats(*names: str) -> dict[str, Any]:
        return client.http.get_inference_statistics(*names)["model_stats"][0]

    wait_until(lambda: stats("digits")["execution_count"] > 0)
    found = stats("digits")
    assert (found["name"], found["version"]) == ("digits", "")
    assert found["inference_count"] > len(client.images)
    assert found["last_inference"] > 1_600_000_000_000
    assert found["inference_stats"]["success"]["ns"] > 0
    assert found["inference_stats"]["fail"]["count"] >= 3
    assert found["inference_stats"]["cache_miss"] == {"count": 0, "ns": 0}
    assert found["batch_stats"][0]["compute_infer"]["count"] > 0
    assert stats("digits", "1")["inference_count"] > 0
    every = client.http.get_inference_statistics()["model_stats"]
    expected = {("digits", ""), ("digits", "1"), ("digits", "champion"), ("over-http", "")}
    assert {(each["name"], each["version"]) for each in every} >= expected


# Errors of requests


@check
def tensors_that_do_not_fit_the_model_are_refused(client: Client) -> None:
    image = client.images[0]
    floats = http.InferInput("pixels", [1, 1, 3], "FP32").set_data_from_numpy(np.zeros([1, 1, 3], np.float32))
    grey = http.InferInput("pixels", [1, 1, 1], "UINT8").set_data_from_numpy(np.zeros([1, 1, 1], np.uint8))
    other = http.InferInput("INPUT0", [1], "BYTES").set_data_from_numpy(np.array([image], dtype=np.object_))
    text = http.InferInput("image", [1], "BYTES").set_data_from_numpy(np.array([b"text"]), binary_data=False)
    wide = http.InferInput("image", [1, 2], "BYTES").set_data_from_numpy(np.array([[image, image]], dtype=np.object_))
    none = http.InferInput("image", [0], "BYTES").set_data_from_numpy(np.array([], dtype=np.object_))
    for inputs, words in (
        ([floats], "datatype UINT8"),
        ([grey], "shape [images, height, width, 3]"),
        ([other], "'image' or 'pixels'"),
        ([image_input([image]), pixel_input(client.pixels)], "give one input"),
        ([text], "binary data"),
        ([wide], "[images, 1]"),
        ([none], "has no image"),
        ([image_input([b"x"] * 300)], "may have 256 images"),
    ):
        with fails(400, words):
            client.http.infer("digits", inputs)


@check
def bytes_that_contradict_their_sizes_are_refused(client: Client) -> None:
    short = image_input([client.images[0]])
    short._raw_data = short._raw_data[:-1]
    short._parameters["binary_data_size"] -= 1
    with fails(400, "by its length"):
        client.http.infer("digits", [short])
    lying = image_input([client.images[0]])
    lying._parameters["binary_data_size"] += 1
    with fails(400, "are left in the body"):
        client.http.infer("digits", [lying])
    few = image_input([client.images[0]]).set_shape([2])
    with fails(400, "its shape has 2"):
        client.http.infer("digits", [few])


@check
def outputs_that_there_are_not_are_refused(client: Client) -> None:
    for output, words in (
        (http.InferRequestedOutput("no-such-output"), "there are: label"),
        (http.InferRequestedOutput("bin"), "there are: label"),
        (http.InferRequestedOutput("label", class_count=2), "classification is for"),
    ):
        with fails(400, words):
            client.infer([client.images[0]], outputs=[output])


@check
def extensions_that_there_are_not_are_unsupported(client: Client) -> None:
    shared = http.InferInput("image", [1], "BYTES")
    shared.set_shared_memory("region", 100)
    output = http.InferRequestedOutput("label")
    output.set_shared_memory("region", 100)
    for call in (
        lambda: client.http.infer("digits", [shared]),
        lambda: client.infer([client.images[0]], outputs=[output]),
        lambda: client.infer([client.images[0]], sequence_id=7, sequence_start=True),
        lambda: client.http.load_model("digits"),
        lambda: client.http.unload_model("digits"),
        client.http.get_system_shared_memory_status,
        lambda: client.http.register_system_shared_memory("region", "/key", 100),
        client.http.unregister_system_shared_memory,
        client.http.get_cuda_shared_memory_status,
        lambda: client.http.register_cuda_shared_memory("region", b"handle", 0, 100),
        lambda: client.http.unregister_cuda_shared_memory("region"),
        client.http.get_trace_settings,
        lambda: client.http.get_trace_settings("digits"),
        lambda: client.http.update_trace_settings(settings={"trace_rate": "1"}),
        client.http.get_log_settings,
        lambda: client.http.update_log_settings({"log_info": True}),
    ):
        with fails(501):
            call()


@check
def bodies_beyond_all_bounds_are_refused(client: Client) -> None:
    huge = image_input([bytes(129 << 20)])
    with fails(413, "at most"):
        client.http.infer("digits", [huge])


# asyncio


@check
def the_client_for_asyncio_is_answered_the_same(client: Client) -> None:
    expected = texts(client.infer([client.images[0]]), "label")
    asyncio.run(_with_asyncio(client, expected))


async def _with_asyncio(client: Client, expected: list[str]) -> None:
    async with aio.InferenceServerClient(client.url) as each:
        assert await each.is_server_live()
        assert await each.is_server_ready()
        assert await each.is_model_ready("digits")
        assert not await each.is_model_ready("no-such-model")
        assert (await each.get_server_metadata())["name"] == "pigeonhole"
        assert (await each.get_model_metadata("digits", "1"))["versions"] == ["1"]
        assert (await each.get_model_config("digits@champion"))["max_batch_size"] > 1
        assert len(await each.get_model_repository_index()) >= 2
        assert (await each.get_inference_statistics("over-http"))["model_stats"][0]["inference_count"] > 0
        inputs = [image_input([client.images[0]], aio)]
        results = await asyncio.gather(*(each.infer("digits", inputs, request_id=f"{n}") for n in range(8)))
        assert [texts(result, "label") for result in results] == [expected] * 8
        compressed = await each.infer(
            "over-http", inputs, request_compression_algorithm="gzip", response_compression_algorithm="deflate"
        )
        assert texts(compressed, "bin") == [f"bin-{expected[0]}"]
        with fails(404):
            await each.infer("no-such-model", inputs)
        with fails(400):
            await each.infer("digits", inputs, outputs=[aio.InferRequestedOutput("no-such-output")])
        with fails(501):
            await each.load_model("digits")


def run(checks: Checks, client: Client) -> dict[str, str | None]:
    """Each check with what went wrong."""
    found = {}
    for name, function in checks.items():
        try:
            function(client)
            found[name] = None
        except Exception:
            found[name] = traceback.format_exc(limit=-3)
    return found


if __name__ == "__main__":
    assert gevent.__version__
    print(json.dumps(run(CHECKS, Client(sys.argv[1], Path(sys.argv[2])))))
