"""Accuracy and training time of our networks: the table of `docs/tutorial.md`.

`python -m benchmarks.accuracy [--only NAME,...] [--data DIR] [-o FILE]` trains every row in a process of its own, as
a worker does, and takes the figures from the resulting model: the test part is used once, by the training
itself. One row is a network as others trained it, which is only evaluated. Times are wall-clock seconds of the whole
process; `cpu_seconds` is the processor time of all its threads, which shows runs on a busy machine. A table
for people, then JSON on the last line.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.accuracy_data import IMAGENET_LABELS, characters, cifar10, imagenet, mnist, photographs
from benchmarks.machine import describe_run
from modeling.evaluation.request import EVALUATION_FILE, EvaluateRequest
from modeling.training.process import CHILD_ENVIRONMENT
from modeling.training.request import TrainRequest


@dataclass(frozen=True)
class Goal:
    """A row of the table.

    data: where its data are, made ready below a folder of the benchmark's own.
    trained: whether it is trained; else the weights of its options are imported and evaluated as they are.
    course: the accuracy of the course that the project grew from. wanted: what we want to reach.
    seconds: what it may take. splits: seeds of as many random splits, averaged.
    """

    name: str
    title: str
    data: Callable[[Path, Path], Path]
    options: dict[str, Any]
    course: str = ""
    wanted: float | None = None
    seconds: float | None = None
    splits: int = 1
    trained: bool = True


@dataclass
class Run:
    """One training of a row."""

    seconds: float
    cpu_seconds: float
    metrics: dict[str, float]
    phases: dict[str, float] = field(default_factory=dict)


MOBILENET = {"architecture": "mobilenet_v2", "weights": "weights/mobilenet_v2_rebuilt.pth"}
GOALS = (
    Goal("mnist-perceptron", "MNIST, `perceptron`", mnist, {"architecture": "perceptron"}, "0.896", 0.92),
    Goal("mnist-mlp", "MNIST, `mlp`", mnist, {"architecture": "mlp"}, "0.963", 0.985, 90),
    Goal("mnist-cnn", "MNIST, `cnn`", mnist, {"architecture": "cnn"}, "0.976", 0.985),
    Goal("mnist-pyramid", "MNIST, `cnn_pyramid`", mnist, {"architecture": "cnn_pyramid"}, "0.981", 0.992, 180),
    Goal("mnist-glyphnet", "MNIST, `glyphnet`", mnist, {"architecture": "glyphnet"}, "", 0.996),
    Goal("cifar-lenet", "CIFAR-10 (JPEG), `lenet`", cifar10, {"architecture": "lenet"}, "0.522", 0.65),
    Goal("cifar-speednet", "CIFAR-10 (JPEG), `speednet`", cifar10, {"architecture": "speednet"}, "", 0.90, 1800),
    Goal(
        "imagenet", "ImageNet, 1,000 classes, 133 photographs, `mobilenet_v2` as it is", imagenet, MOBILENET,
        trained=False,
    ),
    Goal(
        "cats-dogs", "cats and dogs, `mobilenet_v2` at 256 px, probe", photographs("cats_dogs"),
        MOBILENET | {"test": 0.2, "image_size": 256}, "0.980 to 0.982", 0.98, 30, splits=5,
    ),
    Goal(
        "cats-dogs-tuned", "cats and dogs, `mobilenet_v2` at 128 px, fine-tuned for 2 epochs", photographs("cats_dogs"),
        MOBILENET | {"test": 0.2, "image_size": 128, "epochs": 2},
    ),
    Goal(
        "cats-dogs-light", "cats and dogs, `squeezenet1_1`, probe", photographs("cats_dogs"),
        {"architecture": "squeezenet1_1", "weights": "weights/squeezenet1_1_rebuilt.pth", "test": 0.2}, splits=5,
    ),
    Goal(
        "characters", "printed characters, 34 classes, by font, `glyphnet`", characters,
        {"architecture": "glyphnet"}, "", 0.97,
    ),
    Goal("products", "product photographs, 12 types, probe", photographs("grocery_products"), MOBILENET),
    Goal(
        "postcards", "postcards, 6 noisy classes, probe", photographs("postcards/images"),
        MOBILENET | {"test": 0.2}, splits=5,
    ),
)  # fmt: skip


def main() -> None:
    """Train the chosen rows and print their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--only", default="", help=f"rows, of {', '.join(goal.name for goal in GOALS)}")
    parser.add_argument("-o", "--output", type=Path, help="file for the JSON, too")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name]
    if unknown := set(wanted) - {goal.name for goal in GOALS}:
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    if not options.data.is_dir():
        parser.error(f"there is no {options.data}; the data sets are not part of the repository")
    rows: list[dict[str, Any]] = []
    report = {**describe_run("accuracy"), "rows": rows}
    with tempfile.TemporaryDirectory(prefix="pigeonhole-accuracy-") as scratch:
        for goal in GOALS:
            if wanted and goal.name not in wanted:
                continue
            rows.append(measure(goal, options.data.resolve(), Path(scratch)))
            print(line(rows[-1]), flush=True)
            if options.output:  # after every row: the whole takes most of an hour
                options.output.write_text(json.dumps(report, indent=2) + "\n")
    print("\n" + table(rows))
    print(json.dumps(report))


def measure(goal: Goal, data: Path, scratch: Path) -> dict[str, Any]:
    """Train or evaluate a row, once for each of its splits; the first run has no cache."""
    folder = goal.data(data, scratch)
    cache = scratch / f"{goal.name}-cache"
    if goal.trained:
        runs = [train(goal, data, folder, scratch / f"{goal.name}-{seed}", cache, seed) for seed in range(goal.splits)]
    else:
        runs = [evaluate(goal, data, folder, scratch / goal.name)]
    accuracies = [run.metrics["test_accuracy"] for run in runs]
    shared = [name for name in runs[0].metrics if all(name in run.metrics for run in runs)]  # not all accept any
    row: dict[str, Any] = {
        "name": goal.name, "title": goal.title, "course": goal.course, "wanted": goal.wanted,
        "wanted_seconds": goal.seconds, "accuracy": round(statistics.mean(accuracies), 4), "accuracies": accuracies,
        "seconds": round(runs[0].seconds, 1), "cpu_seconds": round(runs[0].cpu_seconds, 1), "phases": runs[0].phases,
        "metrics": {name: round(statistics.mean(run.metrics[name] for run in runs), 5) for name in shared},
    }  # fmt: skip
    if goal.splits > 1:
        row["seconds_warm"] = round(statistics.median(run.seconds for run in runs[1:]), 1)
        row["cpu_seconds_warm"] = round(statistics.median(run.cpu_seconds for run in runs[1:]), 1)
    return row


def train(goal: Goal, data: Path, folder: Path, output: Path, cache: Path, seed: int) -> Run:
    """One training in a child process, as a worker starts it."""
    spec = dict(goal.options)
    if "weights" in spec:
        spec["weights"] = str(data / spec["weights"])
    request = TrainRequest(data=folder, output=output, seed=seed, cache=cache, work=output.with_suffix(".work"), **spec)
    seconds, cpu_seconds, phases = in_child(goal.name, request.to_json(), output.with_suffix(".json"))
    return Run(seconds, cpu_seconds, json.loads((output / "model.json").read_bytes())["metrics"], phases)


def evaluate(goal: Goal, data: Path, folder: Path, output: Path) -> Run:
    """The pre-trained network without training, in a child process."""
    from modeling.exchange.import_weights import WeightsImport, stage_weights  # torch: for this row alone

    model = output.with_suffix(".model")
    model.mkdir()
    weights, labels = data / goal.options["weights"], folder.with_name(IMAGENET_LABELS)
    stage_weights(WeightsImport(weights, goal.options["architecture"], labels), model)
    request = {"task": "evaluate"} | EvaluateRequest(model, folder, output).to_json()
    seconds, cpu_seconds, phases = in_child(goal.name, request, output.with_suffix(".json"))
    found = json.loads((output / EVALUATION_FILE).read_bytes())
    metrics = {"test_accuracy": found["accuracy"]} | {f"top_{k}": share for k, share in found["top_k"].items()}
    return Run(seconds, cpu_seconds, metrics, phases)


def in_child(name: str, request: dict[str, Any], path: Path) -> tuple[float, float, dict[str, float]]:
    """Run a request; returns wall-clock and processor seconds, and the time of the last event of each kind."""
    path.write_text(json.dumps(request))
    started, cpu_before = time.perf_counter(), _cpu_seconds()
    phases: dict[str, float] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "modeling.training.process", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=CHILD_ENVIRONMENT | os.environ,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        for event in map(json.loads, child.stdout):
            phases[event["event"]] = round(time.perf_counter() - started, 1)
            if event["event"] == "error":
                raise SystemExit(f"{name}: {event['error']}")
            if event["event"] == "epoch":
                said = f"{name}: epoch {event['epoch']}/{event['epochs']}, accuracy {event['accuracy']:.4f}"
                print(said, file=sys.stderr, flush=True)
    if child.returncode:
        raise SystemExit(f"{name}: the process ended with {child.returncode}")
    return time.perf_counter() - started, _cpu_seconds() - cpu_before, phases


def _cpu_seconds() -> float:
    """Processor time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    wanted = "report" if row["wanted"] is None else f"{row['wanted']:.3f}"
    wanted += f", {row['wanted_seconds']:.0f} s" if row["wanted_seconds"] else ""
    took = f"{row['seconds']:.0f} s" + (f" ({row['seconds_warm']:.1f} s warm)" if "seconds_warm" in row else "")
    review = row["metrics"].get("test_review_rate", 0.0) + row["metrics"].get("test_reject_rate", 0.0)
    return f"| {row['title']} | {row['course']} | {wanted} | {row['accuracy']:.4f} | {took} | {review:.1%} |"


def table(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown; images that are not accepted at 1 % error go to review or are rejected."""
    head = "| data | course | wanted | accuracy | took | not accepted |\n|---|---|---|---|---|---|"
    return "\n".join([head, *map(line, rows)])


if __name__ == "__main__":
    main()
