"""A receiver of Pigeonhole's webhooks that believes only what is signed, and takes each outcome once.

    python receive_webhooks.py ~/.pigeonhole/notify.secret --port 9000
    pigeonhole classify inbox/ --model birds -o birds.csv --notify http://127.0.0.1:9000/

The secret is that of `docs/webhooks.md`; `http://127.0.0.1` needs the setting `notify_allow = "127.0.0.1"`. Nothing but
Python's standard library is needed.
"""

import argparse
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

TOLERANCE_S = 300  # an older webhook may be one that somebody has recorded and sends again
MOST_BYTES = 1 << 20


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, now_s: float | None = None) -> dict:
    """What the webhook says. Raises ValueError unless it is signed with the secret, and of the last five minutes."""
    delivery, seconds = headers["webhook-id"], headers["webhook-timestamp"]
    if abs((time.time() if now_s is None else now_s) - int(seconds)) > TOLERANCE_S:
        raise ValueError("the webhook is too old")
    key = base64.b64decode(secret.strip().removeprefix("whsec_"))
    digest = hmac.new(key, f"{delivery}.{seconds}.".encode() + body, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    if not any(hmac.compare_digest(given, expected) for given in headers["webhook-signature"].split()):
        raise ValueError("the webhook is not signed with this secret")
    return json.loads(body)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to what is signed, 400 to anything else."""

    secret = ""
    seen: set[str] = set()  # noqa: RUF012 a program that is started again reads it from its database

    def do_POST(self) -> None:
        try:
            length = int(self.headers["content-length"])
            if not 0 <= length <= MOST_BYTES:
                raise ValueError("the body is too large")
            said = verify(
                self.secret, {name.lower(): value for name, value in self.headers.items()}, self.rfile.read(length)
            )
        except (KeyError, TypeError, ValueError):
            self.send_response(400)
        else:
            if self.headers["webhook-id"] not in self.seen:  # the same outcome may come twice
                self.seen.add(self.headers["webhook-id"])
                print(f"{said['data']['job']} {said['data']['state']}: {said['data']['result']}", flush=True)
            self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing: requests of strangers are of no interest."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("secret", type=Path, help="file with the secret")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--once", action="store_true", help="end after one request")
    options = parser.parse_args()
    Receiver.secret = options.secret.read_text(encoding="utf-8")
    server = HTTPServer(("127.0.0.1", options.port), Receiver)
    print(f"listening on port {server.server_port}", flush=True)
    server.handle_request() if options.once else server.serve_forever()
