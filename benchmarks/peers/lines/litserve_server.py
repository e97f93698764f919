"""LitServe: `python -m benchmarks.peers.lines.litserve_server PORT PROCESSES`.

Best settings here: no batches and so no window, a process a core, ZeroMQ between them, the body as it comes.
"""

import sys
from typing import Annotated, Any

import litserve
from fastapi import Depends, Request

from benchmarks.peers.lines.one_core import OneCore


async def raw_body(request: Request) -> bytes:
    """The image: JSON or a form would cost more."""
    return await request.body()


class Classify(litserve.LitAPI):
    """An image in, its best label out."""

    def setup(self, device: str) -> None:
        self._one_core = OneCore()

    def decode_request(self, request: Annotated[bytes, Depends(raw_body)]) -> bytes:
        return request

    def predict(self, data: bytes) -> dict[str, Any]:
        return self._one_core.predict(data)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Classify(), accelerator="cpu", workers_per_device=int(sys.argv[2]), fast_queue=True, timeout=False
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
