"""What a client tells the server afterwards: decisions that it made alone, and where items really went."""

import threading
import time
from collections import deque
from functools import partial
from typing import Any

from orchestrator.contract.lines.answers import request_key
from orchestrator.contract.lines.channel import Channel
from orchestrator.contract.lines.commands import LineCommands, require_all
from orchestrator.lines.admissions import NEVER
from orchestrator.lines.pushes import Pushes

AGAIN_S = 0.2
MOST_AT_ONCE = 100
MOST_DISCHARGES = 100_000


class Reports:
    """Kept until the server has them. `discharged` and `wait` are safe between threads; the rest belongs to one."""

    def __init__(self, pushes: Pushes, commands: LineCommands) -> None:
        self._pushes = pushes
        self._commands = commands
        self._channel: Channel | None = None
        self._discharges: deque[tuple[str, str]] = deque(maxlen=MOST_DISCHARGES)
        self._under_way = False
        self._next_s = 0.0
        self._away = False
        self._changed = threading.Condition()

    def discharged(self, item: str, pass_: int, bin_: str) -> None:
        self._discharges.append((request_key(item, pass_), bin_))

    def wait(self, until: float) -> None:
        """Wait until the server has all reports, if it is there, and at most until a time of the monotonic clock."""
        with self._changed:
            self._changed.wait_for(lambda: self._away or not self._any, max(0.0, until - time.monotonic()))

    @property
    def _any(self) -> bool:
        return bool(self._discharges or self._pushes.alone)

    @property
    def next_s(self) -> float:
        """When there is something to send, by the monotonic clock."""
        return self._next_s if self._any and self._channel and not self._under_way else NEVER

    def connected(self, channel: Channel | None) -> None:
        """There is a new connection, or none."""
        self._channel, self._under_way = channel, False

    def away(self, *, away: bool) -> None:
        """Whether connecting has failed."""
        self._away = away
        self._notify()

    def on_time(self, now: float) -> None:
        """Send some. Only what the server took is forgotten."""
        if self._channel is None or self._under_way or not self._any or now < self._next_s:
            return
        alone = [self._pushes.alone[place] for place in range(min(MOST_AT_ONCE, len(self._pushes.alone)))]
        gone = [self._discharges[place] for place in range(min(MOST_AT_ONCE, len(self._discharges)))]
        commands = [self._commands.deliver(alone)] if alone else []
        commands += [self._commands.discharge(*each) for each in gone]
        self._under_way = True
        self._channel.send(commands, partial(self._taken, self._channel, len(alone), len(gone)))

    def _taken(self, channel: Channel, num_alone: int, num_gone: int, replies: list[Any]) -> None:
        require_all(replies)
        if channel is not self._channel:
            return
        self._under_way = False
        if num_alone and replies[0] is None:  # emptied
            self._next_s = time.monotonic() + AGAIN_S
        else:
            for _ in range(num_alone):
                self._pushes.alone.popleft()
        for _ in range(num_gone):
            self._discharges.popleft()
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
