"""Finds the image that kills workers: the journal notes what a process tries before it tries it.

A shard whose workers died twice is predicted carefully: one batch at a time, with a note before each. The last note of
a journal names what killed that process. The images of such a batch are then tried alone. An image that kills twice
alone gets an error row and is not tried again.

A process that decodes one image for too long notes that image and ends itself. The image is then tried alone, with
more time, and after a second such note it gets an error row.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from orchestrator.contract.ledger.ledger import Claim

CAREFUL_FROM_ATTEMPT = 3  # two deaths can be chance: a machine was switched off, memory was full
POISON_DEATHS = 2
SLOW_NOTES = 2  # of an image that took too long, the second time alone

BATCH, IMAGE, SLOW, FINISHED = "batch", "image", "slow", "finished"


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
        return any(self._folder.glob(f"{self._claim.shard:08d}.*.jsonl"))

    def deaths(self) -> Counter[tuple[str, int]]:
        """How often each batch or image was the last note: ("batch", first index) or ("image", index).

        And how often an image was too slow: ("slow", index), also where two threads met one each.
        """
        found: Counter[tuple[str, int]] = Counter()
        for path in self._folder.glob(f"{self._claim.shard:08d}.*.jsonl"):
            with contextlib.suppress(ValueError, IndexError):  # a power cut left no note or half a note
                # Not by pydantic: half a note counts as none.
                *earlier, last = [json.loads(line) for line in path.read_bytes().splitlines()]
                found.update((what, index) for what, index in earlier if what == SLOW)
                found[last[0], last[1]] += 1
        del found[FINISHED, 0]
        return found

    def note_slow(self, index: int) -> None:
        """Note that an image took too long; this process is about to end."""
        self._folder.mkdir(exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        Notes(descriptor).trying(SLOW, index)
        os.close(descriptor)

    @contextlib.contextmanager
    def open(self) -> Iterator["Notes"]:
        """Open the journal for notes; an exception ends it with `finished`, the death of the process does not."""
        self._folder.mkdir(exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        notes = Notes(descriptor)
        try:
            yield notes
        finally:
            notes.trying(FINISHED, 0)
            os.close(descriptor)


class Notes:
    """An open journal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def trying(self, what: str, index: int) -> None:
        """Note what is tried next."""
        os.write(self._descriptor, (json.dumps([what, index]) + "\n").encode())
