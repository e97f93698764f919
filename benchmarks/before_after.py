"""What a change costs an undisturbed job: two checkouts beside each other, their jobs in turns in one run.

    make bench-jobs BASELINE=../before            a checkout of the commit to compare with; about ten minutes
    python -m benchmarks.before_after ../before --repeats 3 --num-images 5000 --num-photographs 50

Each checkout has a server and a worker of its own; jobs run one at a time, in the order A B B A. Reported are the
ratios after/before of wall time and of processor time (command, server and worker together), the median over the pairs
and their range, whether both wrote the same manifest, and the commits. Both use the environment of this Python. Prints
a table; the last line is JSON, which is kept in `benchmarks/results/`. Exit code 1 if a median is over 1.02, or the
manifests differ. One ratio says little here: jobs of seconds differ by a tenth and more from run to run.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any

from benchmarks.machine import describe_run, keep
from tests.support.published_models import make_photographs, make_pngs

LIMIT = 1.02  # of a median ratio
ROOT = Path(__file__).parents[1]
_numbers = count()


@dataclass
class Checkout:
    """A process of `undisturbed.py` with one checkout."""

    folder: Path
    process: subprocess.Popen[str]

    def run(self, source: Path, output: Path) -> dict[str, float]:
        """Run one job; returns what it took."""
        self._input.write(json.dumps({"source": str(source), "output": str(output)}) + "\n")
        self._input.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that it writes."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.folder}: the process ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def _input(self) -> IO[str]:
        assert self.process.stdin is not None
        return self.process.stdin


@contextlib.contextmanager
def opened(folder: Path, home: Path, engines: Path) -> Iterator[Checkout]:
    """A checkout with a running stack."""
    command = [sys.executable, "-P", str(ROOT / "benchmarks" / "undisturbed.py"), str(home), str(engines)]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    with subprocess.Popen(
        command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        checkout = Checkout(folder, process)
        try:
            found = checkout.answer()["checkout"]
            if not Path(found).is_relative_to(folder):
                raise RuntimeError(f"{folder} was asked for, and {found} is what Python imports")
            yield checkout
        finally:
            assert process.stdin is not None
            process.stdin.close()


def commit_of(folder: Path) -> str:
    """The commit of a checkout, with a `+` where files that are in it were changed."""
    git = ("git", "-C", str(folder))
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--"], check=False).returncode
    return commit + "+" * bool(changed)


def compare(before: Checkout, after: Checkout, source: Path, outputs: Path, repeats: int) -> dict[str, Any]:
    """Jobs of one source, in turns: ratios after/before, and whether the manifests are the same."""
    took: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    manifests = set()
    for number in range(repeats):
        pair = [("before", before), ("after", after)]
        for name, checkout in pair if number % 2 == 0 else pair[::-1]:
            output = outputs / f"{name}-{next(_numbers)}.csv"
            took[name].append(checkout.run(source, output))
            manifests.add(output.read_bytes())
    found: dict[str, Any] = {"same_manifest": len(manifests) == 1}
    for what in ("seconds", "processor_seconds"):
        pairs = [(old[what], new[what]) for old, new in zip(took["before"], took["after"], strict=True)]
        ratios = [new / old for old, new in pairs]
        found[what] = {
            "before": round(statistics.median(old for old, _ in pairs), 4),
            "after": round(statistics.median(new for _, new in pairs), 4),
            "ratio": round(statistics.median(ratios), 4),
            "of_least": round(min(new for _, new in pairs) / min(old for old, _ in pairs), 4),
            "ratios": [round(ratio, 4) for ratio in sorted(ratios)],
        }
    return found


def what_is_worse(found: dict[str, Any]) -> list[str]:
    """The jobs that take longer than allowed, and those that have other manifests."""
    slower = [
        f"{kind}: {what} after/before {each[what]['ratio']:.3f}, allowed {LIMIT}"
        for kind, each in found.items()
        for what in ("seconds", "processor_seconds")
        if each[what]["ratio"] > LIMIT
    ]
    return slower + [f"{kind}: other manifests" for kind, each in found.items() if not each["same_manifest"]]


def main() -> None:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", type=Path, help="a checkout of the commit to compare with")
    parser.add_argument("--repeats", type=int, default=10, help="pairs of jobs of each kind")
    parser.add_argument("--num-images", type=int, default=40_000, help="28x28 PNGs of a job")
    parser.add_argument("--num-photographs", type=int, default=400, help="1800x1200 JPEGs of a job")
    parser.add_argument("-o", "--output", type=Path, help="the file for the result; default: below results/")
    arguments = parser.parse_args()
    homes = {"before": arguments.baseline.resolve(), "after": ROOT}
    commits = {home: commit_of(path) for home, path in homes.items()}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="ph-before-after-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "engines").mkdir()
        make_pngs(folder / "warm", 1)
        make_pngs(folder / "tiny images", arguments.num_images)
        make_photographs(folder / "photographs", arguments.num_photographs)
        before, after = (
            stack.enter_context(opened(path, folder / home, folder / "engines")) for home, path in homes.items()
        )
        compare(before, after, folder / "warm", folder, 1)
        for kind in ("tiny images", "photographs"):
            found[kind] = compare(before, after, folder / kind, folder, arguments.repeats)
            for what in ("seconds", "processor_seconds"):
                each = found[kind][what]
                spread = f"{each['ratios'][0]:.3f} to {each['ratios'][-1]:.3f}"
                text = f"{each['before']:8.2f} {each['after']:8.2f}  after/before {each['ratio']:.3f} ({spread})"
                print(f"{kind:12} {what:18} {text}, of the least {each['of_least']:.3f}", flush=True)
    described = describe_run("before_after") | {"repeats": arguments.repeats}
    described |= {"num_images": arguments.num_images, "commits": commits}
    worse = what_is_worse(found)
    print("\n".join(worse))
    keep(described | {"jobs": found, "worse": worse}, "before_after", arguments.output)
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
