"""Does each file of a hot folder get one result while the processes that work on it are killed?

    python -m benchmarks.chaos_hot_folder [--files 10000] [--kills 10] [-o FILE]

A server, a worker of a line that answers at once, and `pigeonhole hotfolder --line`. While files are dropped the oldest
process is killed at even distances and another started; for the second half of the run two work on the folder. At the
end every file must lie in `done/` once, with its own bytes and one sidecar, `in/` and `working/` must be empty, and the
line must have one answer for each file. Exit code 1 if not. The last line is JSON.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_run, keep
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.hot_folder.folders import open_hot_folder
from tests.support.hot_folders import HotFolderProcesses, Scans
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.server import running_server

PATIENCE_S = 1800.0
AHEAD = 500  # files that lie in `in/`


def main() -> None:
    """Run, judge, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it ends the processes that it started
    with tempfile.TemporaryDirectory(prefix="ph-hot-folder-") as folder:
        figures = run(Path(folder), options.files, options.kills)
    for name, value in figures.items():
        print(f"{name:24}{value!s:>12}")
    keep(describe_run("chaos_hot_folder") | figures, "chaos-hot-folder", options.output)
    sys.exit(bool(figures["broken_promises"]))


def run(folder: Path, num_files: int, num_kills: int) -> dict[str, Any]:
    """Drop the files, kill the processes, and compare."""
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        enter_line(server.url, make_line(deadline_ms=60_000))
        stack.enter_context(line_worker(server.url))
        scans = Scans(open_hot_folder(folder / "scans").path)
        environment = {"PIGEONHOLE_HOME": str(folder / "home"), "PIGEONHOLE_SERVER_URL": server.url}
        processes = HotFolderProcesses(
            scans.path, ["--line", "post", "--poll", "100ms"], environment, log=folder / "log"
        )
        stack.callback(processes.close)
        started = time.monotonic()
        kills = drop_and_kill(scans, processes, num_files, num_kills)
        seconds = time.monotonic() - started
        codes = processes.stop()  # one that was started a moment ago has no handler yet
        answers = LineStore(connect_raw(server.url), "post").counts()["answers"]
        broken = judge(scans, {b"image %d" % number for number in range(num_files)}, lambda facts: facts["bin"] == "1")
        broken += [f"the line has {answers} answers, {num_files} wanted"] if answers != num_files else []
        broken += [f"a process ended with {code}" for code in codes if code not in (0, -signal.SIGTERM)]
        return {
            "files": num_files, "kills": kills, "seconds": round(seconds, 1), "answers_of_the_line": answers,
            "broken_promises": broken,
        }  # fmt: skip


def drop_and_kill(scans: Scans, processes: HotFolderProcesses, num_files: int, num_kills: int) -> int:
    """Drop files, a few hundred ahead of those that are done, and kill at even distances; the number of kills."""
    processes.start()
    kills = dropped = 0
    for done in _follow(scans, num_files):
        for number in range(dropped, min(done + AHEAD, num_files)):
            scans.drop(f"{number:06}.jpg", b"image %d" % number)
        dropped = min(done + AHEAD, num_files)
        if len(processes.running) < 1 + (done >= num_files // 2):
            processes.start()
        if kills < num_kills and done >= (kills + 0.5) * num_files / num_kills:
            processes.kill()
            processes.start()
            kills += 1
    return kills


def _follow(scans: Scans, num_files: int) -> Iterator[int]:
    """How many files are done, now and then, until all are."""
    until = time.monotonic() + PATIENCE_S
    while (done := _num_sidecars(scans)) < num_files:
        if time.monotonic() > until:
            raise TimeoutError(f"{done} of {num_files} files are done after {PATIENCE_S} s")
        yield done
        time.sleep(0.05)


def _num_sidecars(scans: Scans) -> int:
    return sum(name.endswith(".json") and not name.startswith(".") for name in _listed(scans, "done"))


def _listed(scans: Scans, part: str) -> list[str]:
    return [path.name for path in (scans.path / part).iterdir()]


def judge(scans: Scans, wanted: Set[bytes], is_answer: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    """Which promises were broken. wanted: the contents of all files that were dropped. is_answer: of a sidecar."""
    broken = [f"{part}/ holds {names[:5]}" for part in ("in", "working", "error") if (names := scans.names(part))]
    broken += [f"{part}/ holds {names[:5]}" for part in ("done", "working") if (names := scans.hidden(part))]
    images = [name for name in scans.names("done") if not name.endswith(".json")]
    contents = Counter((scans.path / "done" / name).read_bytes() for name in images)
    lost, doubled = wanted - contents.keys(), [content for content, times in contents.items() if times > 1]
    strange = [content for content in contents if content not in wanted]
    broken += [f"{len(lost)} files lost"] if lost else []
    broken += [f"{len(doubled)} files doubled"] if doubled else []
    broken += [f"{len(strange)} files with other bytes"] if strange else []
    without = [name for name in images if not _is_answered(scans, name, is_answer)]
    broken += [f"{len(without)} files without an answer: {without[:5]}"] if without else []
    return broken


def _is_answered(scans: Scans, name: str, is_answer: Callable[[Mapping[str, Any]], bool]) -> bool:
    try:
        return is_answer(scans.sidecar(name))
    except (FileNotFoundError, json.JSONDecodeError):
        return False


if __name__ == "__main__":
    main()
