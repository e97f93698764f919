"""Whether two checkouts publish the same bytes: a fixed set of trainings and jobs, run on each and compared.

    python -m benchmarks.outputs -o after.json
    python -m benchmarks.outputs --checkout ../before -o before.json
    python -m benchmarks.outputs --compare before.json after.json
    python -m benchmarks.outputs --against ../before        all three in one

Works through the command line alone, so that the checkout may be an older or a later one. Everything runs in one
folder at a fixed path, as paths stand in outputs, with a server and a worker of its own. Nothing is chosen by timing:
trainings are `--deterministic`, shards and batches have fixed sizes, and the engine of each precision is written
down before the jobs, where Pigeonhole remembers the fastest. Both runs belong on one machine. `outputs_document.py`
lists what is left out of the comparison, and why.
"""

import argparse
import fcntl
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_run
from benchmarks.outputs_data import find_shared
from benchmarks.outputs_document import compare
from benchmarks.outputs_steps import Run

ROOT = Path(__file__).parent.parent
FOLDER = Path(tempfile.gettempdir()) / "pigeonhole-outputs"


def collect(checkout: Path, shared: Path | None) -> dict[str, Any]:
    """Run everything on a checkout: what was run, and its outputs by name."""
    started = time.monotonic()
    with alone():
        outputs = Run(checkout, FOLDER, shared).all_steps().outputs
    print(f"{len(outputs)} outputs of {checkout} in {time.monotonic() - started:.0f} s")
    facts = {name: fact for name, fact in describe_run("outputs").items() if name != "command"}
    return {"commit": _commit(checkout), "real_images": shared is not None, **facts, "outputs": outputs}


@contextmanager
def alone() -> Iterator[None]:
    """One run at a time: the folder is the same for all."""
    with FOLDER.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another run uses {FOLDER}: waiting for its end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _commit(checkout: Path) -> str:
    """What git calls the checkout, with -dirty where files are changed; empty where there is no git."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def report(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print every difference; the exit code."""
    differences = list(compare(before["outputs"], after["outputs"]))
    for line in differences:
        print(line)
    names = len(before["outputs"].keys() | after["outputs"].keys())
    print(f"{names} outputs, {len(differences)} differences" if differences else f"{names} outputs, all the same")
    return 1 if differences else 0


def main() -> int:
    """Run, compare, or both."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server and the worker are stopped, too
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write the outputs of the checkout to")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose code runs; default: this one")
    parser.add_argument("--data", type=Path, help="folder of real images; default: ../shared/data of this checkout")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="two files of -o")
    parser.add_argument("--against", type=Path, metavar="DIR", help="run on the checkout DIR, too, and compare")
    given = parser.parse_args()
    if given.compare:
        before, after = (json.loads(path.read_bytes()) for path in given.compare)
        return report(before, after)
    if not given.output and not given.against:
        parser.error("give -o FILE, --against DIR or --compare BEFORE AFTER")
    shared = given.data or find_shared(ROOT)
    if shared is None:
        print("no real images: their trainings and jobs are left out")
    before = collect(given.against.resolve(), shared) if given.against else None
    after = collect(given.checkout.resolve(), shared)
    if given.output:
        given.output.write_text(json.dumps(after, indent=1) + "\n")
    return report(before, after) if before else 0


if __name__ == "__main__":
    sys.exit(main())
