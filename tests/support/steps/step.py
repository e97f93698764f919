"""A named step: a row of a table of the docs, and the call in the code that it is. Plain data, no imports of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# What the call of a step can fail with. An errno stands for an OSError, a dotted name for another exception.
ERRORS = {
    "disk": ("ENOSPC", "EIO", "EROFS", "ESTALE"),
    "source": ("EIO", "ESTALE", "EMFILE"),
    "server": ("redis.exceptions.ConnectionError",),
    "connection": ("ECONNRESET",),
    "process": ("EAGAIN", "ENOMEM", "EMFILE"),
    "memory": ("builtins.MemoryError",),
    "none": (),
}


@dataclass(frozen=True)
class Step:
    """name: `TABLE.STEP`: the short name of the table, and the one in the first column of the row.

    call: `package.module:function` or `package.module:Class.method`.
    fails: a key of ERRORS: what its call can fail with.
    inner: a function of `os`, or `sendmsg` of a socket, that is called within the call: the step is that; None: the
    call itself.
    file: pattern for the name of a file that the inner function is called with, as a path or a descriptor.
    nth: which of these calls within one call; without `inner`: which call of a process, counted while a fault is armed.
    arguments: of the call, by name: others do not count.
    role: of the process: command, parent, child, training; None: any.
    stated: pattern of the error that may end the job or the command here; None: the result is that of an undisturbed
    run, without anybody's help.
    """

    name: str
    call: str
    fails: str = "none"
    inner: str | None = None
    file: str | None = None
    nth: int = 1
    arguments: Mapping[str, object] = field(default_factory=dict)
    role: str | None = None
    stated: str | None = None

    @property
    def table(self) -> str:
        """The short name of its table."""
        return self.name.partition(".")[0]

    @property
    def errors(self) -> tuple[str, ...]:
        return ERRORS[self.fails]
