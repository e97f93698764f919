"""How errors leave a command: one line on standard error and an exit code."""

import contextlib
import errno
import re
import sys
from collections.abc import Iterator

import click
from click.exceptions import NoArgsIsHelpError

from modeling.errors import ModelFormatError, ModelingError, ModelInUseError, ModelNotFoundError
from orchestrator.cli.output import print_message
from orchestrator.contract.access import describe_access, explain_os_error
from orchestrator.contract.errors import ExitCode, PigeonholeError
from orchestrator.contract.streams import discard

_NO_RIGHT = re.compile(r"(?:Path|File|Directory) '(.+)' is not (?:readable|writable)$")  # click's own check of a path


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Print an error for the operator as one line; a bug keeps its traceback."""
    try:
        yield
    except NoArgsIsHelpError:
        raise  # click prints the help
    except KeyboardInterrupt:
        print_message("interrupted")
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as err:
        described = _describe(err)
        if described is None:
            raise
        _end(*described)


def _describe(err: Exception) -> tuple[str, int] | None:
    """The line and the exit code of an error; None for a bug."""
    if isinstance(err, click.UsageError):
        command = err.ctx.command_path if err.ctx else "pigeonhole"
        message = err.format_message().rstrip(".")
        refused = _NO_RIGHT.search(message)
        if refused:
            return f"{message}: {describe_access(refused[1])}", err.exit_code
        return f"{message} (see `{command} --help`)", err.exit_code
    if isinstance(err, PigeonholeError):
        return str(err), err.exit_code
    if isinstance(err, ModelingError):
        return str(err), _modeling_code(err)
    if _is_server_error(err):
        return f"the server does not answer: {err}; run `pigeonhole doctor`", ExitCode.UNAVAILABLE
    return _describe_system_error(err) if isinstance(err, OSError) else None


def _modeling_code(err: ModelingError) -> ExitCode:
    if isinstance(err, ModelNotFoundError):
        return ExitCode.NOT_FOUND
    return ExitCode.FAILED if isinstance(err, ModelFormatError | ModelInUseError) else ExitCode.USAGE


def _describe_system_error(err: OSError) -> tuple[str, int] | None:
    """A folder without write permission, a full disk; click handles a closed pipe."""
    if err.errno == errno.EPIPE:
        return None
    if (lost := _lost_output()) is not None:
        return f"standard output cannot be written: {lost.strerror}", ExitCode.FAILED
    described = explain_os_error(err)
    return None if described is None else (described, ExitCode.FAILED)


def _end(message: str, code: int) -> None:
    """Print the message on one line and exit."""
    with contextlib.suppress(BrokenPipeError):  # nobody reads it; the exit code tells
        print_message("error: ", color="red", bold=True, nl=False)
        print_message(" ".join(message.split()))
    sys.exit(code)


def _lost_output() -> OSError | None:
    """Why standard output could not be written, such as a full disk; what it still holds is then dropped."""
    try:
        sys.stdout.flush()
    except OSError as err:
        discard(sys.stdout.fileno())
        return err
    return None


def _is_server_error(err: Exception) -> bool:
    """Whether an error is the server's; does not import redis for it."""
    redis = sys.modules.get("redis")
    kombu = sys.modules.get("kombu.exceptions")
    kinds = tuple(
        kind
        for kind in (getattr(redis, "RedisError", None), getattr(kombu, "OperationalError", None))
        if kind is not None
    )
    return bool(kinds) and isinstance(err, kinds)
