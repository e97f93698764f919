"""How fast one old answer is found among millions in the files of the home.

`python -m benchmarks.lines.archive [--answers 4800000]` writes so many answers (a week of 8 a second) in files of
20,000 as a worker does, merges them, and looks up keys that are there and keys that are not; 2.3 GB of disk. Look-ups
are timed by the clock: run it on a quiet machine. A table for people, then JSON on the last line.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import describe_run
from orchestrator.contract.lines.answers import Verdict, encode_facts
from orchestrator.contract.lines.archive import AnswerArchive
from orchestrator.contract.lines.archive_files import choose_merge, merge_segments, remove_old_files, write_segment

IN_A_FILE = 20_000
MS_APART = 125
DAY_MS = 86_400_000
NUM_LOOK_UPS = 20_000
REST = encode_facts(
    label="3",
    score=0.654585,
    scores=[(str(label), 0.130917) for label in range(5)],
    model="digits@1",
    map_version=1,
    stage_ms={"queue": 1.57, "decode": 0.34, "device": 0.62},
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=4_800_000, help="how many answers to write")
    num = parser.parse_args().answers
    with tempfile.TemporaryDirectory(prefix="benchmark-archive-") as folder:
        figures = measure(Path(folder) / "answers", num)
    for name, value in figures.items():
        print(f"{name:28} {value:,.1f}")
    print(json.dumps(describe_run("lines.archive") | {"answers": num} | figures))


def measure(folder: Path, num: int) -> dict[str, float]:
    """Write, merge, look up."""
    archive = AnswerArchive(folder)
    write_s = merge_s = 0.0
    for first in range(0, num, IN_A_FILE):
        entries = [
            (key, record(key, place)) for place in range(first, min(first + IN_A_FILE, num)) for key in [name(place)]
        ]
        begun = time.process_time()
        write_segment(folder, entries, first * MS_APART, (first + len(entries)) * MS_APART)
        write_s += time.process_time() - begun
        while chosen := choose_merge(archive.segments(), DAY_MS):
            begun = time.process_time()
            merge_segments(folder, chosen)
            merge_s += time.process_time() - begun
            for path in folder.iterdir():
                os.utime(path, (1, 1))  # old enough for what it replaces to be removed
            remove_old_files(folder, archive.segments(), 0)
    chance = random.Random(1)
    there = [name(chance.randrange(num)) for _ in range(NUM_LOOK_UPS)]
    return {
        "files": float(len(archive.segments())),
        "bytes_per_answer": sum(path.stat().st_size for path in folder.iterdir()) / num,
        "write_cpu_us_per_answer": write_s / num * 1e6,
        "merge_cpu_us_per_answer": merge_s / num * 1e6,
        **look_up(archive, there, "there"),
        **look_up(archive, [f"2/{key}" for key in there], "not_there"),
    }


def look_up(archive: AnswerArchive, keys: Sequence[str], kind: str) -> dict[str, float]:
    """Microseconds of a look-up."""
    taken = []
    for key in keys:
        begun = time.perf_counter()
        found = archive.find(key)
        taken.append((time.perf_counter() - begun) * 1e6)
        assert (found is not None) == (kind == "there")
    cuts = statistics.quantiles(taken, n=1000)
    return {f"{kind}_p50_us": cuts[499], f"{kind}_p99_us": cuts[989], f"{kind}_p999_us": cuts[998]}


def name(place: int) -> str:
    return f"1/item-{place:09d}"


def record(key: str, place: int) -> bytes:
    """As the scripts store it."""
    at = 1_795_907_580_000 + place * MS_APART
    facts = f'"digest":"{place:064x}","admitted_ms":{at},"answered_ms":{at + 3},{REST}'
    return f'{{"key":"{key}",{Verdict("bin-3").encode()},{facts}}}'.encode()


if __name__ == "__main__":
    main()
