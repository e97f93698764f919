"""Whose trouble an error is: that of this process and its machine, that of the storage, or neither.

One table for reading and writing, for models, jobs and trainings. What is in it says nothing about an image: an image
gets an error row only if others can be read at the same time.
"""

import errno
import re
from typing import Literal

Trouble = Literal["worker", "storage"]

_WORKER = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_STORAGE = (
    errno.EIO, errno.EREMOTEIO, errno.ENODEV, errno.ENOMEDIUM,  # a disk that fails or was taken out
    errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.ETXTBSY,  # a file server that restarts, or locks
    errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED,  # a mount without one
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET,
    errno.ENOLINK, errno.ECOMM, errno.EPROTO,
    errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED, errno.EKEYREJECTED,  # a ticket for the file server ran out
)  # fmt: skip
TROUBLE_OF_ERRNO: dict[int, Trouble] = {
    **dict.fromkeys(_STORAGE, "storage"),
    **dict.fromkeys(_WORKER, "worker"),
}

# What libraries say that keep no errno: Python's threads, torch, OpenVINO, safetensors.
_WORKER_TEXT = re.compile(
    rf"can't start new thread|Too many open files|Cannot allocate memory|can't allocate memory|bad_alloc"
    rf"|\(os error (?:{'|'.join(str(number) for number in _WORKER)})\)"
)


def trouble_of(err: BaseException | None) -> Trouble | None:
    """Whose trouble an exception is, by itself or by what caused it; None for any other exception."""
    while err is not None:
        if isinstance(err, MemoryError) or (
            not isinstance(err, OSError | ValueError) and _WORKER_TEXT.search(str(err))
        ):
            return "worker"
        if isinstance(err, OSError) and err.errno in TROUBLE_OF_ERRNO:
            return TROUBLE_OF_ERRNO[err.errno]
        err = err.__cause__ or (None if err.__suppress_context__ else err.__context__)
    return None
