"""What `--max-error` promises: the error of single models that were calibrated by our rule, in a simulation.

    python -m benchmarks.budget_promise [--models N] [-o FILE]

Each simulated model answers validation images, is calibrated on them as a training does (temperature and thresholds of
`modeling.metrics.thresholds`), and then answers many new images of the same kind. `over` is the share of models that
wrongly accept more than the budget allows; `over_by_half`: more than 1.5 times the budget. On average over models the
budget is kept; for the single model it is not promised. A minute on two cores.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe_run, keep
from modeling.metrics.answers import Answers, Scored
from modeling.metrics.thresholds import fit_calibration

NUM_LABELS = 10
NUM_NEW = 100_000  # images that a model's true error is measured on
SEED = 0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of model: how far the true label's logit is ahead of the others, on average; its logits are too large."""

    name: str
    margin: float
    temperature: float = 2.0


KINDS = (Kind("good", 12.0), Kind("middling", 8.0), Kind("weak", 4.0))
CASES = tuple((num_images, budget) for budget in (0.01, 0.05) for num_images in (150, 500, 1500, 5000))


def main() -> None:
    """Simulate every case and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=400, help="models of each case")
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    rows = []
    for kind in KINDS:
        new = draw(kind, NUM_NEW, np.random.default_rng([SEED, 1]))
        for num_images, budget in CASES:
            rows.append(simulate(kind, new, num_images, budget, options.models))
            print(line(rows[-1]), flush=True)
    keep({**describe_run("budget_promise"), "rows": rows}, "budget_promise", options.output)


def simulate(kind: Kind, new: Answers, num_images: int, budget: float, num_models: int) -> dict[str, Any]:
    """The errors of models that were calibrated on `num_images` validation images; those that accept nothing have 0."""
    errors, shares = np.zeros(num_models), np.zeros(num_models)
    for number in range(num_models):
        chance = np.random.default_rng([SEED, 2, number, num_images])
        calibration = fit_calibration(draw(kind, num_images, chance), max_error=budget)
        scored = Scored.of(new, calibration.temperature)
        accepted = scored.scores_N >= np.asarray(calibration.accept)[scored.predicted_N]
        shares[number] = accepted.mean()
        errors[number] = (accepted & ~scored.right_N).sum() / max(1, accepted.sum())
    return {
        "kind": kind.name,
        "accuracy": round(float(Scored.of(new, 1.0).right_N.mean()), 3),
        "validation_images": num_images,
        "budget": budget,
        "models": num_models,
        "mean_error": round(float(errors.mean()), 5),
        "over": round(float((errors > budget).mean()), 3),
        "over_by_half": round(float((errors > 1.5 * budget).mean()), 3),
        "accepting": round(float((shares > 0).mean()), 3),
        "accepted": round(float(shares.mean()), 3),
    }


def draw(kind: Kind, num_images: int, chance: np.random.Generator) -> Answers:
    """Answers of a network: the truth of each image is drawn from the softmax of logits of the right size."""
    honest = chance.normal(0, 1, (num_images, NUM_LABELS))
    ahead = chance.gamma(4, kind.margin / 4, num_images)
    honest[np.arange(num_images), chance.integers(0, NUM_LABELS, num_images)] += ahead
    logits = (kind.temperature * honest).astype(np.float32)
    labels = tuple(f"label {number}" for number in range(NUM_LABELS))
    return Answers(labels, tuple(map(str, range(num_images))), _truths(honest, chance), logits)


def _truths(logits: NDArray[np.float64], chance: np.random.Generator) -> NDArray[np.int64]:
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    truths: NDArray[np.int64] = (scores.cumsum(axis=1) > chance.random((len(scores), 1))).argmax(axis=1)
    return truths


def line(row: dict[str, Any]) -> str:
    """One row of the table in Markdown."""
    model = f"{row['kind']}, {row['accuracy']:.1%} right"
    errors = f"{row['mean_error']:.2%} | {row['over']:.0%} | {row['over_by_half']:.0%}"
    return f"| {model} | {row['budget']:.0%} | {row['validation_images']:,} | {row['accepted']:.0%} | {errors} |"


if __name__ == "__main__":
    main()
