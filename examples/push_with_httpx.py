"""Push many images at once through the gateway with httpx, and look one answer up later.

    python examples/push_with_httpx.py postcards inbox/*.jpg

httpx2 is what httpx became; with httpx itself only the import differs. GATEWAY_URL and GATEWAY_TOKEN as in
push_with_requests.py.
"""

import asyncio
import os
import sys
from pathlib import Path

import httpx2 as httpx

URL = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080")


async def push(client: httpx.AsyncClient, line: str, image: Path) -> dict:
    """The answer: the gateway waits until the deadline, also while the line is busy."""
    answer = await client.post(
        f"/v1/lines/{line}/items",
        params={"wait": "deadline", "item": image.name, "deadline_ms": 10_000},
        content=image.read_bytes(),
        headers={"content-type": "application/octet-stream"},
    )
    answer.raise_for_status()
    return answer.json()


async def main(line: str, images: list[Path]) -> None:
    token = os.environ.get("GATEWAY_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=URL, headers=headers, timeout=30) as client:
        for answer in await asyncio.gather(*(push(client, line, image) for image in images)):
            print(answer["item"], answer["bin"], answer["reason"] or "accepted", answer["label"])
        record = (await client.get(f"/v1/lines/{line}/items/{images[0].name}")).json()
        print("recorded:", record["item"], record["bin"])


asyncio.run(main(sys.argv[1], [Path(name) for name in sys.argv[2:]]))
