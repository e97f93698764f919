"""Finds the image that kills workers: the journal notes what a process tries before it tries it.

A shard whose workers died twice is predicted carefully: one batch at a time, with a note before each. The last note of
a journal names what killed that process. The images of such a batch are then tried alone. An image that kills twice
alone gets an error row and is not tried again.
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

BATCH, IMAGE, FINISHED = "batch", "image", "finished"


class Journal:
    """The notes of one claim on a shard, beside those of earlier claims.

    Notes survive the death of the process, but not a power cut: the shard is then tried again without a suspect.
    """

    def __init__(self, folder: Path, claim: Claim) -> None:
        self._folder = folder
        self._claim = claim

    def deaths(self) -> Counter[tuple[str, int]]:
        """How often each batch or image was the last note: ("batch", first index) or ("image", index)."""
        last: Counter[tuple[str, int]] = Counter()
        for path in self._folder.glob(f"{self._claim.shard:08d}.*.jsonl"):
            with contextlib.suppress(ValueError, IndexError):  # a power cut left no note or half a note
                # Not by pydantic: half a note counts as none.
                what, index = json.loads(path.read_bytes().splitlines()[-1])
                last[what, index] += 1
        del last[FINISHED, 0]
        return last

    @contextlib.contextmanager
    def open(self) -> Iterator["Notes"]:
        """Open the journal for notes; an exception ends it with `finished`, the death of the process does not."""
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{self._claim.shard:08d}.{self._claim.fence}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
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
