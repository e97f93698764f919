"""The errors, and the exit code of a command that ends with one.

PigeonholeError              1  the job or the command failed
├── UsageError               2  a value that cannot be used
│   ├── TakenError           2  another job has the output or the idempotency key
│   └── OutsideRootsError    2  a path that a program on the network may not name
├── NotFoundError            4  no such job, model or file
├── UnavailableError        69  no server answers, or no worker listens
├── PushRefusedError         1  a line takes no push now, and its caller does not want to wait
├── MessageError             1  a malformed message or file
│   └── OtherVersionError    1  one of another version
└── IntegrityError           1  a part or a manifest is not what its checksum says
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of commands: part of the contract of the command line."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TOO_MANY_FAILURES = 3
    NOT_FOUND = 4
    UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
    TIMED_OUT = 124  # as timeout(1) ends
    INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class PigeonholeError(Exception):
    """An error for the operator: one line that says what failed, with the value, and what to do."""

    exit_code = ExitCode.FAILED


class UsageError(PigeonholeError):
    exit_code = ExitCode.USAGE


class TakenError(UsageError):
    """Another job has the output or the idempotency key."""


class OutsideRootsError(UsageError):
    """A path below none of the folders that programs on the network may name."""


class NotFoundError(PigeonholeError):
    exit_code = ExitCode.NOT_FOUND


class UnavailableError(PigeonholeError):
    exit_code = ExitCode.UNAVAILABLE


class PushRefusedError(PigeonholeError):
    """A line refuses a push now. reason: `busy` or `paused`. retry_s: when to push again, as far as is known."""

    def __init__(self, line: str, reason: str, retry_s: float) -> None:
        super().__init__(f"line {line!r} refuses the push ({reason}); push again in {retry_s:.2g} s")
        self.reason = reason
        self.retry_s = retry_s


class ClientClosedError(RuntimeError):
    """The client of a line takes no pushes any more."""


class MessageError(PigeonholeError):
    """A malformed message or file."""


class OtherVersionError(MessageError):
    """A message or file that another version has written: whole perhaps, but not for this one to read."""


class IntegrityError(PigeonholeError):
    """A part or a manifest is not what its checksum says."""
