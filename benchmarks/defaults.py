"""Whether `pigeonhole train` without options takes the right network: the tables of `docs/training.md`.

`python -m benchmarks.defaults [--rows a,b,c,d] [--sets NAME,..] [--variants NAME,..] [--seeds N] [--data DIR] -o FILE`
trains in processes of their own, as a worker does, with what the submission chooses. Rows of the table:
  a  cats and dogs without options, weights imported: seeds 0 to 4
  b  the same without any weights, and `--arch cnn`
  c  every data set without options, beside each architecture that one might name: seed 0 of all, then the others
  d  the qualities on every data set, seed 0
A cell is one training. FILE keeps each as it ends, and those that it has are not trained again, so a run that was
stopped goes on. A choice that comes to the same training as another cell is not repeated. `cpu_seconds` is the
processor time of all threads, which other work on the machine changes little; `seconds` are those of a clock.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy import in_child
from benchmarks.accuracy_data import characters, cifar10, mnist, photographs
from benchmarks.defaults_table import NAMED, NO_WEIGHTS, PLAIN, tables
from benchmarks.machine import describe_run
from modeling.networks.pretrained.store import WeightsStore
from modeling.networks.quality import DEFAULT_QUALITY, QUALITIES
from modeling.training.request import TrainOptions, TrainRequest
from orchestrator.contract.settings import Settings
from orchestrator.jobs.specs import TrainSpec
from orchestrator.jobs.training import resolve_training

SETS: dict[str, Callable[[Path, Path], Path]] = {
    "mnist": mnist,
    "cifar10": cifar10,
    "notmnist": photographs("notmnist"),
    "chars74k_fnt": characters,
    "cats_dogs": photographs("cats_dogs"),
    "grocery_products": photographs("grocery_products"),
    "postcards": photographs("postcards/images"),
}
WEIGHTS = "weights/mobilenet_v2_rebuilt.pth"
ROWS = ("a", "b", "c", "d")
OTHER_QUALITIES = [name for name in QUALITIES if name != DEFAULT_QUALITY]
_SAME = ("architecture", "epochs", "batch_size", "learning_rate", "image_size")  # and whether it starts from weights


@dataclass(frozen=True, order=True)
class Cell:
    """One training: a data set, what is asked for, and the seed."""

    data: str
    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.data}/{self.variant}/{self.seed}"


Trained = dict[str, Any]


class CellTrainer:
    """Trains cells below a scratch folder.

    Two homes: one where the weights were imported, one without any; torchvision's cache is an empty folder.
    """

    def __init__(self, data: Path, scratch: Path) -> None:
        self._data, self._scratch = data, scratch
        self._with, self._without = (Settings(home=scratch / name) for name in ("home", "bare-home"))
        os.environ["TORCH_HOME"] = str(scratch / "torch")

    def import_weights(self) -> None:
        """Import the weights, as `pigeonhole weights import` does."""
        from modeling.exchange.import_pretrained import import_pretrained  # torch

        import_pretrained(self._data / WEIGHTS, WeightsStore(self._with.imported_weights))

    def resolve(self, cell: Cell) -> TrainOptions:
        """The options that the submission makes of what the cell asks for."""
        settings = self._without if cell.variant == NO_WEIGHTS else self._with
        options: dict[str, object] = {"seed": cell.seed}
        if cell.variant in NAMED:
            options["architecture"] = cell.variant
        if cell.variant == "mobilenet_v2":
            options["weights"] = "mobilenet_v2"
        quality = next((name for name in QUALITIES if name == cell.variant), None)
        folder = SETS[cell.data](self._data, self._scratch)
        return resolve_training(settings, TrainSpec(folder, "benchmark", options, quality=quality)).options

    def train(self, cell: Cell, options: TrainOptions) -> Trained:
        """Train a cell; returns its figures."""
        output = self._scratch / str(cell).replace("/", "-")
        own: dict[str, Any] = {"output": str(output), "work": str(output.with_suffix(".work"))}
        request = TrainRequest.from_json(options.to_json() | own | {"cache": str(self._scratch / "cache")})
        seconds, cpu_seconds, _ = in_child(str(cell), request.to_json(), output.with_suffix(".json"))
        metrics = json.loads((output / "model.json").read_bytes())["metrics"]
        return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1), "metrics": metrics}


def planned(rows: Iterable[str], sets: Iterable[str], num_seeds: int) -> list[Cell]:
    """The cells of these rows, each once: seed 0 of everything first, so that an early stop leaves the most."""
    rows, sets = list(rows), list(sets)
    cells: list[Cell] = []
    for seed in range(max(5, num_seeds)):
        if "a" in rows and seed < 5:
            cells.append(Cell("cats_dogs", PLAIN, seed))
        if "b" in rows and seed < num_seeds:
            cells += [Cell("cats_dogs", variant, seed) for variant in (NO_WEIGHTS, "cnn")]
        if "c" in rows and seed < num_seeds:
            cells += [Cell(name, variant, seed) for name in sets for variant in (PLAIN, *NAMED)]
        if "d" in rows and seed == 0:
            cells += [Cell(name, variant, seed) for name in sets for variant in (PLAIN, *OTHER_QUALITIES)]
    return list(dict.fromkeys(cells))


def options_of(options: TrainOptions) -> dict[str, Any]:
    """What decides a training, of its options: equal for cells that come to the same training."""
    every = options.to_json()
    return {name: every.get(name) for name in _SAME} | {"from_weights": options.weights is not None}


def run_cell(trainer: CellTrainer, cell: Cell, done: dict[str, Trained]) -> Trained:
    """The figures of a cell: those of the same training if it is done, else of a new one."""
    options = trainer.resolve(cell)
    what = options_of(options)
    reason = {} if options.chosen is None else {"reason": options.chosen.reason}
    for name, other in done.items():
        data, _, seed = name.split("/")
        if (data, seed, other["options"]) == (cell.data, str(cell.seed), what):
            return asdict(cell) | other | asdict(cell) | reason | {"same_as": other.get("same_as", name)}
    return asdict(cell) | {"options": what} | reason | trainer.train(cell, options)


def main() -> None:
    """Train the cells that the file does not have yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--rows", default=",".join(ROWS), help="rows of the table, of a, b, c, d")
    parser.add_argument("--sets", default=",".join(SETS), help="data sets of rows c and d")
    parser.add_argument("--variants", help="these alone: default, or architectures; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0; row a always has 5")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the cells; it is continued")
    given = parser.parse_args()
    rows, sets = given.rows.split(","), given.sets.split(",")
    if unknown := (set(rows) - set(ROWS)) | (set(sets) - set(SETS)):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; rows are {', '.join(ROWS)}, sets {', '.join(SETS)}")
    if not given.data.is_dir():
        parser.error(f"there is no {given.data}; the data sets are not part of the repository")
    report = opened(given.output)
    with tempfile.TemporaryDirectory(prefix="pigeonhole-defaults-") as scratch:
        trainer = CellTrainer(given.data.resolve(), Path(scratch))
        trainer.import_weights()
        for cell in planned(rows, sets, given.seeds):
            if given.variants is not None and cell.variant not in given.variants.split(","):
                continue
            if str(cell) not in report["cells"]:
                report["cells"][str(cell)] = trained = run_cell(trainer, cell, report["cells"])
                print(f"{cell}: {trained['metrics'].get('test_accuracy')}, {trained['cpu_seconds']} s", flush=True)
                given.output.write_text(json.dumps(report, indent=2) + "\n")
    print("\n" + tables(report["cells"].values()))


def opened(path: Path) -> dict[str, Any]:
    """The cells of an earlier run on this kind of machine, or none.

    Raises:
        SystemExit: the file is of another machine: its times would not compare.
    """
    fresh: dict[str, Any] = {**describe_run("defaults"), "cells": {}}
    if not path.exists():
        return fresh
    before: dict[str, Any] = json.loads(path.read_bytes())
    for name in ("cpu", "cores", "versions"):
        if before[name] != fresh[name]:
            raise SystemExit(f"{path} is of {name} {before[name]}, not {fresh[name]}; name another file with -o")
    return fresh | {"date": before["date"], "cells": before["cells"]}


if __name__ == "__main__":
    main()
