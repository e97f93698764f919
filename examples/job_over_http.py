"""Submit a classify job to a gateway, follow it to its end, and fetch the manifest.

    python examples/job_over_http.py http://localhost:8080 /data/inbox birds inbox.csv

The gateway was started with a root above the source (`pigeonhole gateway --root /data`). A token is taken from the
variable TOKEN.
"""

import json
import os
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import requests


def main(gateway: str, source: str, model: str, path: str) -> None:
    with requests.Session() as session:
        if token := os.environ.get("TOKEN"):
            session.headers["Authorization"] = f"Bearer {token}"
        body = {"kind": "classify", "source": source, "model": model, "format": "csv"}
        key = {"Idempotency-Key": str(uuid.uuid4())}  # the same one for every attempt of this submission
        answer = session.post(f"{gateway}/v1/jobs", json=body, headers=key, timeout=600)
        if not answer.ok:
            sys.exit(answer.json()["detail"])
        url = f"{gateway}/v1/jobs/{answer.json()['job']}"
        for state in follow(session, url):
            print(state["text"])
        if not state["result"]:
            sys.exit(state["error"] or state["state"])
        download(session, f"{url}/manifest", path)
        failed = session.get(f"{url}/errors", params={"limit": 5}, timeout=60).json()
        for row in failed["rows"]:
            print(f"{row['path']}: {row['error']}")


def follow(session: requests.Session, url: str) -> Iterator[dict[str, Any]]:
    """The states of a job up to its end; goes on where it stopped when the connection ends."""
    last = ""
    while True:
        headers = {"Last-Event-ID": last} if last else {}
        try:
            with session.get(f"{url}/events", headers=headers, stream=True, timeout=60) as stream:
                stream.raise_for_status()
                name = ""
                for line in stream.iter_lines(decode_unicode=True):
                    field, _, value = line.partition(": ")
                    if field == "id":
                        last = value
                    elif field == "event":
                        name = value
                    elif field == "data":
                        yield json.loads(value)
                        if name == "end":
                            return
        except requests.ConnectionError as err:
            print(f"connecting again: {err}", file=sys.stderr)


def download(session: requests.Session, url: str, path: str) -> None:
    with session.get(url, stream=True, timeout=60) as answer, open(path, "wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_content(1 << 16):
            file.write(chunk)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: job_over_http.py GATEWAY SOURCE MODEL MANIFEST")
    main(*sys.argv[1:])
