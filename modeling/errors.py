"""The exceptions of modeling.

ModelingError (a ValueError)   an operator's mistake: one line that says what failed, the value, and what to do
├── DataError                  training data that cannot be used
├── ArchitectureError          an unknown architecture, or one that does not support the data or the weights
├── ModelNameError             a model name or reference that is not well-formed
├── ModelFormatError           a model folder that is damaged
│   └── UnknownFormatError     a model folder that another version has written
├── ModelNotFoundError         no model of that name or version
└── ModelInUseError            a model that an alias or a job still uses
ImageError                     an image that cannot be read; becomes the error of its row, never ends a job

`trouble_of` tells errors of the system that say nothing about an image or a model: one table for reading and writing,
for models, jobs and trainings. `takes_no_writes` tells those of a disk that is full or read-only.
"""

import errno
import re
from typing import Literal


class ModelingError(ValueError):
    """An operator's mistake, described in one line."""


class DataError(ModelingError):
    """Training data that cannot be used."""


class ArchitectureError(ModelingError):
    """An unknown architecture, or one that does not support the data or the weights."""


class ModelNameError(ModelingError):
    """A model name or reference that is not well-formed."""


class ModelFormatError(ModelingError):
    """A model folder that is damaged or incomplete."""


class UnknownFormatError(ModelFormatError):
    """A model folder in a format of another version of pigeonhole."""


class ModelNotFoundError(ModelingError):
    """No published model of that name or version."""


class ModelInUseError(ModelingError):
    """A model that an alias or a job still uses."""


class ImageError(Exception):
    """One image cannot be read.

    `code` is a short, stable identifier (`empty`, `truncated`, `not_an_image`, `too_large`, `too_slow`,
    `unsupported`, `corrupt`, `unreadable`); `message` is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def reason_of(err: Exception) -> str:
    """What a library raised, on one line, for a log, a message or a stored choice."""
    return f"{type(err).__name__}: {' '.join(str(err).split())}"[:300]


# Whose trouble an error of the system is

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

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})  # space may come
_NO_WRITES = DISK_FULL | {errno.EROFS}

# What libraries say that keep no errno: Python's threads, torch, OpenVINO, safetensors.
_WORKER_TEXT = re.compile(
    rf"can't start new thread|Too many open files|Cannot allocate memory|can't allocate memory|bad_alloc"
    rf"|\(os error (?:{'|'.join(str(number) for number in _WORKER)})\)"
)


def names_worker_trouble(text: str) -> bool:
    """Whether a text, such as a traceback, says that a process lacked files, memory or threads."""
    return _WORKER_TEXT.search(text) is not None


def is_out_of_memory(err: Exception) -> bool:
    """Whether memory ran out, of the machine or of a GPU, in Python, torch or native code; torch is not imported.

    That of a GPU is no trouble of the worker: what needs it may be too large for it, and not only for this moment.
    """
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":
        return True
    if isinstance(err, RuntimeError) and "out of memory" in str(err):
        return True
    return trouble_of(err) == "worker" and "alloc" in str(err)  # "can't allocate memory", "bad_alloc"


def takes_no_writes(err: BaseException) -> bool:
    """Whether an error says that a disk takes no writes now: it is full, a quota is used up, or it is read-only."""
    return isinstance(err, OSError) and err.errno in _NO_WRITES


def trouble_of(err: BaseException | None) -> Trouble | None:
    """Whose trouble an exception is, by itself or by what caused it; None for any other exception."""
    while err is not None:
        if isinstance(err, MemoryError) or (
            not isinstance(err, OSError | ValueError) and names_worker_trouble(str(err))
        ):
            return "worker"
        if isinstance(err, OSError) and err.errno in TROUBLE_OF_ERRNO:
            return TROUBLE_OF_ERRNO[err.errno]
        err = err.__cause__ or (None if err.__suppress_context__ else err.__context__)
    return None
