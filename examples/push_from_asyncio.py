"""Push images to a line from asyncio: eight items a second, as they come by, however long their answers take.

python examples/push_from_asyncio.py postcards redis://localhost:6379/0 images/*.jpg
"""

import asyncio
import sys
from collections import Counter

from orchestrator.lines import Answer, AsyncLineClient

PER_SECOND = 8


async def main(line: str, url: str, *images: str) -> None:
    async with AsyncLineClient(line, url, deadline=0.5, fallback="manual") as client:
        pushes: list[asyncio.Task[Answer]] = []
        for number, image in enumerate(images):
            pushes.append(asyncio.create_task(client.push(image, f"{number:06d}")))
            await asyncio.sleep(1 / PER_SECOND)
        answers = await asyncio.gather(*pushes)
    for image, answer in zip(images, answers, strict=True):
        print(f"{image}: bin {answer.bin} after {answer.ms:.0f} ms ({answer.reason or answer.label})")
    print(dict(Counter(answer.reason or "accept" for answer in answers)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
