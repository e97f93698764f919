"""Controllers that speak telegrams as JSON lines, for tests and benchmarks; their connections are cut now and then."""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECONNECT_S = 0.02
ACK_S = 10.0


@dataclass
class Controller:
    """Sends items in order, each until it is acknowledged, and acknowledges the answers.

    cut: the chance that the connection is cut at a telegram, on either way.
    """

    name: str
    port: int
    items: Sequence[tuple[str, bytes]]
    cut: float = 0.0
    seed: int = 0
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    repeats: int = 0
    cuts: int = 0
    faults: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Until every item is answered and every answer acknowledged."""
        self._chance = random.Random(self.seed)
        self._acknowledged = 0  # items
        while not self._is_done():
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._talk()
            if not self._is_done():
                await asyncio.sleep(RECONNECT_S)

    def _is_done(self) -> bool:
        return len(self.answers) == len(self.items) == self._acknowledged

    async def _talk(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._seq, self._acked = 0, asyncio.Event()
        tasks = [asyncio.create_task(self._send_items()), asyncio.create_task(self._read())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._writer.transport.abort()

    async def _send_items(self) -> None:
        await self._send({"type": "hello", "controller": self.name})
        while self._acknowledged < len(self.items):
            item, image = self.items[self._acknowledged]
            await self._send({"type": "item", "item": item, "bytes": len(image)}, image)
            self._acknowledged += 1

    async def _send(self, telegram: Mapping[str, Any], image: bytes = b"") -> None:
        """Send a telegram, and wait for its acknowledgement."""
        self._seq += 1
        self._acked.clear()
        data = json.dumps({**telegram, "seq": self._seq}).encode() + b"\n" + image
        if self._chance.random() < self.cut:
            self._writer.write(data[: self._chance.randrange(len(data) + 1)])
            self._cut()
        self._writer.write(data)
        async with asyncio.timeout(ACK_S):
            await self._acked.wait()

    async def _read(self) -> None:
        while not self._is_done():
            telegram = json.loads(await self._reader.readuntil(b"\n"))
            kind, seq = telegram.pop("type"), telegram.pop("seq", 0)
            if kind == "answer":
                self._note(telegram)
                if self._chance.random() < self.cut:
                    self._cut()
                self._writer.write(json.dumps({"type": "ack", "seq": seq}).encode() + b"\n")
                await self._writer.drain()
            elif kind == "ack" and seq == self._seq:
                self._acked.set()
            elif kind == "nak":
                self.faults.append(f"{self.name}: {telegram}")
                raise ConnectionError

    def _note(self, answer: dict[str, Any]) -> None:
        again = answer.pop("again", 0)
        before = self.answers.setdefault(answer["item"], answer)
        if before is not answer:
            self.repeats += 1
            if not again:
                self.faults.append(f"{answer['item']} was answered twice")
            if before != answer:
                self.faults.append(f"{answer['item']} has two answers: {before} and {answer}")

    def _cut(self) -> None:
        self.cuts += 1
        self._writer.transport.abort()
        raise ConnectionError


@dataclass
class TelegramProcess:
    """A process of `pigeonhole telegrams`."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        command = [sys.executable, "-m", "orchestrator", "telegrams", *self.arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | dict(self.environment)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """Stop it as an operator does; its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(60)
        self.process = None
        return code
