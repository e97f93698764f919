"""OpenVINO without what it does to a process: every import of OpenVINO goes through this module.

`import openvino` reports itself to an analytics host and keeps an id in the home folder, unless its module for that
cannot be imported. And it takes the calling thread's stack for signals away.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: the import of it fails

import openvino  # noqa: E402  # after the line above
from openvino import opset13  # noqa: E402

__all__ = ["openvino", "opset13", "signal_stack_kept"]


class _Stack(ctypes.Structure):  # stack_t of sigaltstack(2)
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_sigaltstack = ctypes.CDLL(None, use_errno=True).sigaltstack


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """After this block the thread has the alternate stack that it had before, or none.

    Compiling a graph, OpenVINO 2026.4 gives the calling thread an alternate stack for signals and frees it with the
    graph. Python takes its signals on that stack: the next SIGTERM or Ctrl-C would end the process with a segmentation
    fault.
    """
    before = _Stack()
    _sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        _sigaltstack(ctypes.byref(before), None)
