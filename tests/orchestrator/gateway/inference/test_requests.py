"""Requests of the inference protocol, from their bytes to images."""

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.images.decode import decode_image
from modeling.images.preprocessing import Preprocessing
from orchestrator.gateway.inference.compression import decompress
from orchestrator.gateway.inference.images import MOST_IMAGES, images_of
from orchestrator.gateway.inference.requests import MOST_JSON_BYTES, RequestedOutput, decode_request
from orchestrator.gateway.problems import ProblemError
from tests.support.images import grey_png

IMAGES = (b"first", b"", b"the third")


def elements(*images: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(image)) + image for image in images)


def image_input(binary: bytes, shape: list[Any], **changes: Any) -> dict[str, Any]:
    size = {"binary_data_size": len(binary)}
    return {"name": "image", "datatype": "BYTES", "shape": shape, "parameters": size} | changes


def body_of(value: dict[str, Any], binary: bytes = b"") -> tuple[bytes, str]:
    header = json.dumps(value).encode()
    return header + binary, str(len(header))


def images_in(value: dict[str, Any], binary: bytes = b"") -> list[bytes]:
    return images_of(decode_request(*body_of(value, binary)))


def refusal(value: dict[str, Any], binary: bytes = b"") -> tuple[int, str]:
    with pytest.raises(ProblemError) as caught:
        images_in(value, binary)
    return caught.value.status_code, caught.value.detail


def status_of(value: dict[str, Any], binary: bytes) -> int:
    try:
        images_in(value, binary)
    except ProblemError as err:
        return err.status_code
    return 200


def one_image(**changes: Any) -> dict[str, Any]:
    return {"inputs": [image_input(elements(b"x"), [1])]} | changes


@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_elements_of_image_are_the_images_in_their_order(shape):
    binary = elements(*IMAGES)

    assert images_in({"inputs": [image_input(binary, shape)]}, binary) == list(IMAGES)


def test_what_a_request_says_beside_its_inputs_is_read():
    value = one_image(
        id="7",
        parameters={"timeout": 250_000, "priority": 1, "wait": True, "binary_data_output": True, "my_own": 3.5},
        outputs=[
            {"name": "label"},
            {"name": "scores", "parameters": {"binary_data": False, "classification": 3}},
        ],
    )

    request = decode_request(*body_of(value, elements(b"x")))

    assert (request.id, request.timeout_us, request.priority, request.wait) == ("7", 250_000, 1, True)
    assert request.outputs == (RequestedOutput("label", True), RequestedOutput("scores", False, 3))


def test_a_request_without_outputs_wants_all():
    assert decode_request(*body_of(one_image(), elements(b"x"))).outputs is None


@pytest.mark.parametrize(
    ("shape", "num"), [([2, 4, 6, 3], 2), ([4, 6, 3], 1)], ids=["a batch", "one image without a batch"]
)
@pytest.mark.parametrize("as_json", [False, True], ids=["binary", "json"])
def test_pixels_arrive_as_they_were_sent(shape, num, as_json):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    tensor: dict[str, Any] = {"name": "pixels", "datatype": "UINT8", "shape": shape}
    binary = b"" if as_json else pixels.tobytes()
    tensor |= {"data": pixels.tolist()} if as_json else {"parameters": {"binary_data_size": len(binary)}}

    images = images_in({"inputs": [tensor]}, binary)

    as_sent = Preprocessing("RGB", 4, 6)
    assert len(images) == num
    assert np.array_equal(np.stack([decode_image(image, as_sent) for image in images]).reshape(shape), pixels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": [2]}, "has 1 elements, but its shape has 2"),
        ({"shape": [0]}, "5 bytes follow the 0 elements"),
        ({"shape": [1, 2]}, "has shape [images] or [images, 1], not [1, 2]"),
        ({"shape": []}, "not []"),
        ({"shape": [-1]}, "its shape must be a list of numbers from 0"),
        ({"shape": [1.0]}, "its shape must be"),
        ({"shape": [True]}, "its shape must be"),
        ({"shape": "1"}, "its shape must be"),
        ({"shape": [MOST_IMAGES + 1]}, f"may have {MOST_IMAGES} images"),
        ({"datatype": "FP32", "shape": [2]}, "has 5 bytes, but 8 are needed for FP32 of shape [2]"),
        ({"datatype": "INT8", "shape": [5]}, "has datatype BYTES, the bytes of image files, not INT8"),
        ({"datatype": "STRING"}, "datatype 'STRING' is unknown"),
        ({"datatype": ["BYTES"]}, "is unknown"),
        ({"name": "INPUT0"}, "give one input, 'image' or 'pixels', not 'INPUT0'"),
        ({"name": 3}, "name of an input must be a string"),
        ({"parameters": {"binary_data_size": 6}}, "has 6 bytes by binary_data_size, but 5 are left"),
        ({"parameters": {"binary_data_size": 4}}, "1 bytes follow the binary data"),
        ({"parameters": {"binary_data_size": -5}}, "binary_data_size of input 'image' must be a number from 0"),
        ({"parameters": {"binary_data_size": "5"}}, "must be a number from 0"),
        ({"parameters": []}, "parameters of input 'image' must be an object"),
        ({"parameters": {}, "data": None}, "has neither data, a list, nor binary_data_size"),
        ({"data": ["x"]}, "has both data and binary_data_size"),
    ],
)
def test_an_input_that_contradicts_itself_is_refused_with_its_values(changes, words):
    status, text = refusal({"inputs": [image_input(elements(b"x"), [1]) | changes]}, elements(b"x"))

    assert status == 400
    assert words in text


@pytest.mark.parametrize(
    ("binary", "words"),
    [
        (struct.pack("<I", 9) + b"x", "element 0 of input 'image' has 9 bytes by its length, but 1 follow"),
        (struct.pack("<I", 0xFFFFFFFF), "has 4294967295 bytes by its length"),
        (b"\x00\x00", "ends within the length of element 0"),
        (elements(b"x") + b"y", "1 bytes follow the 1 elements"),
        (b"", "has 0 elements, but its shape has 1"),
    ],
)
def test_lengths_of_elements_that_do_not_fit_the_bytes_are_refused(binary, words):
    status, text = refusal({"inputs": [image_input(binary, [1])]}, binary)

    assert (status, words in text) == (400, True), text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datatype": "FP32", "shape": [1, 1, 1, 3]}, "12 are needed"),
        ({"shape": [1, 2, 1, 1]}, "has shape [images, height, width, 3] or [height, width, 3]"),
        ({"shape": [1, 1, 1, 3]}, "has 2 bytes, but 3 are needed"),
        ({"shape": [0, 4, 4, 3], "parameters": {"binary_data_size": 0}}, "2 bytes follow"),
        ({"shape": [1 << 39, 1 << 39, 3]}, "too many elements"),
        ({"shape": [1] * 99}, "has 99 dimensions"),
        ({"parameters": {}, "data": [1, 2.5, 3], "shape": [1, 1, 1, 3]}, "2 bytes follow"),
    ],
)
def test_pixels_that_contradict_their_shape_are_refused(changes, words):
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 2], "parameters": {"binary_data_size": 2}}

    assert words in refusal({"inputs": [tensor | changes]}, b"12")[1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([1, 2.5, 3], "must be whole numbers from 0 to 255"),
        ([1, 256, 3], "must be whole numbers from 0 to 255"),
        ([1, "2", 3], "must be whole numbers from 0 to 255"),
        ([1, [2], 3], "must be whole numbers from 0 to 255"),
        ([[1, 2]], "has 2 values, but its shape has 3"),
        ([], "has 0 values"),
    ],
)
def test_pixels_in_json_are_checked(data, words):
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": data}

    assert words in refusal({"inputs": [tensor]})[1]


def test_image_files_in_json_are_refused_with_what_to_do():
    status, text = refusal({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["GIF89a"]}]})

    assert status == 400
    assert "image files are not text, so they cannot be sent as data in JSON" in text


@pytest.mark.parametrize(
    "value",
    [
        one_image(inputs=[image_input(b"", [1], parameters={"shared_memory_region": "a"})]),
        one_image(outputs=[{"name": "label", "parameters": {"shared_memory_region": "a"}}]),
        one_image(parameters={"sequence_id": 5, "sequence_start": True}),
    ],
    ids=["shared memory of an input", "shared memory of an output", "sequences"],
)
def test_extensions_that_are_not_there_are_unsupported(value):
    assert refusal(value, elements(b"x"))[0] == 501


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 3},
        {"id": "x" * 600},
        {"id": "\ud800"},
        {"inputs": []},
        {"inputs": {"name": "image"}},
        {"inputs": [3]},
        {"inputs": [image_input(b"", [0])] * 99},
        {"parameters": [1]},
        {"parameters": {"timeout": -1}},
        {"parameters": {"timeout": 1.5}},
        {"parameters": {"timeout": True}},
        {"parameters": {"priority": "high"}},
        {"parameters": {"binary_data_output": 1}},
        {"parameters": {"wait": "yes"}},
        {"outputs": ["label"]},
        {"outputs": [{"name": "scores", "parameters": {"classification": -1}}]},
        {"outputs": [{"name": "label", "parameters": {"binary_data": "no"}}]},
        {"outputs": [{}]},
    ],
)
def test_values_of_another_kind_are_refused(changes):
    assert refusal(one_image() | changes, elements(b"x"))[0] == 400


def test_two_inputs_are_refused():
    binary = elements(b"x") * 2
    inputs = [image_input(elements(b"x"), [1]), image_input(elements(b"x"), [1], name="mask")]

    assert "give one input" in refusal({"inputs": inputs}, binary)[1]


@pytest.mark.parametrize("length", ["-1", "abc", "", "1e3", "²", "99999", "9" * 40, "3"])
def test_a_length_of_the_json_that_cannot_be_is_refused(length):
    body, _ = body_of(one_image(), elements(b"x"))

    with pytest.raises(ProblemError) as caught:
        decode_request(body, length)

    assert caught.value.status_code == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"[1]", 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b'{"id":' + b"9" * 10_000 + b"}", 400),
        (b" " * (MOST_JSON_BYTES + 1), 413),
    ],
    ids=["empty", "no text", "a list", "nested lists", "nested objects", "a long number", "too large"],
)
def test_json_that_cannot_be_used_is_refused(body, status):
    with pytest.raises(ProblemError) as caught:
        decode_request(body, None)

    assert caught.value.status_code == status


def json_values() -> st.SearchStrategy[Any]:
    keys = st.sampled_from(
        ["inputs", "outputs", "name", "shape", "datatype", "parameters", "binary_data_size", "data", "id", "timeout"]
    )
    simple = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["image", "pixels", "BYTES", "UINT8"])
    )
    return st.recursive(simple, lambda each: st.lists(each, max_size=4) | st.dictionaries(keys, each, max_size=5))


@given(
    st.dictionaries(st.sampled_from(["inputs", "outputs", "parameters", "id"]), json_values()), st.binary(max_size=40)
)
def test_any_request_is_read_or_refused(value, binary):
    assert status_of(value, binary) in (200, 400, 413, 501)


@given(st.lists(st.integers(0, 5), max_size=5), st.sampled_from(["BYTES", "UINT8", "FP32"]), st.binary(max_size=100))
def test_any_tensor_is_read_or_refused(shape, datatype, binary):
    inputs = [image_input(binary, shape, name=name, datatype=datatype) for name in ("image", "pixels")]

    assert {status_of({"inputs": [tensor]}, binary) for tensor in inputs} <= {200, 400}


@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [
        ("gzip", gzip.compress(b"text", mtime=0)),
        ("deflate", zlib.compress(b"text")),
        ("", b"text"),
        ("identity", b"text"),
    ],
)
def test_a_compressed_body_is_read(encoding, compressed):
    assert decompress(compressed, encoding, 4) == b"text"


@pytest.mark.parametrize(
    ("encoding", "compressed", "status"),
    [
        ("gzip", gzip.compress(bytes(5), mtime=0), 413),
        ("deflate", zlib.compress(bytes(50_000_000)), 413),
        ("gzip", b"text", 400),
        ("deflate", gzip.compress(b"text", mtime=0), 400),
        ("gzip", gzip.compress(b"text", mtime=0)[:-3], 400),
        ("gzip", gzip.compress(b"text", mtime=0) + b"more", 400),
        ("gzip", b"", 400),
        ("br", b"text", 415),
        ("gzip, gzip", b"text", 415),
    ],
)
def test_a_body_that_cannot_be_decompressed_within_bounds_is_refused(encoding, compressed, status):
    with pytest.raises(ProblemError) as caught:
        decompress(compressed, encoding, 4)

    assert caught.value.status_code == status


def test_an_image_of_the_decoder_passes_through_unchanged():
    image = grey_png(7)

    assert images_in({"inputs": [image_input(elements(image), [1])]}, elements(image)) == [image]
