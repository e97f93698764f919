"""The core of a client: its pushes, and what is said to the server.

Safe to share between threads. After a fork the child has no threads, so it makes a client of its own.
"""

import os
import time

from orchestrator.contract.errors import ClientClosedError, UnavailableError
from orchestrator.contract.lines.answers import Answer, decode_record, request_key
from orchestrator.contract.lines.settings import check_line_name
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server_url import redact
from orchestrator.lines.exchange import Driver, Exchange
from orchestrator.lines.line_server import SERVER_FAULTS, LineServer, find_url
from orchestrator.lines.pushes import Pushes
from orchestrator.lines.request import PushRequest, check_deadline, check_item, check_pass

LOOK_UP_TIMEOUT_S = 5.0
LAST_REPORTS_S = 0.5  # how long closing waits until the server has the last reports


class Core:
    """What `LineClient` and `AsyncLineClient` share. It is driven from `start` on."""

    def __init__(
        self, line: str, url: str | None, deadline: float | None, fallback: str | None, driver: Driver
    ) -> None:
        if fallback is not None and (not isinstance(fallback, str) or not fallback):
            raise ValueError(f"fallback is the name of a bin, not {fallback!r}")
        self.server = LineServer(check_line_name(line), find_url(url))
        self.pushes = Pushes(line, check_deadline(deadline), fallback)
        self._exchange = Exchange(self.pushes, self.server, driver)
        self._look_up: tuple[str | None, LineStore] | None = None  # with the `own_url` that it is connected to
        self._pid = os.getpid()
        self._closed = False

    def start(self) -> None:
        self._exchange.start()

    def offer(self, request: PushRequest) -> None:
        """Take a push; see `LineClient.push`."""
        self.check_usable()
        self._exchange.offer(request)

    def discharged(self, item: str, pass_: int, bin_: str) -> None:
        """Report where an item really went; kept until the server has it."""
        self.check_usable()
        if not isinstance(bin_, str) or not bin_:
            raise ValueError(f"a bin is text, not {bin_!r}")
        self._exchange.discharged(check_item(item), check_pass(pass_), bin_)

    def answer(self, item: str, pass_: int) -> Answer | None:
        """The answer of an item as the server has it; what is late is answered first.

        Raises UnavailableError where no server answers.
        """
        self.check_usable()
        key = request_key(check_item(item), check_pass(pass_))
        try:
            store = self._open_look_up()
            store.sweep(1000)
            record, discharged, delivered = store.run("look_up", [key])
        except SERVER_FAULTS as err:
            raise UnavailableError(f"no server answers at {redact(self.server.url)} ({err}); try again") from err
        reported = {"discharged": discharged, "delivered": delivered}
        return (
            decode_record(record, **{name: bin_.decode() for name, bin_ in reported.items() if bin_})
            if record
            else None
        )

    def _open_look_up(self) -> LineStore:
        """The line for look-ups, on the server that it has now. Raises what redis raises."""
        if self.pushes.line is None:
            self.server.look(LOOK_UP_TIMEOUT_S)
        own_url = self.server.own_url
        if self._look_up is None or self._look_up[0] != own_url:
            self._look_up = own_url, self.server.open(LOOK_UP_TIMEOUT_S)
        return self._look_up[1]

    def close(self) -> None:
        """Wait until all pushes are decided, tell the server what it should know, and end."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        self.pushes.wait_until_empty()
        self.wait_for_reports(LAST_REPORTS_S)
        self.stop()

    def wait_for_reports(self, seconds: float) -> None:
        """Wait until the server has what it should know, if it is there, and at most so long."""
        if self._pid == os.getpid():
            self._exchange.reports.wait(time.monotonic() + seconds)

    def abandon(self) -> None:
        """Take nothing more, and do not wait: pushes are decided all the same."""
        self._closed = True
        self.stop()

    def stop(self) -> None:
        """Let everything end as soon as every push is decided; nothing is waited for.

        In a forked child there are no threads, and locks may be held for ever.
        """
        if self._pid != os.getpid():
            return
        self._exchange.stop()

    def check_usable(self) -> None:
        if self._closed:
            raise ClientClosedError("this client is closed")
        if self._pid != os.getpid():
            raise RuntimeError("this client belongs to the process that forked; make one in this process")
