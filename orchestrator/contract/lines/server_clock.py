"""When something was done at a server, by this process's clock."""

import time
from collections.abc import Callable

ASK_AGAIN_S = 1.0  # the server's clock may be set, and both drift


class ServerClock:
    """Turns the server's times into those of the monotonic clock, never into later ones than they were.

    The reply to TIME ties both clocks. It is asked for once a second and not with each call that waits: its reply comes
    before the wait, and wakes the thread for nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_s = float("-inf")
        self._server_s = 0.0  # what the server's clock said then, or a little later

    def must_ask(self) -> bool:
        """Whether TIME is to be sent, since its last reply is too old."""
        return self._clock() - self._asked_s > ASK_AGAIN_S

    def told(self, asked_s: float, seconds: bytes, microseconds: bytes) -> None:
        """The reply to a TIME that was sent at `asked_s`."""
        self._asked_s, self._server_s = asked_s, int(seconds) + int(microseconds) / 1e6

    def when(self, now_ms: int, sent_s: float) -> float:
        """When the server's clock said `now_ms`, in a call that was sent at `sent_s` and has been answered."""
        return max(sent_s, min(self._asked_s + now_ms / 1e3 - self._server_s, self._clock()))
