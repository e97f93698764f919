"""A process that submits one job for a gateway: `python -m orchestrator.gateway.jobs.submitter`.

Checking a source opens files of strangers, chooses a network and may import torch, and listing takes as long as the
source is large: neither belongs into the process that answers pushes. The order comes by standard input; one line of
standard output tells the job or the error. After that the process goes on until all images are listed, also when the
gateway is stopped or killed, unless whatever runs the gateway kills its other processes, too: a container does.
"""

import contextlib
import os
import sys
import tempfile
from typing import Any

import redis
from pydantic import BaseModel, ConfigDict

from modeling import errors as modeling_errors
from modeling.errors import ModelingError
from orchestrator.contract import errors as contract_errors
from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import PigeonholeError, UnavailableError
from orchestrator.contract.settings import Settings
from orchestrator.contract.streams import discard, prepare_process
from orchestrator.gateway.jobs.bodies import JobBody
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.roots import Roots
from orchestrator.jobs.submit import JobClient, Submission

KNOWN_ERRORS: dict[str, type[Exception]] = {
    name: kind
    for module in (modeling_errors, contract_errors)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, PigeonholeError | ModelingError)
}
"""The errors that are reported by name, so that the gateway can raise them again."""


class Order(BaseModel):
    """A job to submit, and where."""

    model_config = ConfigDict(frozen=True)

    settings: dict[str, Any]
    roots: tuple[str, ...]
    key: str | None
    body: JobBody

    @classmethod
    def of(cls, settings: Settings, roots: Roots, key: str | None, body: JobBody) -> "Order":
        facts = settings.model_dump(mode="json", exclude={"server_url"})
        url = settings.server_url.get_secret_value() if settings.server_url is not None else None
        return cls(settings=facts | {"server_url": url}, roots=roots.folders, key=key, body=body)


class Report(BaseModel):
    """What became of an order: a job, or an error by its name in `KNOWN_ERRORS`."""

    job: str | None = None
    existed: bool = False
    error: str | None = None
    message: str = ""

    def submission(self) -> Submission:
        """Raises the error where there is one."""
        if self.error is not None:
            raise KNOWN_ERRORS[self.error](self.message)
        assert self.job is not None
        return Submission(self.job, existed=self.existed)


def main() -> int:
    """Submit; returns the exit code."""
    prepare_process()
    order = Order.model_validate_json(sys.stdin.buffer.read())
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)  # a name without a folder, such as that of weights, must not be found where the gateway stands
        try:
            submission = _submit(order)
        except Exception as err:
            report = _describe(err)
            if report is None:
                raise
            _tell(report)
            return 1
        _tell(Report(job=submission.job, existed=submission.existed))
    return 0


def _submit(order: Order) -> Submission:
    settings = Settings(**order.settings)
    client = JobClient(settings)
    spec = order.body.spec(Roots(order.roots), order.key)
    return client.submit(prepare(settings, spec), on_entered=lambda job: _tell(Report(job=job)))


_told: list[Report] = []


def _tell(report: Report) -> None:
    """Write the report, unless one was written: the listing of a job that the gateway knows may fail, too."""
    if _told:
        return
    _told.append(report)
    with contextlib.suppress(BrokenPipeError):  # the gateway is gone: the job remains
        sys.stdout.write(report.model_dump_json() + "\n")
        sys.stdout.flush()
    discard(sys.stdout.fileno())


def _describe(err: Exception) -> Report | None:
    """The report of an error; None for a bug."""
    for kind in type(err).__mro__:
        if KNOWN_ERRORS.get(kind.__name__) is kind:
            return Report(error=kind.__name__, message=str(err))
    if isinstance(err, redis.RedisError):
        return Report(error=UnavailableError.__name__, message=f"the server does not answer: {err}")
    text = explain_os_error(err) if isinstance(err, OSError) else None
    return None if text is None else Report(error=PigeonholeError.__name__, message=text)


if __name__ == "__main__":
    sys.exit(main())
