"""Finding the image that kills workers: what a process was doing inside a shard when it died.

A shard whose workers died twice is gone through carefully, one batch at a time, each noted before it is
tried. The note that is the last of its journal names what killed that process. Images of a batch that has
killed are then tried alone, and one that kills twice alone is answered with an error and tried no more.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from orchestrator.contract.ledger.ledger import Claim

CAREFUL_FROM_ATTEMPT = 3  # two deaths can be chance: a machine switched off, the memory full
POISON_DEATHS = 2

BATCH, IMAGE, FINISHED = "batch", "image", "finished"


class Journal:
    """The notes of one claim on a shard, beside those of the claims before it.

    Notes outlive the process, not a power cut: then nothing is suspected, and the shard is tried again.
    """

    def __init__(self, folder: Path, claim: Claim) -> None:
        self._folder = folder
        self._claim = claim

    def deaths(self) -> Counter[tuple[str, int]]:
        """How often each batch or image was the last thing noted: ("batch", first index) or ("image", index)."""
        last: Counter[tuple[str, int]] = Counter()
        for path in self._folder.glob(f"{self._claim.shard:08d}.*.jsonl"):
            with contextlib.suppress(ValueError, IndexError):  # a power cut left no note, or half of one
                what, index = json.loads(path.read_bytes().splitlines()[-1])
                last[what, index] += 1
        del last[FINISHED, 0]
        return last

    @contextlib.contextmanager
    def open(self) -> Iterator["Notes"]:
        """Take notes; an exception, unlike a death, ends them properly."""
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
        """Note what comes next, before it is tried."""
        os.write(self._descriptor, (json.dumps([what, index]) + "\n").encode())
