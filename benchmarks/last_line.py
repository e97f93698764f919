"""Do the counts that a training ends with agree with the answers that the published model gives?

    python -m benchmarks.last_line [--data ../shared/data] [--splits 20] [--only cats_dogs] [-o FILE]

Trains a head on the features of `mobilenet_v2` for each split of cats and dogs and of products, as a worker does, and
publishes the model. Then the test images, which `split.csv` names, are classified as files by the published model, with
the engine that jobs use, and counted anew: right, accepted, accepted and wrong. These must be the numbers of the
sentences, of `evaluation.json` (and so of `--json`), of the card and of the report. Exits with 1 if any differs.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_run, keep
from modeling.data.splits import read_split
from modeling.inference.classify_files import classify_files, load_model
from modeling.inference.engines.choice import copy_artifacts
from modeling.metrics.verdict import EvaluationVerdict
from modeling.registry.store import ModelStore, ModelVersion
from modeling.training.request import TrainRequest
from modeling.training.train import train

WEIGHTS = "weights/mobilenet_v2_rebuilt.pth"
MAX_ERROR = {"cats_dogs": 0.01, "grocery_products": 0.05}  # 47 validation images of products accept nothing at 1 %


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts on a test part, from one place."""

    num_images: int
    num_right: int
    num_accepted: int
    num_accepted_wrong: int


def main() -> None:
    """Check every split and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--splits", type=int, default=20, help="splits of each data set")
    parser.add_argument("--only", choices=list(MAX_ERROR), help="one data set")
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="pigeonhole-last-line-") as scratch:
        for name in [options.only] if options.only else MAX_ERROR:
            for seed in range(options.splits):
                rows.append(check(name, options.data.resolve(), Path(scratch), seed))
                print(json.dumps(rows[-1]), flush=True)
    num_differing = sum(not row["equal"] for row in rows)
    print(f"{len(rows)} splits, {num_differing} with other counts")
    result = describe_run("last_line") | {"splits": len(rows), "differing": num_differing, "rows": rows}
    keep(result, "last_line", options.output)
    sys.exit(1 if num_differing else 0)


def check(name: str, data: Path, scratch: Path, seed: int) -> dict[str, Any]:
    """One split: what the training says in each place, and what the published model answers."""
    store, output = ModelStore(scratch / "models"), scratch / f"{name}-{seed}" / "model"
    output.parent.mkdir()
    request = TrainRequest(
        data=data / name, architecture="mobilenet_v2", output=output, weights=str(data / WEIGHTS), seed=seed,
        max_error=MAX_ERROR[name], cache=scratch / "cache", engines=store.engines,
    )  # fmt: skip
    train(request, lambda event: None)
    version = store.publish(output, name)
    copy_artifacts(ModelVersion.at(output).artifacts, version.artifacts)
    document = json.loads((version.path / "evaluation.json").read_bytes())
    counted, engine = count(version, data / name)
    said = {
        "sentences": counts_in("\n".join(EvaluationVerdict.from_json(document).sentences)),
        "evaluation.json": counts_of(document),
        "card": counts_of_card(version.card().metrics),
        "report": counts_in(re.sub("<[^>]*>", "\n", (version.path / "report.html").read_text())),
    }
    others = {place: asdict(counts) for place, counts in said.items() if counts != counted}
    row = {"data": name, "seed": seed, "engine": engine, "tested_by": document["engine"]}
    return row | asdict(counted) | {"equal": not others} | others


def count(version: ModelVersion, folder: Path) -> tuple[Counts, str]:
    """The counts by the answers that the published model gives to the files of the test part, and its engine."""
    rows = [row for row in read_split(version.path / "split.csv") if row.part == "test"]
    model = load_model(version.path)
    answers = list(classify_files([folder / row.name for row in rows], model, top_k=1))
    wrong = [answer.labels[0] != row.label for answer, row in zip(answers, rows, strict=True)]
    accepted = [is_wrong for answer, is_wrong in zip(answers, wrong, strict=True) if answer.decision == "accept"]
    return Counts(len(rows), len(rows) - sum(wrong), len(accepted), sum(accepted)), model.engine_name


def counts_of(document: Mapping[str, Any]) -> Counts:
    """The counts in an `evaluation.json`."""
    decisions = document["decisions"]
    accepted = (decisions["num_accepted"], decisions["num_accepted_wrong"])
    return Counts(document["num_images"], document["num_right"], *accepted)


def counts_of_card(metrics: Mapping[str, float]) -> Counts:
    """The counts in a model's card."""
    names = ("num_test", "test_num_right", "test_num_accepted", "test_num_accepted_wrong")
    return Counts(*(int(metrics[name]) for name in names))


def counts_in(text: str) -> Counts:
    """The counts in the sentences of a training, or in the text of its report."""
    right = re.search(r"([\d,]+) of ([\d,]+) (?:test images? )?right", text)
    accepted = re.search(r"accepted ([\d,]+) of [\d,]+ test images?; of these ([\d,]+) wrong", text)
    reversed_order = re.search(r"([\d,]+) of ([\d,]+)\xa0accepted image", text)
    assert right is not None
    num_accepted, num_wrong = accepted.groups() if accepted else ("0", "0")
    if reversed_order:
        num_wrong, num_accepted = reversed_order.groups()
    found = (right[2], right[1], num_accepted, num_wrong)
    return Counts(*(int(number.replace(",", "")) for number in found))


if __name__ == "__main__":
    main()
