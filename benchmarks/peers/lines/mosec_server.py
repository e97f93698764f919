"""mosec: `python -m benchmarks.peers.lines.mosec_server --address 127.0.0.1 --port PORT`; NUM_PROCESSES says how many.

Best settings here: one stage that decodes and predicts, a process a core, no batches and so no window.
"""

import os
from typing import Any

from mosec import Server, Worker

from benchmarks.peers.lines.one_core import OneCore


class Classify(Worker):
    """An image in, its best label out."""

    def __init__(self) -> None:
        super().__init__()
        self._one_core = OneCore()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> dict[str, Any]:
        return self._one_core.predict(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classify, num=int(os.environ["NUM_PROCESSES"]))
    server.run()
