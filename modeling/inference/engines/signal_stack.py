"""A thread's alternate stack for signals, kept as it was while a library runs.

Compiling a graph, OpenVINO 2026.4 gives the calling thread an alternate stack and frees it with the graph. Python takes
its signals on the alternate stack: the next SIGTERM or Ctrl-C would then end the process with a segmentation fault.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):  # stack_t of sigaltstack(2)
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_sigaltstack = ctypes.CDLL(None, use_errno=True).sigaltstack


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """After this block the thread has the alternate stack that it had before, or none."""
    before = _Stack()
    _sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        _sigaltstack(ctypes.byref(before), None)
