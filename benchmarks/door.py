"""How long the door takes: the help, also the slowest of all, and the first answer of a worker that is started.

    python -m benchmarks.door                         # this checkout
    python -m benchmarks.door --baseline ../before    # and another one, in turns with it

The help is compared with what bounds it: the interpreter alone, and with the import of click. The first answer is that
of `benchmarks.worker`: from a worker's start, beside a server that runs, to the published manifest of one photograph by
`resnet18`, whose engine was chosen before. Needs no data; half a minute to prepare each checkout, 10 s a start.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.machine import describe_run, keep

HERE = Path(__file__).parent.parent
HELP = "from orchestrator.cli import main; main()"
COMMANDS = "from tests.support.commands import EVERY_COMMAND; print(*EVERY_COMMAND, sep='\\n')"
STARTS = """
import sys
from pathlib import Path
from benchmarks.throughput_folders import FOLDERS
from benchmarks.worker import Bench, measure_start
scratch = Path(sys.argv[1])
scratch.mkdir()
bench = Bench(scratch)
FOLDERS["photographs"](scratch / "one", 1)
print("ready", flush=True)
for line in sys.stdin:
    print(measure_start(bench, scratch / "one", 1)["first_answer_s"], flush=True)
"""
"""Run in a process of each checkout: for each line that it reads it starts a worker, and prints seconds."""


class Starts:
    """Starts workers of one checkout, in a process that has imported it."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", STARTS, str(folder)], env=_environment(root), cwd=folder.parent, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> "Starts":
        if self._line() != "ready":
            raise RuntimeError("the checkout cannot be measured; see above")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def first_answer_s(self) -> float:
        assert self._process.stdin is not None
        print("start", file=self._process.stdin, flush=True)
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _environment(root: Path) -> dict[str, str]:
    """With the code of a checkout; `-P`, as `-c` would import from the present folder.

    Its bytecode is kept, as it is where Pigeonhole is installed.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"}


def time_process(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds of a command, and of processor time; its output goes nowhere. Raises OSError where it fails."""
    nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    begun = time.perf_counter()
    pid = os.posix_spawn(command[0], list(command), environment, file_actions=nowhere)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise OSError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime


def time_help(roots: Mapping[str, Path], runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds by what was run, all in turns."""
    commands = {"interpreter": (["-c", ""], HERE), "import click": (["-c", "import click"], HERE)}
    for name, root in roots.items():
        for words in ("", "models", "classify", slowest_help(root)):
            arguments = [*words.split(), "--help"]
            commands[f"{name}: {' '.join(arguments)}"] = (["-c", HELP, *arguments], root)
    times: dict[str, list[tuple[float, float]]] = {label: [] for label in commands}
    for _ in range(runs + 1):
        for label, (command, root) in commands.items():
            times[label].append(time_process([sys.executable, *command], _environment(root)))
    return {label: _summary(each[1:]) for label, each in times.items()}  # the first run reads the files


def slowest_help(root: Path) -> str:
    """The words of the command of a checkout whose help takes most processor time, by the faster of two runs."""

    def seconds(words: str) -> float:
        command = [sys.executable, "-c", HELP, *words.split(), "--help"]
        return min(time_process(command, _environment(root))[1] for _ in range(2))

    listed = subprocess.check_output([sys.executable, "-c", COMMANDS], env=_environment(root), text=True)
    return max(listed.splitlines(), key=seconds)


def _summary(times: Sequence[tuple[float, float]]) -> dict[str, float]:
    wall, used = zip(*times, strict=True)
    facts = {"wall_median": statistics.median(wall), "wall_min": min(wall), "processor_min": min(used)}
    return {f"{name}_ms": round(1000 * seconds, 1) for name, seconds in facts.items()}


def time_starts(roots: Mapping[str, Path], num_starts: int, folder: Path) -> dict[str, list[float]]:
    """Seconds to the first answer of each start, by checkout, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in roots}
    with ExitStack() as stack:
        starts = {name: stack.enter_context(Starts(root, folder / name)) for name, root in roots.items()}
        for _ in range(num_starts):
            for name, each in starts.items():
                seconds[name].append(each.first_answer_s())
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, help="Another checkout to run in turns with this one.")
    parser.add_argument("--starts", type=int, default=5, help="Starts of a worker; 0: only the help.")
    parser.add_argument("--help-runs", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, help="Where to keep the result.")
    asked = parser.parse_args()
    roots = ({"baseline": asked.baseline.resolve()} if asked.baseline else {}) | {"here": HERE}
    helped = time_help(roots, asked.help_runs)
    for label, facts in helped.items():
        print(f"{label:30} {facts}")
    with tempfile.TemporaryDirectory(prefix="pigeonhole-door-") as folder:
        starts = time_starts(roots, asked.starts, Path(folder)) if asked.starts else {}
    for name, times in starts.items():
        print(f"{name}: first answer, median {statistics.median(times):.2f} s, fastest {min(times):.2f} s")
    keep(describe_run("door") | {"help": helped, "first_answer_s": starts}, "door", asked.output)


if __name__ == "__main__":
    main()
