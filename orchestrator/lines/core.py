"""The core of a client: its pushes, and the threads that send them, read answers and keep deadlines.

Safe to share between threads. After a fork the child has no such threads, so it makes a client of its own.
"""

import os
import secrets
import time
from concurrent.futures import Future

from orchestrator.contract.errors import UnavailableError
from orchestrator.contract.lines.answers import Answer, decode_record, request_key
from orchestrator.contract.lines.settings import check_line_name
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server_url import redact
from orchestrator.lines.line_server import SERVER_FAULTS, LineServer, find_url
from orchestrator.lines.pushes import Pushes
from orchestrator.lines.reader import Reader
from orchestrator.lines.request import Image, PushOptions, check_deadline, check_item, check_pass, make_request
from orchestrator.lines.sender import Sender
from orchestrator.lines.timer import Timer

LOOK_UP_TIMEOUT_S = 5.0
LAST_REPORTS_S = 0.5  # how long closing waits until the server has the last reports


class Core:
    """What `LineClient` and `AsyncLineClient` share."""

    def __init__(self, line: str, url: str | None, deadline: float | None, fallback: str | None) -> None:
        if fallback is not None and (not isinstance(fallback, str) or not fallback):
            raise ValueError(f"fallback is the name of a bin, not {fallback!r}")
        self.server = LineServer(check_line_name(line), find_url(url))
        self.pushes = Pushes(line, check_deadline(deadline), fallback)
        client_id = secrets.token_hex(8)
        self._timer = Timer(self.pushes, self.server, client_id)
        self._sender = Sender(self.pushes, self.server, self._timer, client_id)
        self._reader = Reader(self.pushes, self.server, client_id)
        self._timer.on_alone = self._sender.wake
        self._look_up: LineStore | None = None
        self._pid = os.getpid()
        self._closed = False
        for thread in (self._timer.thread, self._sender.thread, self._reader.thread):
            thread.start()

    def submit(self, image: Image, item: str, pass_: int, options: PushOptions) -> "Future[Answer]":
        """Push an image; see `LineClient.push`."""
        self._check_usable()
        request = make_request(image, item, pass_, options)
        first = self.pushes.add(request)
        if request.due is not None:
            self._timer.add(request)
        if first and not request.unsendable:
            self._sender.put(request)
        return request.future

    def discharged(self, item: str, pass_: int, bin_: str) -> None:
        """Report where an item really went; kept until the server has it."""
        self._check_usable()
        if not isinstance(bin_, str) or not bin_:
            raise ValueError(f"a bin is text, not {bin_!r}")
        self._sender.discharged(check_item(item), check_pass(pass_), bin_)

    def answer(self, item: str, pass_: int) -> Answer | None:
        """The answer of an item as the server has it; what is late is answered first.

        Raises UnavailableError where no server answers.
        """
        self._check_usable()
        key = request_key(check_item(item), check_pass(pass_))
        try:
            if self._look_up is None:
                if self.pushes.line is None:
                    self.server.look(LOOK_UP_TIMEOUT_S)
                self._look_up = self.server.open(LOOK_UP_TIMEOUT_S)
            self._look_up.sweep(1000)
            record, discharged, delivered = self._look_up.run("look_up", [key])
        except SERVER_FAULTS as err:
            raise UnavailableError(f"no server answers at {redact(self.server.url)} ({err}); try again") from err
        reported = {"discharged": discharged, "delivered": delivered}
        return (
            decode_record(record, **{name: bin_.decode() for name, bin_ in reported.items() if bin_})
            if record
            else None
        )

    def close(self) -> None:
        """Wait until all pushes are decided, tell the server what it should know, and end."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        self.pushes.wait_until_empty()
        until = time.monotonic() + LAST_REPORTS_S
        self._sender.wait_for_reports(until)
        self.stop()

    def abandon(self) -> None:
        """Take nothing more, and do not wait: pushes are decided all the same."""
        self._closed = True
        self.stop()

    def stop(self) -> None:
        """Let the threads end as soon as every push is decided; nothing is waited for.

        In a forked child there are no threads, and locks may be held for ever.
        """
        if self._pid != os.getpid():
            return
        self._timer.stop()
        self._sender.stop()
        self._reader.stop()

    def _check_usable(self) -> None:
        if self._closed:
            raise RuntimeError("this client is closed")
        if self._pid != os.getpid():
            raise RuntimeError("this client belongs to the process that forked; make one in this process")
