"""The images of a request, as a line takes them: encoded, one for each element of `image` or each row of `pixels`."""

from orchestrator.gateway.inference.errors import bad_request
from orchestrator.gateway.inference.requests import InferenceRequest
from orchestrator.gateway.inference.tensors import BYTES, InputTensor, flat_values, num_elements, unpack_elements

IMAGE, PIXELS = "image", "pixels"
MOST_IMAGES = 256  # of one request
_MOST_SIDE = 1 << 20


def images_of(request: InferenceRequest) -> list[bytes]:
    """In the order of the batch. Raises ProblemError."""
    if len(request.inputs) != 1 or request.inputs[0].name not in (IMAGE, PIXELS):
        names = ", ".join(repr(tensor.name) for tensor in request.inputs)
        raise bad_request(f"give one input, {IMAGE!r} or {PIXELS!r}, not {names}")
    [tensor] = request.inputs
    images = _encoded(tensor) if tensor.name == IMAGE else _from_pixels(tensor)
    if not images:
        raise bad_request(f"input {tensor.name!r} has no image: its shape is {list(tensor.shape)}")
    return images


def _encoded(tensor: InputTensor) -> list[bytes]:
    """Image files, as elements of BYTES."""
    if tensor.datatype != BYTES:
        raise bad_request(f"input {IMAGE!r} has datatype BYTES, the bytes of image files, not {tensor.datatype}")
    shape = tensor.shape
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        raise bad_request(f"input {IMAGE!r} has shape [images] or [images, 1], not {list(shape)}")
    _check_number(shape[0])
    if isinstance(tensor.data, list):
        raise bad_request(
            f"input {IMAGE!r}: image files are not text, so they cannot be sent as data in JSON; send them as binary "
            "data (binary_data_size, and the header Inference-Header-Content-Length)"
        )
    return [bytes(element) for element in unpack_elements(tensor)]


def _from_pixels(tensor: InputTensor) -> list[bytes]:
    """Decoded RGB images. They travel as PPM files, which are a header and these bytes."""
    if tensor.datatype != "UINT8":
        raise bad_request(f"input {PIXELS!r} has datatype UINT8, not {tensor.datatype}")
    shape = tensor.shape if len(tensor.shape) != 3 else (1, *tensor.shape)
    if len(shape) != 4 or shape[3] != 3:
        raise bad_request(
            f"input {PIXELS!r} has shape [images, height, width, 3] or [height, width, 3], not {list(tensor.shape)}"
        )
    num, height, width, _ = shape
    _check_number(num)
    if not (1 <= height <= _MOST_SIDE and 1 <= width <= _MOST_SIDE):
        raise bad_request(f"input {PIXELS!r}: an image of {width} x {height} pixels")
    data = tensor.data if isinstance(tensor.data, memoryview) else memoryview(_bytes_of(tensor))
    header, size = b"P6 %d %d 255\n" % (width, height), num_elements(PIXELS, shape[1:])
    return [b"".join((header, data[index * size : (index + 1) * size])) for index in range(num)]


def _bytes_of(tensor: InputTensor) -> bytes:
    try:
        return bytes(flat_values(tensor))
    except (TypeError, ValueError) as err:
        raise bad_request(f"input {tensor.name!r}: its data must be whole numbers from 0 to 255") from err


def _check_number(num: int) -> None:
    if num > MOST_IMAGES:
        raise bad_request(f"a request may have {MOST_IMAGES} images, not {num}")
