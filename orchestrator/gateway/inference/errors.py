"""What a client of the inference protocol is told where its request fails: a status, and `{"error": text}`."""

import json


class InferenceError(Exception):
    """status: of HTTP. retry_s: when to come again, where that is known."""

    def __init__(self, status: int, message: str, *, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_s = retry_s


def bad_request(message: str) -> InferenceError:
    """The request is not as the protocol, or the model, has it."""
    return InferenceError(400, message)


def unsupported(message: str) -> InferenceError:
    """An extension of the protocol that this server does not have."""
    return InferenceError(501, message)


def error_body(message: str) -> bytes:
    """As clients of the protocol read it."""
    return json.dumps({"error": message}).encode()
