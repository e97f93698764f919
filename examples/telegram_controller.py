"""A controller that speaks telegrams: sends the image of each item, and opens the gate of its bin.

    python examples/telegram_controller.py 127.0.0.1 5010 images/*.jpg

`pigeonhole telegrams --line postcards --port 5010` runs. Nothing but Python is needed here. Each telegram is sent until
it is acknowledged, over a new connection where the old one was cut; each answer is acknowledged, and acted upon once.
"""

import json
import socket
import sys
import time
from pathlib import Path

SILENT_S = 15.0  # the other side sends something every five seconds
RECONNECT_S = 0.5


class Controller:
    """One connection at a time; `answers` has what was decided so far, by item."""

    def __init__(self, host: str, port: int, name: str) -> None:
        self.address = (host, port)
        self.name = name
        self.answers: dict[str, str] = {}

    def run(self, items: list[tuple[str, bytes]]) -> None:
        """Send all items, and wait until each has its answer."""
        while len(self.answers) < len(items):
            try:
                self._talk(items)
            except OSError as err:
                print(f"{self.name}: {err}; connecting again", file=sys.stderr)
                time.sleep(RECONNECT_S)

    def _talk(self, items: list[tuple[str, bytes]]) -> None:
        with socket.create_connection(self.address, SILENT_S) as connection, connection.makefile("rb") as lines:
            self._connection, self._lines, self._seq = connection, lines, 0
            self._send({"type": "hello", "controller": self.name})
            for item, image in items:
                if item not in self.answers:
                    self._send({"type": "item", "item": item, "bytes": len(image)}, image)
            while len(self.answers) < len(items):
                self._receive()

    def _send(self, telegram: dict[str, object], image: bytes = b"") -> None:
        """Send a telegram; what comes before its acknowledgement is dealt with."""
        self._seq += 1
        self._connection.sendall(json.dumps(telegram | {"seq": self._seq}).encode() + b"\n" + image)
        while True:
            reply = self._receive()
            if reply["type"] == "nak":
                raise SystemExit(f"{self.name}: {telegram} was refused: {reply['error']}")
            if reply["type"] == "ack" and reply["seq"] == self._seq:
                return

    def _receive(self) -> dict[str, object]:
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the connection was cut")
        telegram: dict[str, object] = json.loads(line)
        if telegram["type"] == "answer":
            self._decide(str(telegram["item"]), telegram)
            self._tell({"type": "ack", "seq": telegram["seq"]})
        elif telegram["type"] == "alive":
            self._tell({"type": "alive"})
        return telegram

    def _tell(self, telegram: dict[str, object]) -> None:
        self._connection.sendall(json.dumps(telegram).encode() + b"\n")

    def _decide(self, item: str, answer: dict[str, object]) -> None:
        """Stands for the machine: open the gate, once, although an answer may come again after a cut."""
        if item not in self.answers:
            self.answers[item] = str(answer["bin"])
            reason = answer.get("reason")
            print(f"{item} -> {answer['bin']}" + (f" ({reason})" if reason else ""), flush=True)


def main(host: str, port: str, *images: str) -> None:
    items = [(f"{number:06d}", Path(image).read_bytes()) for number, image in enumerate(images)]
    Controller(host, int(port), "belt-1").run(items)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: telegram_controller.py HOST PORT IMAGE...")
    main(*sys.argv[1:])
