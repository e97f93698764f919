"""`pigeonhole lines` in the test's process."""

import json
from typing import Any

from click.testing import Result

from tests.support.invoke import invoke


def run(*arguments: str, code: int = 0, given: str | None = None) -> Result:
    """Run `pigeonhole lines ...`; another exit code fails the test."""
    result = invoke("lines", *arguments, given=None if given is None else given.encode())
    assert result.exit_code == code, result.stderr
    return result


def create(*more: str) -> Result:
    """A line `post` of the model `digits`, whose labels are the ten digits."""
    bins = [word for digit in range(10) for word in ("--bin", f"{digit}={digit}a,{digit}b")]
    return run("create", "post", "--model", "digits", "--fallback", "F", "--review", "R", *bins, *more)


def shown(*arguments: str) -> dict[str, Any]:
    """What a command prints with --json."""
    facts: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return facts
