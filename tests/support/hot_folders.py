"""Hot folders for tests and benchmarks: what lies in one, and processes that work on it and are killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.hot_folder.folders import MARKER

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Scans:
    """A hot folder as its user sees it."""

    path: Path

    def drop(self, name: str, content: bytes) -> None:
        """Put a file into `in/`, as a program does that renames at the end."""
        hidden = self.path / "in" / f".{name}.new"
        hidden.write_bytes(content)
        hidden.rename(self.path / "in" / name)

    def names(self, part: str) -> list[str]:
        """What lies in a part, at any depth, hidden files left out."""
        folder = self.path / part
        found = (path.relative_to(folder) for path in folder.rglob("*"))
        return sorted(str(path) for path in found if not any(each.startswith(".") for each in path.parts))

    def hidden(self, part: str) -> list[str]:
        """Hidden files of a part but for its marker."""
        return sorted(path.name for path in (self.path / part).rglob(".*") if path.name != MARKER)

    def sidecar(self, name: str, part: str = "done") -> dict[str, Any]:
        """What is said of a file."""
        facts: dict[str, Any] = json.loads((self.path / part / f"{name}.json").read_text())
        return facts


@dataclass
class HotFolderProcesses:
    """Processes of `pigeonhole hotfolder` on one folder."""

    path: Path
    arguments: Sequence[str]
    environment: dict[str, str]
    running: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    log: Path = Path(os.devnull)

    def start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "orchestrator", "hotfolder", str(self.path), *self.arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | self.environment
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
        self.running.append(process)
        return process

    def kill(self) -> None:
        """Kill the one that was started first."""
        process = self.running.pop(0)
        process.kill()
        process.wait()

    def stop(self) -> list[int]:
        """Stop all as an operator does; their exit codes."""
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(60) for process in self.running]
        self.running.clear()
        return codes

    def close(self) -> None:
        """Kill what is left."""
        while self.running:
            self.kill()
