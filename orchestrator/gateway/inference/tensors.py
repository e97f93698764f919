"""Tensors of the inference protocol, as JSON values and as bytes (little-endian, row-major)."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from orchestrator.gateway.inference.errors import bad_request

BYTES = "BYTES"
SIZES = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip
"""Bytes of an element; those of BYTES have a length each."""

_LENGTH = struct.Struct("<I")
_MOST_DIMENSIONS = 8
_MOST_ELEMENTS = 1 << 40


@dataclass(frozen=True, slots=True)
class InputTensor:
    """A tensor as a client sent it. data: its bytes, or the values in JSON, which may be nested."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: memoryview | list[Any]


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor that is returned. values: text of BYTES, or numbers. binary: after the JSON, else in it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[str] | Sequence[float]
    binary: bool

    def to_bytes(self) -> bytes:
        if self.datatype == BYTES:
            return pack_elements(str(value).encode() for value in self.values)
        assert self.datatype == "FP32"
        return struct.pack(f"<{len(self.values)}f", *self.values)


def num_elements(name: str, shape: Sequence[int]) -> int:
    """Raises ProblemError where it is more than any request holds."""
    if len(shape) > _MOST_DIMENSIONS:
        raise bad_request(f"input {name!r} has {len(shape)} dimensions; {_MOST_DIMENSIONS} are the most")
    count = 1
    for size in shape:
        count *= size
        if count > _MOST_ELEMENTS:
            raise bad_request(f"input {name!r} has a shape of too many elements: {list(shape)}")
    return count


def check_size(tensor: InputTensor) -> None:
    """See that the bytes of a tensor are as many as its shape says; the elements of BYTES have lengths of their own.

    Raises ProblemError.
    """
    if tensor.datatype == BYTES or not isinstance(tensor.data, memoryview):
        return
    needed = num_elements(tensor.name, tensor.shape) * SIZES[tensor.datatype]
    if len(tensor.data) != needed:
        raise bad_request(
            f"input {tensor.name!r} has {len(tensor.data)} bytes, but {needed} are needed for {tensor.datatype} "
            f"of shape {list(tensor.shape)}"
        )


def pack_elements(elements: Iterator[bytes]) -> bytes:
    """The elements of a BYTES tensor, each after its length."""
    return b"".join(chain.from_iterable((_LENGTH.pack(len(element)), element) for element in elements))


def unpack_elements(tensor: InputTensor) -> list[memoryview]:
    """The elements of a BYTES tensor. Raises ProblemError where lengths and bytes do not agree."""
    assert isinstance(tensor.data, memoryview)
    wanted = num_elements(tensor.name, tensor.shape)
    found: list[memoryview] = []
    at, size = 0, len(tensor.data)
    while at < size and len(found) < wanted:
        if at + 4 > size:
            raise bad_request(f"input {tensor.name!r} ends within the length of element {len(found)}")
        end = at + 4 + _LENGTH.unpack_from(tensor.data, at)[0]
        if end > size:
            raise bad_request(
                f"element {len(found)} of input {tensor.name!r} has {end - at - 4} bytes by its length, "
                f"but {size - at - 4} follow"
            )
        found.append(tensor.data[at + 4 : end])
        at = end
    if at < size:
        raise bad_request(f"{size - at} bytes follow the {wanted} elements of input {tensor.name!r}")
    if len(found) != wanted:
        raise bad_request(f"input {tensor.name!r} has {len(found)} elements, but its shape has {wanted}")
    return found


def flat_values(tensor: InputTensor) -> list[Any]:
    """The values of a tensor in JSON, which may be nested. Raises ProblemError where the shape has another number."""
    assert isinstance(tensor.data, list)
    values, wanted = tensor.data, num_elements(tensor.name, tensor.shape)
    for _ in range(len(tensor.shape) - 1):
        if not values or not all(type(value) is list for value in values):
            break
        values = list(chain.from_iterable(values))
    if len(values) != wanted:
        raise bad_request(f"input {tensor.name!r} has {len(values)} values, but its shape has {wanted}")
    return values
