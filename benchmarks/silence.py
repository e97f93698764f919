"""The longest time that each command shows nothing, on a terminal.

    python -m benchmarks.silence --photographs DIR [--images DIR] [--weights FILE] [--baseline CHECKOUT]

Runs the commands of a first day in a home of its own, each under a pseudo-terminal, and notes when something is shown:
with `--photographs`, a folder of photographs by class, for everything; `--images`, by default the same, is classified.
A slow source is a list on standard input whose next path does not come. Exits with 1 where a command of this checkout
is silent for more than three seconds. With --baseline every command runs by another checkout, too, in a home of its
own. The terminal that is shown nothing for the first second of a command is part of it: imports count.
"""

import argparse
import os
import pty
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import describe_run, keep

HERE = Path(__file__).parent.parent
LONGEST_S = 3.0
SLOW_SOURCE_S = 8.0  # after which the command is interrupted
LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Heard:
    """A command: its time, and the longest part of it without output."""

    total_s: float
    silent_s: float
    exit_code: int


def listen(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, *, interrupt_s: float = LIMIT_S
) -> Heard:
    """Run a command on a terminal; its standard input is open and brings nothing. Ctrl-C after a time."""
    terminal, inside = pty.openpty()
    reading, writing = os.pipe()
    process = subprocess.Popen(command, stdin=reading, stdout=inside, stderr=inside, env=environment, cwd=folder)
    os.close(inside)
    begun = shown = time.perf_counter()
    silent_s = 0.0
    try:
        while process.poll() is None or select.select([terminal], [], [], 0)[0]:
            now = time.perf_counter()
            if now - begun > interrupt_s:
                process.send_signal(2)
                interrupt_s = LIMIT_S
            if select.select([terminal], [], [], 0.1)[0]:
                os.read(terminal, 1 << 16)
                now = time.perf_counter()
                silent_s, shown = max(silent_s, now - shown), now
    except OSError:  # EIO: the last one that held the terminal has closed it
        process.wait()
    finally:
        for descriptor in (terminal, reading, writing):
            os.close(descriptor)
    ended = time.perf_counter()
    return Heard(round(ended - begun, 1), round(max(silent_s, ended - shown), 1), process.returncode)


def commands(photographs: Path, images: Path, weights: Path | None) -> list[tuple[str, ...]]:
    """The commands of a first day, in an order in which each can run."""
    image = str(next(path for path in sorted(images.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")))
    data = str(photographs)
    with_weights = ("--arch", "mobilenet_v2", "--from-weights", str(weights)) if weights else ("--arch", "cnn")
    importing = [("weights", "import", str(weights), "--name", "pretrained"), ("weights", "list")] if weights else []
    return [
        ("--help",), ("doctor",), ("demo",),
        ("models", "import", "demo-output/home/models/characters/1", "--name", "characters"),
        ("read", "demo-output/page.png", "--model", "characters", "--picture", "read.png"),
        *importing, ("up",), ("scan", data),
        ("train", data, "--name", "m", *with_weights), ("train", data, "--name", "m", *with_weights, "--seed", "1"),
        ("models", "list"), ("models", "show", "m"), ("predict", image, "--model", "m", "--picture", "answers.png"),
        ("classify", str(images), "--model", "m@1", "-o", "one.csv"),
        ("classify", str(images), "--model", "m@2", "-o", "two.csv"),
        ("classify", str(images), "--model", "m", "--plan"), ("classify", "-", "--model", "m"),
        ("results", "show", "one.csv"), ("results", "verify", "one.csv"), ("jobs",), ("workers", "list"),
        ("models", "evaluate", "m@1", data, "--part", "test"),
        ("models", "compare", "m@1", "m@2", data, "--part", "test"),
        ("models", "explain", "m", image, "-o", "explained"),
        ("models", "explain", "m", "-o", "ideal", "--show", "ideal"), ("models", "bench", "m"),
        ("models", "export", "m", "-o", "m.onnx"), ("models", "export", "m", "-o", "m", "--format", "folder"),
        ("models", "import", "m", "--name", "again"),
        ("lines", "create", "gate", "--model", "m", "--deadline", "2s", "--fallback", "F", "--review", "R",
         "--bin", "none=1", "--allow-unknown-labels"),
        ("push", image, "--line", "gate"), ("lines", "show", "gate"), ("down",),
    ]  # fmt: skip


def run_all(root: Path, folder: Path, asked: Sequence[tuple[str, ...]]) -> dict[str, Heard]:
    """What is heard of each command by the code of a checkout, in a new home; the stack is stopped in the end."""
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(root), "PIGEONHOLE_HOME": str(folder / "home")}
    environment |= {"PYTHONSAFEPATH": "1", "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    program = [sys.executable, "-m", "orchestrator"]
    heard = {}
    try:
        for words in asked:
            limit_s = SLOW_SOURCE_S if "-" in words else LIMIT_S
            name = " ".join(word if len(word) < 30 else f"...{word[-20:]}" for word in words)
            heard[name] = listen([*program, *words], environment, folder, interrupt_s=limit_s)
            print(f"{root.name:12} {heard[name].silent_s:6.1f} of {heard[name].total_s:6.1f} s  {name}", flush=True)
    finally:
        subprocess.run([*program, "down"], env=environment, cwd=folder, check=False)
    return heard


def main() -> None:
    """Run, print, and exit with 1 where a command was silent for too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="A folder per class.")
    parser.add_argument("--images", type=Path, help="What is classified; default: the photographs.")
    parser.add_argument("--weights", type=Path, help="Weights of mobilenet_v2; default: train `cnn`.")
    parser.add_argument("--baseline", type=Path, help="Another checkout.")
    parser.add_argument("-o", "--output", type=Path, help="Where to keep the result.")
    asked = parser.parse_args()
    photographs = asked.photographs.resolve()
    wanted = commands(photographs, (asked.images or photographs).resolve(), asked.weights and asked.weights.resolve())
    roots = ({"baseline": asked.baseline.resolve()} if asked.baseline else {}) | {"here": HERE}
    with tempfile.TemporaryDirectory(prefix="pigeonhole-silence-") as folder:
        heard = {name: run_all(root, Path(folder, name), wanted) for name, root in roots.items()}
    shown = {name: {words: asdict(each) for words, each in found.items()} for name, found in heard.items()}
    keep(describe_run("silence") | {"commands": shown}, "silence", asked.output)
    silent = {words: each.silent_s for words, each in heard["here"].items() if each.silent_s > LONGEST_S}
    sys.exit(f"silent for too long: {silent}" if silent else 0)


if __name__ == "__main__":
    main()
