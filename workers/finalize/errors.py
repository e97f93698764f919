"""What can keep a complete result from being published."""

import contextlib
import errno
from collections.abc import Iterator

from modeling.errors import DISK_FULL, TROUBLE_OF_ERRNO
from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import PigeonholeError

_OF_THIS_MACHINE = {errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM}
TRANSIENT_ERRNOS = {*DISK_FULL, *TROUBLE_OF_ERRNO}


class PublishError(PigeonholeError):
    """The result is complete, but cannot be written to the output path."""


class TransientDiskError(Exception):
    """A disk error that may pass: the disk is full, or a remote disk is away. Trying again loses nothing."""


def may_not_write(err: PublishError) -> bool:
    """Whether this machine or user may not write there, or lacks the folder, where another may."""
    return isinstance(err.__cause__, OSError) and err.__cause__.errno in _OF_THIS_MACHINE


@contextlib.contextmanager
def publishing_to(output: str) -> Iterator[None]:
    """Raise an OSError as one of the two errors above."""
    try:
        yield
    except OSError as err:
        if err.errno in TRANSIENT_ERRNOS:
            raise TransientDiskError(f"cannot publish {output} yet: {err.strerror}") from err
        raise PublishError(f"cannot write {output}: {explain_os_error(err) or err}") from err
