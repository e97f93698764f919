"""The limit on the processor time that decoding one image may take.

It lies far above what `modeling.images.cost` lets pass: it catches a decoder that hangs, or that an estimate does not
know. A decoder in native code cannot be interrupted, so the process notes the image and ends; its parent starts
another, and the shard is done carefully. The image is tried once more, alone and with more time, and then `too_slow`.
"""

import logging
import os
from functools import partial
from pathlib import Path

from modeling.inference.decode_watch import DecodeWatch, Running
from orchestrator.contract.ledger.ledger import Claim
from orchestrator.contract.queues import CLASSIFY
from orchestrator.contract.server import SERVER_ERRORS
from workers.classify.journal import Journal
from workers.context import WorkerContext
from workers.leases import Leases

logger = logging.getLogger(__name__)

DECODE_S = 120.0  # processor time; some 5 s are the most that an estimate allows on one core of 2024
ALONE_FACTOR = 10
SLOW_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h


class ShardImage(partial[bytes]):
    """Reads one image of a shard, and knows which it is."""

    claim: Claim
    index: int

    def of(self, claim: Claim, index: int) -> "ShardImage":
        """This source, as the image at an index of a shard."""
        self.claim, self.index = claim, index
        return self


class DecodeClock:
    """Looks at the decode threads of one slice, whenever its leases are renewed."""

    def __init__(self, context: WorkerContext, job: str, journals: Path, leases: Leases) -> None:
        self.watch = DecodeWatch()
        self.alone = False  # whether the image that is decoded was too slow before, and is tried alone
        self._context = context
        self._job = job
        self._journals = journals
        self._leases = leases

    def look(self) -> None:
        """Tell the leases that decoding goes on; end the process if an image takes too long."""
        running = self.watch.look()
        if any(each.advanced for each in running):
            self._leases.progressed()
        limit_s = DECODE_S * (ALONE_FACTOR if self.alone else 1)
        if slow := [each for each in running if each.processor_s > limit_s]:
            self._end_process(slow)

    def _end_process(self, slow: list[Running]) -> None:
        """Note the images, hand back all shards, since none of them is to blame, and end."""
        for each in slow:
            image: ShardImage = each.source
            logger.critical(
                "image %d of shard %d of %s takes more than %.0f s to decode; this process ends",
                image.index, image.claim.shard, self._job, each.processor_s,
            )  # fmt: skip
            self._note(image)
        try:
            self._leases.hand_back()
            self._context.ring(CLASSIFY, self._job)
        except SERVER_ERRORS as away:
            logger.warning("cannot ring for %s, the sweep will: %s", self._job, away)
        os._exit(SLOW_EXIT_CODE)

    def _note(self, image: ShardImage) -> None:
        """A disk that takes no note must not keep this process from its end."""
        try:
            Journal(self._journals, image.claim).note_slow(image.index)
        except OSError as err:
            logger.warning("image %d of shard %d is not noted as slow: %s", image.index, image.claim.shard, err)
