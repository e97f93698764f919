"""Ends this process if native code keeps Python's lock for too long: no thread of Python's could do that.

`faulthandler` waits in a thread of C, prints where all threads are, and ends the process. A shard that is done
carefully has this written into its journal, which shows whether a decoder hung.
"""

import contextlib
import faulthandler
import os
import threading
from collections.abc import Iterator
from typing import NoReturn

from orchestrator.contract.ledger.periodic_call import PeriodicCall

REARM_S = 2.0
WRITE_S = 5.0
HANG = b"Timeout ("  # how `faulthandler` begins; the frames of all threads follow, with an empty line between two

_STDERR = 2


class HangGuard:
    """What ends this process, and where it writes why. There is one for each process, since `faulthandler` has one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = _STDERR
        self._limit_s = 0.0  # 0: not started

    def start(self, limit_s: float) -> None:
        """End this process with code 1 once no thread of Python's has run for `limit_s`, from now on."""
        self._limit_s = limit_s
        PeriodicCall(self._rearm, min(REARM_S, limit_s / 3), "hang guard", immediately=True).start()

    @contextlib.contextmanager
    def writing_to(self, descriptor: int) -> Iterator[None]:
        """Write to an open file, not to standard error, until the block ends."""
        self._use(descriptor)
        try:
            yield
        finally:
            self._use(_STDERR)

    def end(self, code: int) -> NoReturn:
        """End this process, which has finished nothing for too long; where all threads are is written first.

        A disk that is full, or hangs, keeps it from that, not from its end.
        """
        writer = threading.Thread(target=self._write_frames, daemon=True)
        writer.start()
        writer.join(WRITE_S)
        os._exit(code)

    def _write_frames(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, HANG + b"no progress)!\n")
            faulthandler.dump_traceback(self._descriptor)

    def _use(self, descriptor: int) -> None:
        with self._lock:
            self._descriptor = descriptor
        self._rearm()

    def _rearm(self) -> None:
        with self._lock:
            if self._limit_s:
                faulthandler.dump_traceback_later(self._limit_s, exit=True, file=self._descriptor)


hang_guard = HangGuard()
