"""All that a client and its line's server say to each other, on two connections that never block."""

import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol

import redis

from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.lines.channel import Channel
from orchestrator.contract.lines.commands import LineCommands, read_published, require_all
from orchestrator.contract.lines.settings import Line
from orchestrator.lines.admissions import NEVER, Admissions
from orchestrator.lines.connector import Connector
from orchestrator.lines.deadlines import Deadlines
from orchestrator.lines.line_server import SERVER_FAULTS, LineServer
from orchestrator.lines.pushes import Pushes
from orchestrator.lines.reports import Reports
from orchestrator.lines.request import PushRequest

logger = logging.getLogger(__name__)

TIMEOUT_S = 2.0  # of a reply
EPOCH_S = 0.1  # how often the line's epoch is compared while answers are awaited
SWEEP_S = 1.0  # how often what is late is answered; it also finds a connection that died unnoticed
IDLE_S = (0.05, 1.0)  # how long a driver sleeps at most: the shortest deadline within these, so that a push wakes none


class Driver(Protocol):
    """What waits for the connections and the time: a thread, or an event loop."""

    wake_at: float  # until then it sleeps, by the monotonic clock

    def start(self, exchange: "Exchange") -> None: ...

    def wake(self) -> None:
        """Look at the exchange now. Safe between threads."""

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function where the exchange is driven. Safe between threads."""

    def watch(self, channels: list[Channel]) -> None:
        """Wait for these connections, and for no others."""


class Exchange:
    """`offer`, `discharged`, `wake` and `stop` are safe between threads. The rest belongs to the driver."""

    def __init__(self, pushes: Pushes, server: LineServer, driver: Driver) -> None:
        client_id = secrets.token_hex(8)
        commands = LineCommands(server.name)
        self._commands = commands
        self._pushes = pushes
        self._server = server
        self._driver = driver
        self._deadlines = Deadlines(pushes, commands, client_id)
        self._admissions = Admissions(pushes, commands, client_id, self._end_now)
        self.reports = Reports(pushes, commands)
        self._connector = Connector(server, client_id, self, self._published)
        self._images: Channel | None = None
        self._control: Channel | None = None
        self._epoch: bytes | None = None
        self._next_epoch = self._next_sweep = 0.0
        self._idle_s = IDLE_S[1]
        self._stopping = False

    # For other threads

    def start(self) -> None:
        self._driver.start(self)
        self._connector.thread.start()

    def offer(self, request: PushRequest) -> None:
        """Take a push, and send it at once if none is under way."""
        first = self._pushes.add(request)
        due = request.due
        if due is not None:
            self._deadlines.add(request)
            self._idle_s = min(self._idle_s, max(IDLE_S[0], due - request.called))
        if first and not request.unsendable:
            self._admissions.put(request)
        images = self._images
        if (due is not None and due < self._driver.wake_at) or (images and images.has_unsent):
            self._driver.wake()

    def discharged(self, item: str, pass_: int, bin_: str) -> None:
        self.reports.discharged(item, pass_, bin_)
        self._driver.wake()

    def stop(self) -> None:
        """End when every push is decided."""
        self._stopping = True
        self._connector.stop()
        self._driver.wake()

    @property
    def ended(self) -> bool:
        return self._stopping and not len(self._pushes)

    @property
    def is_connected(self) -> bool:
        return self._control is not None

    # For the connector's thread

    def saw(self, line: Line) -> None:
        if line != self._pushes.line:
            self._driver.call(self._saw, line)

    def moved(self) -> None:
        self._driver.call(self._set_channels, None, None)

    def connected(self, images: Channel, control: Channel, epoch: bytes | None) -> None:
        self._driver.call(self._connected, images, control, epoch)

    def no_such_line(self, err: PigeonholeError) -> None:
        self._driver.call(self._no_such_line, err)

    def unreachable(self, err: BaseException) -> None:
        self._driver.call(self._unreachable, err)

    # For the driver

    def receive(self, channel: Channel) -> None:
        """A connection can be read."""
        try:
            channel.receive()
            self._deadlines.heard()
        except SERVER_FAULTS as err:
            self._lost(err)
        except Exception as err:  # of what somebody else wrote there
            logger.exception("line %s: cannot understand the server, connecting again", self._server.name)
            self._lost(err)

    def on_time(self) -> float:
        """Do what is due; returns when to look again, by the monotonic clock."""
        now = time.monotonic()
        if self._admissions.next_s <= now:
            self._admissions.on_time(now)
        if self._control and self._deadlines.asked_until <= now:
            self.receive(self._control)  # the answer may be there: this thread may have been late
        if self._deadlines.next_s() <= now:
            self._deadlines.on_time(now)
        if self.reports.next_s <= now:
            self.reports.on_time(now)
        return min(
            self._admissions.next_s,
            self._deadlines.next_s(),
            self.reports.next_s,
            self._keep_up(now) if self._control else NEVER,
            now + self._idle_s,
        )

    def close(self) -> None:
        """The driver ends."""
        self._set_channels(None, None)

    def _keep_up(self, now: float) -> float:
        """See that the server is there and has what it should have; returns when to do so again."""
        assert self._control is not None
        waits = min((each.waits_since or NEVER) for each in (self._images, self._control) if each)
        if now - waits > TIMEOUT_S:
            self._lost(redis.TimeoutError("the server does not answer"))
            return now
        awaited = len(self._pushes) > 0
        if awaited and now >= self._next_epoch:
            self._next_epoch = now + EPOCH_S
            self._control.send([self._commands.epoch()], self._told_epoch)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            self._control.send([self._commands.sweep(1000)], _check)
        return min(self._next_sweep, self._next_epoch if awaited else NEVER, waits + TIMEOUT_S)

    def _told_epoch(self, replies: list[Any]) -> None:
        """An emptied server has lost the pushes."""
        [epoch] = require_all(replies)
        if epoch != self._epoch:
            self._epoch = epoch
            self._admissions.push_again()

    def _published(self, message: bytes) -> None:
        self._pushes.resolve(*read_published(message))

    def _end_now(self, request: PushRequest) -> None:
        request.due = request.called
        self._deadlines.add(request)

    def _saw(self, line: Line) -> None:
        for request in self._pushes.saw(line):
            self._deadlines.add(request)

    def _connected(self, images: Channel, control: Channel, epoch: bytes | None) -> None:
        self._epoch = epoch
        self.reports.away(away=False)
        self._set_channels(images, control)

    def _set_channels(self, images: Channel | None, control: Channel | None) -> None:
        old = [each for each in (self._images, self._control) if each]
        self._images, self._control = images, control
        self._driver.watch([each for each in (images, control) if each])
        for each in old:
            each.close()
        self._deadlines.connected(control)
        self.reports.connected(control)
        self._admissions.connected(images)

    def _lost(self, err: BaseException) -> None:
        if self._control is None:
            return
        self._set_channels(None, None)
        self._connector.connect_again(err)
        self._fail_undated(err)

    def _no_such_line(self, err: PigeonholeError) -> None:
        self._pushes.fail(self._pushes.waiting(), err)

    def _unreachable(self, err: BaseException) -> None:
        if self._control is None:  # else only the line's settings could not be read
            self.reports.away(away=True)
        self._fail_undated(err)

    def _fail_undated(self, err: BaseException) -> None:
        """Nothing can be said to pushes whose deadline is not known."""
        undated = [request for request in self._pushes.waiting() if request.due is None]
        self._pushes.fail(undated, self._server.unavailable(err))


def _check(replies: list[Any]) -> None:
    require_all(replies)
