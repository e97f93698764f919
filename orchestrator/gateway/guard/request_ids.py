"""What requests are called in answers and in the log: by their clients, or else by the gateway."""

import itertools
import re
import secrets

HEADER = b"x-request-id"
_GIVEN = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """The names of one gateway's requests."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._prefix = secrets.token_hex(4)

    def choose(self, given: bytes | None) -> str:
        """What the client's header says, if it can be used, else a new name."""
        if given is not None and _GIVEN.fullmatch(given):
            return given.decode()
        return f"{self._prefix}-{next(self._numbers):x}"
