"""A request for inference, as the body of a POST has it: JSON, then the bytes of binary tensors in their order."""

from dataclasses import dataclass
from typing import Any

from orchestrator.gateway.guard import bodies
from orchestrator.gateway.inference.errors import bad_request, unsupported
from orchestrator.gateway.inference.tensors import BYTES, SIZES, InputTensor, check_size
from orchestrator.gateway.problems import ProblemError

MOST_JSON_BYTES = 1 << 20  # read at once by the event loop, in some milliseconds
MOST_TEXT = 512  # bytes of an id
_MOST_INPUTS = 16
_MOST_OUTPUTS = 64
_SHARED_MEMORY = "shared memory is not supported; send tensors in the body"


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """classes: as the classification extension counts them; 0: the tensor itself."""

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """outputs: None: all, in the form that `binary` says. timeout_us, priority: 0: none was given.

    wait: a line that refuses is asked again until the deadline.
    """

    id: str
    inputs: tuple[InputTensor, ...]
    outputs: tuple[RequestedOutput, ...] | None
    binary: bool = False
    timeout_us: int = 0
    priority: int = 0
    wait: bool = False


def decode_request(body: bytes, header_length: str | None) -> InferenceRequest:
    """header_length: as the header `Inference-Header-Content-Length` has it; None: the body is JSON.

    Raises ProblemError.
    """
    length = len(body) if header_length is None else _json_length(header_length, len(body))
    value = parse_json(body[:length])
    parameters = _object(value, "parameters", "the request")
    if parameters.get("sequence_id"):
        raise unsupported("sequences are not supported: each image is answered by itself")
    binary = _boolean(parameters, "binary_data_output", "the request")
    return InferenceRequest(
        id=_id(value),
        inputs=_inputs(value, memoryview(body)[length:]),
        outputs=_outputs(value, binary=binary),
        binary=binary,
        timeout_us=_number(parameters, "timeout", "the request"),
        priority=_number(parameters, "priority", "the request"),
        wait=_boolean(parameters, "wait", "the request"),
    )


def parse_json(data: bytes) -> dict[str, Any]:
    """An object in JSON. Raises ProblemError."""
    if len(data) > MOST_JSON_BYTES:
        raise ProblemError(
            413,
            "too_large",
            f"the JSON of the request has {len(data)} bytes; send tensors as binary data, {MOST_JSON_BYTES} are read",
        )
    value = bodies.parse_json(data)
    if not isinstance(value, dict):
        raise bad_request("the request is not an object in JSON")
    return value


def _json_length(text: str, size: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise bad_request(f"Inference-Header-Content-Length {text[:40]!r} is not a number of bytes")
    if int(text) > size:
        raise bad_request(f"Inference-Header-Content-Length is {text}, but the body has {size} bytes")
    return int(text)


def _id(value: dict[str, Any]) -> str:
    name = value.get("id", "")
    if not isinstance(name, str) or not _is_text(name) or len(name.encode()) > MOST_TEXT:
        raise bad_request(f"id must be a string of at most {MOST_TEXT} bytes")
    return name


def _is_text(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _inputs(value: dict[str, Any], binary: memoryview) -> tuple[InputTensor, ...]:
    inputs, at = [], 0
    for each in _objects(value, "inputs", _MOST_INPUTS):
        name, datatype = _string(each, "name", "an input"), each.get("datatype")
        if datatype != BYTES and (not isinstance(datatype, str) or datatype not in SIZES):
            raise bad_request(
                f"input {name!r}: datatype {datatype!r} is unknown; choose one of BYTES, {', '.join(SIZES)}"
            )
        data: memoryview | list[Any]
        parameters = _object(each, "parameters", f"input {name!r}")
        _refuse_shared_memory(parameters)
        if "binary_data_size" in parameters:
            size = _number(parameters, "binary_data_size", f"input {name!r}")
            if "data" in each:
                raise bad_request(f"input {name!r} has both data and binary_data_size")
            if at + size > len(binary):
                raise bad_request(
                    f"input {name!r} has {size} bytes by binary_data_size, but {len(binary) - at} are left in the body"
                )
            data, at = binary[at : at + size], at + size
        elif isinstance(each.get("data"), list):
            data = each["data"]
        else:
            raise bad_request(f"input {name!r} has neither data, a list, nor binary_data_size")
        tensor = InputTensor(name, datatype, _shape(each, name), data)
        check_size(tensor)
        inputs.append(tensor)
    if not inputs:
        raise bad_request("the request has no inputs")
    if at != len(binary):
        raise bad_request(f"{len(binary) - at} bytes follow the binary data of the inputs")
    return tuple(inputs)


def _outputs(value: dict[str, Any], *, binary: bool) -> tuple[RequestedOutput, ...] | None:
    if not value.get("outputs"):
        return None
    outputs = []
    for each in _objects(value, "outputs", _MOST_OUTPUTS):
        name = _string(each, "name", "an output")
        parameters = _object(each, "parameters", f"output {name!r}")
        _refuse_shared_memory(parameters)
        as_bytes = _boolean(parameters, "binary_data", f"output {name!r}", default=binary)
        outputs.append(RequestedOutput(name, as_bytes, _number(parameters, "classification", f"output {name!r}")))
    return tuple(outputs)


def _shape(each: dict[str, Any], name: str) -> tuple[int, ...]:
    shape = each.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
        raise bad_request(f"input {name!r}: its shape must be a list of numbers from 0")
    return tuple(shape)


def _refuse_shared_memory(parameters: dict[str, Any]) -> None:
    if "shared_memory_region" in parameters:
        raise unsupported(_SHARED_MEMORY)


# Values of JSON, checked


def _objects(value: dict[str, Any], key: str, most: int) -> list[dict[str, Any]]:
    found = value.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise bad_request(f"{key} must be a list of objects")
    if len(found) > most:
        raise bad_request(f"{len(found)} {key} are more than {most}")
    return found


def _object(value: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    found = value.get(key, {})
    if not isinstance(found, dict):
        raise bad_request(f"{key} of {where} must be an object")
    return found


def _string(value: dict[str, Any], key: str, where: str) -> str:
    found = value.get(key)
    if not isinstance(found, str) or not found or not _is_text(found):
        raise bad_request(f"{key} of {where} must be a string")
    return found[:MOST_TEXT]


def _number(value: dict[str, Any], key: str, where: str) -> int:
    found = value.get(key, 0)
    if type(found) is not int or not 0 <= found < 1 << 64:
        raise bad_request(f"{key} of {where} must be a number from 0")
    return found


def _boolean(value: dict[str, Any], key: str, where: str, *, default: bool = False) -> bool:
    found = value.get(key, default)
    if type(found) is not bool:
        raise bad_request(f"{key} of {where} must be true or false")
    return found
