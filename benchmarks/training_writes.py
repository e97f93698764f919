"""Does a training that is killed just before any of its writes, and made again, end with the same model, bit for bit?

    python -m benchmarks.training_writes --seed 7

Three small trainings: from scratch with a budget, from weights, whose probe is then fine-tuned, and one that is also
quantised. Each is made once undisturbed. Then its process is killed just before its first write (a file that is opened
for writing, a rename, a link, a removal, a new folder), and another one begins where that left its files; then before
its second one, and so on. Weights and card must be those of the undisturbed training. With `--sample 5`, five writes of
each, chosen by the seed. Prints each write at which they are not; the last line is JSON and is kept in
`benchmarks/results/`. Exit code 1 if there was any. Takes a quarter of an hour on 2 cores.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_run, keep
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE
from modeling.training.fit import budget
from modeling.training.request import TrainRequest
from modeling.training.train import train
from tests.support.fakes import exit_code_of
from tests.support.images import make_class_folders

KILLED = 9
KEPT = (WEIGHTS_FILE, CARD_FILE)
_WRITES = {"os.rename", "os.link", "os.remove", "os.mkdir"}


class Killer:
    """Ends this process just before it writes below a folder for the n-th time, counted from 0."""

    def __init__(self, folder: Path, number: int, noted: Path) -> None:
        """noted: a file that gets a line for each write before that."""
        self._folder, self._number = str(folder), number
        self._noted = noted.open("w")

    def install(self) -> None:
        sys.addaudithook(self._hear)  # never removed: this process ends soon

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not _is_write(event, arguments) or not any(str(each).startswith(self._folder) for each in arguments):
            return
        if self._number == 0:
            os._exit(KILLED)
        self._number -= 1
        print(event, str(arguments[0]).removeprefix(self._folder), file=self._noted, flush=True)


def _is_write(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    return event in _WRITES


def trainings(folder: Path) -> dict[str, TrainRequest]:
    """The requests; the weights that one of them starts from are trained here, in a process of their own."""
    data = make_class_folders(folder / "data", 20)
    base = TrainRequest(data, "cnn", folder / "base", epochs=4, batch_size=8, learning_rate=5e-3)
    _require(exit_code_of(lambda: _train(base)), "the training that makes the weights")
    return {
        "from scratch, with a budget": replace(base, epochs=2, budget_s=600.0),
        "from weights, fine-tuned": replace(base, weights=str(base.output), epochs=2, learning_rate=None, seed=1),
        "quantised": replace(base, epochs=1, int8=True),
    }


def _train(request: TrainRequest) -> None:
    budget._WRITE_EVERY_S = 0.0  # note after each step, not every few seconds
    train(request, lambda event: None)


def _attempt(request: TrainRequest, folder: Path, number: int, *, kill_at: int) -> int:
    """One attempt at a training in its folder, in a process of its own; its exit code."""
    asked = replace(request, output=folder / f"model.{number}", work=folder / "work", cache=folder / "cache")
    killer = Killer(folder, kill_at, folder.with_suffix(".writes"))

    def run() -> None:
        killer.install()
        _train(asked)

    return exit_code_of(run)


def kill_at_writes(
    name: str, request: TrainRequest, folder: Path, choose: Callable[[Sequence[int]], Sequence[int]]
) -> dict[str, Any]:
    """Kill a training before some of its writes, each time in a new folder; the figures."""
    whole = folder / "whole"
    whole.mkdir(parents=True)
    _require(_attempt(request, whole, 1, kill_at=sys.maxsize), f"{name}: the undisturbed training")
    expected = [(whole / "model.1" / file).read_bytes() for file in KEPT]
    writes = whole.with_suffix(".writes").read_text().splitlines()
    differ: list[str] = []
    chosen = choose(range(len(writes)))
    for number in chosen:
        killed = folder / f"{number}"
        killed.mkdir()
        if _attempt(request, killed, 1, kill_at=number) != KILLED:
            differ.append(f"{number}: was not killed")
            continue
        code = _attempt(request, killed, 2, kill_at=sys.maxsize)
        if code or [(killed / "model.2" / file).read_bytes() for file in KEPT] != expected:
            differ.append(f"{number}: {writes[number]}, exit code {code}")
            print(f"{name}: killed before write {differ[-1]}: not the same model", flush=True)
    return {"training": name, "num_writes": len(writes), "num_killed": len(chosen), "differ": differ}


def _require(code: int, what: str) -> None:
    assert code == 0, f"{what} failed with exit code {code}"


def run(folder: Path, seed: int, num_sampled: int | None) -> dict[str, Any]:
    """All trainings; the figures."""
    chance = random.Random(seed)

    def choose(numbers: Sequence[int]) -> Sequence[int]:
        return numbers if num_sampled is None else sorted(chance.sample(numbers, min(num_sampled, len(numbers))))

    rows = []
    for number, (name, request) in enumerate(trainings(folder).items()):
        rows.append(kill_at_writes(name, request, folder / f"training-{number}", choose))
        print(rows[-1], flush=True)
    return {"seed": seed, "trainings": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--sample", type=int, help="writes of each training, instead of all")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ph-training-writes-") as folder:
        figures = run(Path(folder), given.seed, given.sample)
    keep(describe_run("training_writes") | figures, "training-writes", given.output)
    sys.exit(1 if any(row["differ"] for row in figures["trainings"]) else 0)


if __name__ == "__main__":
    main()
