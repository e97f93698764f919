"""A real browser for tests: Chromium without a window, driven over a pipe by its DevTools protocol."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT_S = 120
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
# The browser takes commands from descriptor 3 and replies on descriptor 4.
_START = """
import fcntl, os, sys
for place, given in zip((3, 4), [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]):
    os.dup2(given, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


def browser_or_skip() -> str:
    """The browser on PATH; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(_NAMES)} is on PATH to look at the page with")
    return found


class Browser:
    """One page of a browser. events: what the browser said since it was started."""

    def __init__(self, commands: int, replies: int) -> None:
        self._commands, self._replies = commands, replies
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def open(self) -> None:
        """Open an empty page, of which everything is reported."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Accessibility"):
            self.call(f"{domain}.enable")

    def show(self, address: str, *, width: int, height: int = 844, dark: bool = False) -> None:
        """Load a page in a window of that size, and wait until it has loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._take()

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, such as Tab."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Tab": 9}[key])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser, and wait for its reply."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._take()
            if reply.get("id") == self._number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                return reply["result"]

    def _take(self) -> dict[str, Any]:
        """The next message of the browser; events are kept, too."""
        deadline = time.monotonic() + _TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._replies], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"the browser did not answer within {_TIMEOUT_S} s"
            more = os.read(self._replies, 1 << 20)
            assert more, "the browser ended"
            self._buffer += more
        head, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(head)
        if "method" in message:
            self.events.append(message)
        return message


@contextlib.contextmanager
def opened_browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile lies in `folder`; skips the test where there is none."""
    browser = browser_or_skip()
    (for_browser, commands), (replies, from_browser) = os.pipe(), os.pipe()
    command = [browser, *_OPTIONS, f"--user-data-dir={folder}", "--remote-debugging-pipe"]
    start = [sys.executable, "-c", _START, str(for_browser), str(from_browser), *command]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(start, pass_fds=(for_browser, from_browser), **quiet)
    os.close(for_browser)
    os.close(from_browser)
    try:
        page = Browser(commands, replies)
        page.open()
        yield page
        page.call("Browser.close")
    finally:
        os.close(commands)
        os.close(replies)
        process.terminate()
        process.wait(timeout=_TIMEOUT_S)
