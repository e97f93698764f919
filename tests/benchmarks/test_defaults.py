"""The parts of `benchmarks.defaults` that train nothing: which cells there are, what is not repeated, the tables."""

import json

import pytest

from benchmarks.defaults import SETS, Cell, opened, planned, run_cell
from benchmarks.defaults_table import tables
from modeling.training.request import TrainOptions


class FakeTrainer:
    """Resolves every cell to the same options but for the architecture, and counts what it trains."""

    def __init__(self, architectures):
        self.architectures, self.trained = architectures, []

    def resolve(self, cell):
        return TrainOptions("data", self.architectures[cell.variant], seed=cell.seed)

    def train(self, cell, options):
        self.trained.append(str(cell))
        return {"seconds": 50.0, "cpu_seconds": 90.0, "metrics": {"test_accuracy": 0.9}}


def cell(data, variant, accuracy, seed=0, **options):
    every = {"architecture": "cnn", "from_weights": False, "image_size": None, "epochs": None} | options
    figures = {"cpu_seconds": 90.0, "metrics": {"test_accuracy": accuracy}}
    return {"data": data, "variant": variant, "seed": seed, "options": every} | figures


def test_each_cell_is_planned_once_and_seed_0_of_all_comes_first():
    cells = planned(["a", "b", "c", "d"], SETS, 3)

    assert len(set(cells)) == len(cells)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert [cell.seed for cell in cells if (cell.data, cell.variant) == ("cats_dogs", "default")] == [0, 1, 2, 3, 4]
    assert len({cell.data for cell in cells}) == len(SETS)


def test_the_same_training_is_not_repeated():
    trainer = FakeTrainer({"default": "speednet", "speednet": "speednet", "cnn": "cnn"})
    done = {}

    for one in (Cell("d", "default", 0), Cell("d", "speednet", 0), Cell("d", "cnn", 0), Cell("d", "speednet", 1)):
        done[str(one)] = run_cell(trainer, one, done)

    assert trainer.trained == ["d/default/0", "d/cnn/0", "d/speednet/1"]
    assert (done["d/speednet/0"]["same_as"], done["d/speednet/0"]["variant"]) == ("d/default/0", "speednet")
    assert done["d/speednet/0"]["metrics"] == done["d/default/0"]["metrics"]


def test_a_file_is_continued_on_the_same_machine_only(tmp_path):
    path = tmp_path / "cells.json"
    fresh = opened(path)
    path.write_text(json.dumps(fresh | {"date": "2026-01-02", "cells": {"d/cnn/0": cell("d", "cnn", 0.5)}}))

    assert opened(path) == fresh | {"date": "2026-01-02", "cells": {"d/cnn/0": cell("d", "cnn", 0.5)}}

    path.write_text(json.dumps(fresh | {"cpu": "another"}))
    with pytest.raises(SystemExit, match="is of cpu another, not"):
        opened(path)


def test_tables_compare_the_default_with_the_best_that_one_might_name():
    named = [cell("pets", "cnn", 0.6), cell("pets", "mobilenet_v2", 0.97, from_weights=True)]
    own = [cell("pets", "default", accuracy, seed, from_weights=True) for seed, accuracy in enumerate((0.98, 1.0))]
    fast = cell("pets", "fast", 0.95, image_size=96, epochs=3)

    beside, qualities = tables([*own, *named, fast]).split("\n\n")

    assert beside.splitlines()[2] == (
        "| pets | `cnn`, pre-trained | 0.9900 (n=2) | 1.5 | 0.6000 (n=1) | - | - | 0.9700 (n=1) "
        "| `mobilenet_v2`, +2.0 points |"
    )
    assert qualities.splitlines()[2] == (
        "| pets | `cnn`, 96 px, 3 epochs: 0.9500, 1.5 min | `cnn`, pre-trained: 0.9900, 1.5 min | - |"
    )
