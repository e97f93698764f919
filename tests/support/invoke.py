"""Runs `pigeonhole` in the test's process."""

import io

from click.testing import CliRunner, Result

from orchestrator.cli import main
from orchestrator.contract.settings import get_settings


def invoke(*arguments: object, given: bytes | None = None) -> Result:
    """Run a command with the settings of this moment; a traceback fails the test. given: its standard input."""
    get_settings.cache_clear()
    source = None if given is None else io.BytesIO(given)
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="pigeonhole", input=source)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
