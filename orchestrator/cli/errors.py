"""How errors leave a command: one line on standard error and an exit code."""

import contextlib
import sys
from collections.abc import Iterator

import click

from modeling.errors import ModelFormatError, ModelingError, ModelNotFoundError
from orchestrator.contract.errors import ExitCode, PigeonholeError


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Turn what an operator should read into one line; a bug keeps its traceback."""
    try:
        yield
    except PigeonholeError as err:
        _end(str(err), err.exit_code)
    except ModelNotFoundError as err:
        _end(str(err), ExitCode.NOT_FOUND)
    except ModelFormatError as err:
        _end(str(err), ExitCode.FAILED)
    except ModelingError as err:
        _end(str(err), ExitCode.USAGE)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as err:
        if not _is_server_error(err):
            raise
        _end(f"the server does not answer: {err}; `pigeonhole doctor` looks into it", ExitCode.UNAVAILABLE)


def _end(message: str, code: int) -> None:
    """Say it in one line and end."""
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(" ".join(message.split()), err=True)
    sys.exit(code)


def _is_server_error(err: Exception) -> bool:
    """Whether an error is the server's; redis is not imported only to ask."""
    redis = sys.modules.get("redis")
    kombu = sys.modules.get("kombu.exceptions")
    kinds = tuple(
        kind
        for kind in (getattr(redis, "RedisError", None), getattr(kombu, "OperationalError", None))
        if kind is not None
    )
    return bool(kinds) and isinstance(err, kinds)
