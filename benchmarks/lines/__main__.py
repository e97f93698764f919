"""How soon and how many pushed images are answered: the promises of lines, measured row by row.

    make bench-lines                                     all parts but `million`; about half an hour on 2 CPU cores
    python -m benchmarks.lines idle half --seconds 20    some parts
    python -m benchmarks.lines million --count 1000000 --folder /tmp/million

Starts its own server and worker in a temporary home; the load generator is a process of its own, and what it costs is
part of what is measured. mobilenet_v2 of `../shared/data` answers photographs of about 500x375; without these data, the
same network with random weights answers noise of that size. `--digits`: a small network and 28x28 images. Comparisons
are made in turns within one run, and medians count. Prints a table; the last line is JSON and is kept in
`benchmarks/results/`. Exit code 1 where something is not as required.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.lines import beside_jobs, deadlines, faults, floor, gateway, million, peers, speed
from benchmarks.lines.bench import Bench, Options, Part, Row
from benchmarks.lines.system import DIGITS, PHOTOGRAPHS, Subject, open_system
from benchmarks.machine import describe_run, keep

PARTS: dict[str, Part] = {
    "idle": speed.idle, "saturated": speed.saturated, "half": speed.half, "mixed": deadlines.mixed,
    "overload": deadlines.overload, "peers": peers.peers, "beside_job": beside_jobs.beside_job,
    "together": beside_jobs.together, "dead_workers": faults.dead_workers, "moved_alias": faults.moved_alias,
    "cpu": speed.cpu, "floor": floor.floor, "gateway_idle": gateway.gateway_idle, "gateway_cpu": gateway.gateway_cpu,
    "gateway_saturated": gateway.gateway_saturated, "gateway_peers": gateway.gateway_peers,
    "gateway_slow": gateway.gateway_slow,
}  # fmt: skip
MILLION = "million"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit if it is not valid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all but {MILLION}; of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--repeats", type=int, default=3, help="of each comparison; medians count")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    parser.add_argument("--digits", action="store_true", help="28x28 images and a small network")
    parser.add_argument("--count", type=int, default=1_000_000, help=f"pushes of {MILLION}")
    parser.add_argument("--folder", type=Path, help=f"where {MILLION} keeps its home, to go on after a stop")
    parser.add_argument("-o", "--output", type=Path, help="file of the result; default: in benchmarks/results")
    options = parser.parse_args(arguments)
    options.parts = options.parts or list(PARTS)
    if unknown := set(options.parts) - {*PARTS, MILLION}:
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; choose of {', '.join([*PARTS, MILLION])}")
    if options.seconds <= 0 or options.repeats < 1 or options.count < 1:
        parser.error("--seconds, --repeats and --count must be positive")
    return options


def measure(names: list[str], subject: Subject, options: Options, scratch: Path) -> tuple[list[Row], dict[str, Any]]:
    """The rows of the parts, all on one running system, and what was measured with."""
    rows: list[Row] = []
    with open_system(scratch, subject) as system:
        bench = Bench(system, options)
        facts: dict[str, Any] = {"network": subject.network, "images": system.contents, "weights": system.weights}
        for name in names:
            started = time.monotonic()
            _log(f"{name}: {' '.join((PARTS[name].__doc__ or '').split())}")
            rows += _rows(name, bench)
            _log(f"    {time.monotonic() - started:.0f} s")
        facts["worker"] = system.facts
    return rows, facts


def _rows(name: str, bench: Bench) -> list[Row]:
    """The rows of a part; one that fails is a row that is not met, so that the others are measured."""
    try:
        found = PARTS[name](bench)
    except Exception as err:  # also of the system under test
        _log(traceback.format_exc())
        found = [Row(name, "", f"failed: {type(err).__name__}: {err}", met=False)]
    for row in found:
        print(row.line(), flush=True)
    return found


def main() -> None:
    """Measure, print, and keep the result."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it ends the processes that it started
    wanted = Options(options.seconds, options.repeats, options.seed)
    subject = DIGITS if options.digits else PHOTOGRAPHS
    load_before, _, _ = os.getloadavg()
    names = [name for name in options.parts if name != MILLION]
    rows: list[Row] = []
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="ph-lines-") as scratch:
        if names:
            rows, facts = measure(names, subject, wanted, Path(scratch) / "bench")
        if MILLION in options.parts:
            rows += million.run(options.folder or Path(scratch) / MILLION, options.count, wanted)
    print("\n| what | required | measured | met |\n|---|---|---|---|")
    print("\n".join(row.line() for row in rows))
    asked = {"parts": options.parts, "seconds": options.seconds, "repeats": options.repeats, "seed": options.seed}
    found = {"load_before": round(load_before, 2), "subject": facts, "rows": [asdict(row) for row in rows]}
    keep(describe_run("lines") | asked | {"peers": peers.SETTINGS} | found, "lines", options.output)
    sys.exit(any(row.met is False for row in rows))


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
