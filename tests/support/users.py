"""Commands of several users of one machine: forked processes of this one, which root alone can start."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pytest

from orchestrator.contract.settings import get_settings
from tests.support.invoke import invoke

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as several users")
UNNAMED = 64_000  # users and groups of tests; no machine has given them a name


@dataclass(frozen=True)
class Ran:
    """What a command answered."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class User:
    """Somebody with a number, a group of the same number, and further groups."""

    number: int
    groups: Sequence[int] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: object) -> Ran:
        """Run `pigeonhole` as this user."""

        def ran() -> tuple[int, str, str]:
            result = invoke(*arguments)
            return result.exit_code, result.stdout, result.stderr

        return Ran(*self.does(ran))

    def ok(self, *arguments: object) -> str:
        """Standard output of a command that must succeed."""
        ran = self.run(*arguments)
        assert ran.code == 0, f"user {self.number}: {arguments}: exit {ran.code}\n{ran.err}"
        return ran.out

    def does(self, call: Callable[[], Any]) -> Any:
        """Call a function as this user, in a process of its own; what it returns goes through JSON."""
        with tempfile.TemporaryFile() as answer:
            child = os.fork()
            if child == 0:
                self._answer(call, answer.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            answer.seek(0)
            text = answer.read().decode("utf-8", "surrogateescape")
        assert code == 0, text
        return json.loads(text)

    def _answer(self, call: Callable[[], Any], answer: int) -> None:
        """Write to `answer` what the call returns, or how it failed; the process ends."""
        code = 1
        try:
            os.setgroups(list(self.groups))
            os.setgid(self.number)
            os.setuid(self.number)
            os.umask(0o022)
            os.environ.update(self.environment)
            get_settings.cache_clear()
            text = json.dumps(call())
            code = 0
        except BaseException:  # nothing may go on in a copy of the test run
            import traceback

            text = traceback.format_exc()
        try:
            os.write(answer, text.encode("utf-8", "surrogateescape"))
        finally:
            os._exit(code)


class OneProcess(User):
    """The user of the tests, in this process: it imports what other users may be unable to read."""

    def does(self, call: Callable[[], Any]) -> Any:
        umask = os.umask(0o022)
        try:
            with patch.dict(os.environ, self.environment):
                get_settings.cache_clear()
                return call()
        finally:
            os.umask(umask)
            get_settings.cache_clear()
