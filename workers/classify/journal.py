"""Finds the image that kills workers: the journal notes what a process tries before it tries it.

A shard whose workers died twice is predicted carefully: one batch at a time, with a note before each. The last note of
a journal names what that process died of, unless it was killed by something else. The images of such a batch are then
tried alone; `Evidence` says what counts against an image.

A process that decodes one image for too long notes that image and ends itself. The image is then tried alone, with
more time, and after a second such note it gets an error row. A process that hangs while it decodes an image alone has
its threads' frames in its journal (`workers/hang_guard.py`), which counts as such a note.
"""

import contextlib
import faulthandler
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.contract.ledger.ledger import Claim
from workers.hang_guard import HANG, hang_guard

CAREFUL_FROM_ATTEMPT = 3  # two deaths can be chance: a machine was switched off, memory was full
CRASHES = 2  # that make it a poison image
KILLS = 5  # that do so, if others were tried in between and passed; crashes count too
SLOW_NOTES = 2  # of an image that took too long, the second time alone

BATCH, IMAGE, SLOW, FINISHED = "batch", "image", "slow", "finished"
_CRASH = b"Fatal Python error"  # how `faulthandler` begins; the frames of the thread that crashed follow
_LINES = b"workers/lines/"  # a thread that serves lines works on pushed images
_DECODES = b" in decode_image\n"  # a frame of a thread that decodes

Trial = tuple[str, int]  # ("batch", first index) or ("image", index)


@dataclass
class Evidence:
    """What the journals of a shard say.

    A process that dies by a signal of its own doing (SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL) writes that into its
    journal: a crash. Any other death, SIGKILL, a power cut or a crash of a thread that serves lines, may have come from
    outside. It counts only where the same process had tried other images alone before, and they passed; for a batch,
    where its own images had passed. It is forgotten when the trial passes later.

    crashes: how often each trial was the last. kills: other deaths that count. deaths: all of them. slow: images.
    """

    crashes: Counter[Trial] = field(default_factory=Counter)
    kills: Counter[Trial] = field(default_factory=Counter)
    deaths: Counter[Trial] = field(default_factory=Counter)
    slow: Counter[int] = field(default_factory=Counter)

    def is_poison(self, what: str, index: int) -> bool:
        """Whether an image is not tried again, or a batch is not predicted as a whole again."""
        crashes, kills = self.crashes[what, index], self.kills[what, index]
        return crashes >= CRASHES or crashes + kills >= KILLS

    @property
    def num_explained(self) -> int:
        """How many of the deaths were at what is not tried again."""
        return sum(times for trial, times in self.deaths.items() if self.is_poison(*trial))

    def num_deaths(self, attempt: int) -> int:
        """How many workers died on the shard before this attempt.

        From the third on an attempt without a note was none: its worker was cut off or frozen, and tried nothing.
        """
        return min(attempt - 1, CAREFUL_FROM_ATTEMPT - 1 + sum(self.deaths.values()))

    def add(self, record: "_Record") -> None:
        """Add the journal of the next claim."""
        self.slow.update(record.slow)
        for passed in record.passed:
            del self.kills[passed]
        if record.died_at is None:
            return
        self.deaths[record.died_at] += 1
        if record.crashed:
            self.crashes[record.died_at] += 1
        elif any(what == IMAGE for what, _ in record.passed[-1 if record.died_at[0] == BATCH else 0 :]):
            self.kills[record.died_at] += 1


@dataclass(frozen=True)
class _Record:
    """One journal. passed: what was tried and did no harm, in order. died_at: the trial that the process died at."""

    passed: list[Trial]
    died_at: Trial | None
    crashed: bool
    slow: list[int]


class Journal:
    """The notes of one claim on a shard, beside those of earlier claims.

    Notes survive the death of the process, but not a power cut: the shard is then tried again without a suspect.
    """

    def __init__(self, folder: Path, claim: Claim) -> None:
        self._folder = folder
        self._claim = claim
        self._path = folder / f"{claim.shard:08d}.{claim.fence}.jsonl"

    @property
    def exists(self) -> bool:
        """Whether an earlier claim on the shard has left notes."""
        return any(self._paths())

    def evidence(self) -> Evidence:
        """What the journals of all claims on the shard say."""
        evidence = Evidence()
        for path in sorted(self._paths(), key=lambda path: int(path.name.split(".")[1])):
            with contextlib.suppress(ValueError, TypeError):  # a power cut left no note or half a note
                evidence.add(_read(path.read_bytes()))
        return evidence

    def note_slow(self, index: int) -> None:
        """Note that an image took too long; this process is about to end."""
        descriptor = self._open()
        try:
            Notes(descriptor).trying(SLOW, index)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def open(self) -> Iterator["Notes"]:
        """Open the journal for notes; an exception ends it with `finished`, the death of the process does not."""
        descriptor = self._open()
        notes = Notes(descriptor)
        try:
            with _noting_crashes(descriptor), hang_guard.writing_to(descriptor):
                yield notes
        finally:
            try:
                notes.trying(FINISHED, 0)
            finally:
                os.close(descriptor)

    def _paths(self) -> Iterator[Path]:
        return self._folder.glob(f"{self._claim.shard:08d}.*.jsonl")

    def _open(self) -> int:
        self._folder.mkdir(exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)


class Notes:
    """An open journal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def trying(self, what: str, index: int) -> None:
        """Note what is tried next."""
        os.write(self._descriptor, (json.dumps([what, index]) + "\n").encode())


@contextlib.contextmanager
def _noting_crashes(descriptor: int) -> Iterator[None]:
    """Let a signal that this process causes itself write where it was into the journal, before it ends the process."""
    was_enabled = faulthandler.is_enabled()
    faulthandler.enable(descriptor, all_threads=False)
    try:
        yield
    finally:
        if was_enabled:
            faulthandler.enable()
        else:
            faulthandler.disable()


def _read(data: bytes) -> _Record:
    """The notes of a journal. Raises ValueError or TypeError where it is not whole."""
    written, crash, frames = data.partition(_CRASH)
    written, _, threads = written.partition(HANG)
    # Not by pydantic: half a note counts as none.
    notes = [(str(what), int(index)) for what, index in map(json.loads, written.splitlines())]
    slow = [index for what, index in notes if what == SLOW]
    tried = [note for note in notes if note[0] in (BATCH, IMAGE)]
    if tried and tried[-1][0] == IMAGE and _hung_in_decoder(threads):
        slow.append(tried[-1][1])
    ended = slow or not tried or notes[-1][0] == FINISHED  # what was tried last has neither passed nor killed
    return _Record(tried[:-1], None if ended else tried[-1], bool(crash) and _LINES not in frames, slow)


def _hung_in_decoder(threads: bytes) -> bool:
    """Whether a thread was decoding for the shard, and none for a line, which may have kept the others from running."""
    decoding = [frames for frames in threads.split(b"\n\n") if _DECODES in frames]
    return bool(decoding) and not any(_LINES in frames for frames in decoding)
