"""What happens to jobs when what is around them fails: the server, the network, clocks, disks and shares?

    python -m benchmarks.surroundings                 all faults; a quarter of an hour
    python -m benchmarks.surroundings network clock   those whose names have one of these words

Runs a classify job through a real server and two real workers for each fault, and compares its manifest with that of
an undisturbed job. It prints a table of fault, expected and found; the last line is JSON and is kept in
`benchmarks/results/`. Exit code 1 if something was not as expected. Faults that need root or a C compiler are skipped
where these are absent.
"""

import argparse
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import describe_run, keep
from benchmarks.surroundings_clocks import CLOCK_FAULTS
from benchmarks.surroundings_disks import DISK_FAULTS
from benchmarks.surroundings_hanging import HANGING_FAULTS
from benchmarks.surroundings_lines import LINE_FAULTS
from benchmarks.surroundings_network import NETWORK_FAULTS
from benchmarks.surroundings_rig import Fault, Found, open_rig
from benchmarks.surroundings_server import SERVER_FAULTS
from tests.support.frozen_share import CAN_MOUNT
from tests.support.small_disk import leave_mounts

FAULTS = (*SERVER_FAULTS, *NETWORK_FAULTS, *CLOCK_FAULTS, *DISK_FAULTS, *HANGING_FAULTS, *LINE_FAULTS)


def run_faults(faults: Sequence[Fault], folder: Path, *, num_images: int = 240) -> list[tuple[Fault, Found]]:
    """Inject each fault into a job of its own; what breaks one ends no other."""
    results = []
    with open_rig(folder, num_images) as rig:
        for fault in faults:
            rig.ensure_workers()
            started = time.monotonic()
            try:
                found = fault.inject(rig) if fault.skip is None else Found(f"skipped: {fault.skip}", ok=True)
            except Exception as err:
                traceback.print_exc()
                found = Found(f"{type(err).__name__}: {err}"[:500], ok=False)
            results.append((fault, found))
            mark = "" if fault.skip else "ok" if found.ok else "BROKEN"
            print(f"{time.monotonic() - started:6.1f} s  {fault.name}: {found.text}  {mark}", flush=True)
    return results


def main() -> None:
    """Inject the faults, print the table, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only faults whose names have one of these words")
    parser.add_argument("--num-images", type=int, default=240, help="photographs in each job")
    arguments = parser.parse_args()
    chosen = [fault for fault in FAULTS if not arguments.words or any(word in fault.name for word in arguments.words)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it ends the processes that it started
    if CAN_MOUNT:
        leave_mounts()
    with tempfile.TemporaryDirectory(prefix="ph-surroundings-") as folder:
        results = run_faults(chosen, Path(folder), num_images=arguments.num_images)
    print(f"\n{'fault':52}{'expected':62}found")
    for fault, found in results:
        print(f"{fault.name:52}{fault.expected:62}{found.text}{'' if found.ok else '  BROKEN'}")
    num_skipped = sum(fault.skip is not None for fault, _ in results)
    print(f"{len(results)} faults, {num_skipped} of them skipped")
    rows = [
        {"fault": fault.name, "expected": fault.expected, "found": found.text.replace(f"{folder}/", ""), "ok": found.ok}
        for fault, found in results
    ]
    keep(describe_run("surroundings") | {"skipped": num_skipped, "faults": rows}, "surroundings")
    sys.exit(not all(found.ok for _, found in results))


if __name__ == "__main__":
    main()
