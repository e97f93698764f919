"""Push images to a line through the gateway with requests; an image is pushed again until it has its answer.

    python examples/push_with_requests.py postcards inbox/*.jpg

GATEWAY_URL: http://127.0.0.1:8080 unless set. GATEWAY_TOKEN: where the gateway has a token file.
"""

import os
import sys
import time
from pathlib import Path

import requests

URL = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080")


def push(session: requests.Session, line: str, image: Path) -> dict:
    """The answer of one image. Whatever fails meanwhile, the item has one answer, so pushing again is safe."""
    while True:
        try:
            answer = session.post(
                f"{URL}/v1/lines/{line}/items",
                params={"wait": "", "item": image.name},
                data=image.read_bytes(),
                headers={"Content-Type": "application/octet-stream"},
                timeout=60,
            )
        except requests.ConnectionError:  # the gateway is started anew
            time.sleep(0.2)
            continue
        if answer.status_code not in (429, 503):
            answer.raise_for_status()
            return answer.json()
        time.sleep(answer.json()["retry_after_ms"] / 1000)  # busy or paused


with requests.Session() as session:
    if token := os.environ.get("GATEWAY_TOKEN"):
        session.headers["Authorization"] = f"Bearer {token}"
    for name in sys.argv[2:]:
        answer = push(session, sys.argv[1], Path(name))
        print(answer["item"], answer["bin"], answer["reason"] or "accepted", answer["label"])
