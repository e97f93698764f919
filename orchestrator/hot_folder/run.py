"""The loop of a hot folder: look, claim, work, and finish what others have left."""

import contextlib
import logging
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from modeling.names import path_to_text
from orchestrator.contract.ledger.periodic_call import PeriodicCall
from orchestrator.hot_folder.claims import Claim, Ending
from orchestrator.hot_folder.folders import HotFolder
from orchestrator.hot_folder.jobs import MOST_IMAGES, Jobs
from orchestrator.hot_folder.owners import HEARTBEAT_S, Owner
from orchestrator.hot_folder.pushing import Pusher
from orchestrator.hot_folder.results import bad
from orchestrator.hot_folder.watch import Ready, Watcher, snapshot_of

logger = logging.getLogger(__name__)

RECOVER_S = 2.0  # between two looks for claims that others have left
STOP_S = 10.0  # that a stop waits for answers
_SHORTEST_S = 0.02
_MOST_SAID = 100


@dataclass(frozen=True, slots=True)
class Done:
    """A file that has its result: its new place, and what its sidecar says."""

    file: Path
    facts: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether it is in `error/`."""
        return str(self.facts["file"]).startswith("error/")


@dataclass(slots=True)
class Counts:
    """Since the start."""

    done: int = 0
    failed: int = 0


class Runner:
    """Works on one hot folder until it is stopped. With a pusher, single images go to a line, else to jobs."""

    def __init__(
        self, folder: HotFolder, poll_s: float, min_bytes: int, on_done: Callable[[Done], None],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._folder = folder
        self._poll_s = poll_s
        self._on_done = on_done
        self._say = say
        self._said: set[str] = set()
        self._watcher = Watcher(folder.incoming, min_bytes)
        self._owner = Owner(folder.working)
        self._number = 0
        self._backlog: deque[Ready] = deque()
        self._left: deque[Claim] = deque()  # by others, and not begun here
        self._again: list[Claim] = []  # whose result could not be written
        self._unfinished: dict[str, Claim] = {}  # with a file that could not be moved, or moved without its sidecar
        self._in_hand: dict[str, Claim] = {}
        self._orphans: set[str] = set()  # claims whose owner had no record at the last look
        self._lock = threading.Lock()
        self._stopping = False  # a plain value: a handler of signals may take no lock
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self.counts = Counts()
        self.pusher: Pusher | None = None
        self.jobs: Jobs | None = None  # set before `run`

    def stop(self) -> None:
        """Take nothing more, and end when what is in work is done, or after a while."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Let the loop look at once; for handlers of signals and other threads."""
        self._wakes.put(None)
        if self.pusher is not None:
            self.pusher.wake()

    def ended(self, claim: Claim, name: str, ending: Ending) -> None:
        """Move a file with its result; for pusher and jobs."""
        try:
            target = claim.end(name, ending)
        except OSError:
            self._unfinished[claim.name] = claim
            raise
        if target is not None:
            facts = {"file": self._folder.shown(target)} | dict(ending.facts)
            self._count(Done(target, facts))

    def describe(self) -> str:
        """How it stands, in one line."""
        work = len(self._in_hand)
        waiting = self._watcher.num_waiting + len(self._watcher.unreadable) + len(self._backlog)
        return f"{self.counts.done} done, {self.counts.failed} in error/, {work} in work, {waiting} waiting"

    def run(self, *, once: bool = False) -> None:
        """Work until `stop`; once: until nothing is left in `in/`."""
        with PeriodicCall(self._owner.heartbeat, HEARTBEAT_S, "hot-folder-owner"):
            next_poll = next_recover = 0.0
            while not self._stopping:
                now = time.monotonic()
                if now >= next_recover:
                    self._try_to_recover()
                    next_recover = now + RECOVER_S
                if now >= next_poll:
                    self._poll()
                    next_poll = now + self._poll_s
                    if once and self._is_idle():  # right after a look: what was given back is in `in/`
                        break
                self._take()
                self._collect(min(next_poll, next_recover) - time.monotonic())
            self._drain()
        self._forget_ended()
        with contextlib.suppress(OSError):  # else the next start does it
            self._forget_dead(self._owner.adopt(), self._claims())  # also one that died a moment ago, and left nothing
            self._owner.leave(claims_left=bool(self._in_hand))

    @property
    def claims_left(self) -> int:
        """Claims in `working/` that the next start goes on with."""
        return len(self._in_hand)

    @property
    def num_unreadable(self) -> int:
        """What lies in `in/` and cannot be read."""
        return len(self._watcher.unreadable)

    def _poll(self) -> None:
        try:
            self._backlog += self._watcher.poll()
        except OSError as err:
            self._say_once(f"{self._folder.incoming} cannot be read: {err.strerror}; it is tried again")
        for name, why in self._watcher.unreadable.items():
            self._say_once(f"in/{path_to_text(name)} cannot be read: {why}; it stays there until it can")

    def _take(self) -> None:
        """Go on with what was left, then claim what is ready, as much as can be worked on."""
        while self._left and self._has_room(self._left[0].kind) and not self._stopping:
            self._work_on(self._left.popleft())
        while self._backlog and not self._stopping:
            kind = self._backlog[0].kind
            if not self._has_room(kind):
                return
            if kind == "image" and self.pusher is None:
                self._claim(self._pop_images(), "images")
            else:
                self._claim([self._backlog.popleft()], kind)

    def _has_room(self, kind: str) -> bool:
        if kind == "other":
            return True
        if kind == "image" and self.pusher is not None:
            return self.pusher.has_room
        return self._require_jobs().has_room

    def _pop_images(self) -> list[Ready]:
        images = [ready for ready in self._backlog if ready.kind == "image"][:MOST_IMAGES]
        taken = {ready.name for ready in images}
        self._backlog = deque(ready for ready in self._backlog if ready.name not in taken)
        return images

    def _claim(self, wanted: list[Ready], kind: str) -> None:
        for ready in wanted:
            self._watcher.forget(ready.name)
        self._number += 1
        try:
            claim = Claim.make(self._folder, self._owner.name, self._number, kind)
        except OSError as err:
            self._say_once(f"{self._folder.working} cannot be written to: {err.strerror}; it is tried again")
            return
        self._in_hand[claim.name] = claim
        for ready in wanted:
            try:
                if claim.take(ready.name) and snapshot_of(claim.data / ready.name) != ready.snapshot:
                    claim.give_back(ready.name)  # somebody has gone on writing
            except OSError as err:
                self._say_once(f"{path_to_text(ready.name)} cannot be moved: {err.strerror}; it is tried again")
        self._work_on(claim)

    def _work_on(self, claim: Claim) -> None:
        """Begin with a claim, or go on with it; where the disk refuses, the next look for claims begins anew."""
        try:
            if not claim.names():
                claim.close()
            elif claim.kind == "other":
                self._refuse(claim)
            elif claim.kind == "image" and self.pusher is not None:
                self.pusher.push(claim)
            else:
                self._require_jobs().start(claim)
        except OSError as err:
            self._say_of(claim, err)
            self._again.append(claim)

    def _refuse(self, claim: Claim) -> None:
        """End what is neither a file nor a folder."""
        for name in claim.names():
            self.ended(claim, name, bad("unreadable", "a link, a pipe or a device, which is not followed or read"))
        claim.close()

    def _require_jobs(self) -> Jobs:
        assert self.jobs is not None
        return self.jobs

    def _collect(self, wait_s: float) -> None:
        """End what is answered, and wait for more until there is something else to do."""
        self._wait(wait_s)
        if self.pusher is not None:
            for claim in self.pusher.due():
                self._work_on(claim)
        self._forget_ended()

    def _wait(self, wait_s: float) -> None:
        wait_s = max(_SHORTEST_S, wait_s)
        if self.pusher is not None:
            self.pusher.collect(wait_s)
        else:
            with contextlib.suppress(Empty):
                self._wakes.get(timeout=wait_s)

    def _forget_ended(self) -> None:
        for claim in list(self._in_hand.values()):
            with contextlib.suppress(OSError):  # it cannot be seen now
                if not claim.exists():
                    del self._in_hand[claim.name]

    def _drain(self) -> None:
        """Wait a while for what is in work."""
        until = time.monotonic() + STOP_S
        if self.jobs is not None:
            self.jobs.stop()
        while self._is_working and time.monotonic() < until:
            self._wait(min(0.5, until - time.monotonic()))
        if self.pusher is not None:
            self.pusher.close()

    @property
    def _is_working(self) -> bool:
        pushes, jobs = self.pusher, self.jobs
        return bool((pushes and pushes.num_pushes) or (jobs and jobs.num_running))

    # What others have left

    def _try_to_recover(self) -> None:
        self._left += self._again
        self._again = []
        for claim in self._in_hand.values():
            try:
                if not claim.names():  # else a thread works on it
                    self._finish(claim)
            except OSError as err:
                self._say_of(claim, err)
        try:
            self._recover()
        except OSError as err:
            self._say_once(f"{self._folder.working} cannot be used: {err.strerror}; it is tried again")

    def _recover(self) -> None:
        dead = self._owner.adopt()
        claims = self._claims()
        unknown = {claim.owner for claim in claims} - dead - {self._owner.name}
        for owner in sorted(unknown & self._orphans):
            if self._owner.adopt_unknown(owner):
                dead.add(owner)
        self._orphans = unknown
        for claim in claims:
            if claim.owner in dead and claim.name not in self._in_hand:
                try:
                    self._resume(claim)
                except OSError as err:  # of this claim; others may go on
                    self._say_of(claim, err)
        self._forget_dead(dead, claims)

    def _finish(self, claim: Claim) -> None:
        """Put the sidecars beside files that were moved without them, and remove a claim that could not be removed."""
        if claim.name in self._unfinished:
            for target, facts in claim.finish_moves():
                self._count(Done(target, facts))
            del self._unfinished[claim.name]
        claim.close()

    def _claims(self) -> list[Claim]:
        """All claims in `working/`, of whomever."""
        return [Claim(self._folder, path.name) for path in self._folder.working.glob("*-*.*") if _may_be_folder(path)]

    def _forget_dead(self, dead: set[str], claims: list[Claim]) -> None:
        for owner in dead - {claim.owner for claim in claims}:
            self._owner.forget(owner)

    def _resume(self, claim: Claim) -> None:
        for target, facts in claim.finish_moves():
            self._count(Done(target, facts))
        claim.finish_giving_back()
        self._in_hand[claim.name] = claim
        self._left.append(claim)

    # Words

    def _count(self, done: Done) -> None:
        with self._lock:
            self.counts.failed += done.failed
            self.counts.done += not done.failed
            self._on_done(done)

    def _say_of(self, claim: Claim, err: OSError) -> None:
        self._say_once(f"working/{claim.name} cannot be used: {err.strerror}; it is tried again")

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said = {text} if len(self._said) > _MOST_SAID else self._said | {text}
            self._say(text)

    def _is_idle(self) -> bool:
        return not (self._backlog or self._in_hand or self._watcher.num_waiting)


def _may_be_folder(path: Path) -> bool:
    """Whether a claim may be there: also where it cannot be seen now, such as behind a stale handle."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return False
    except OSError:
        return True
