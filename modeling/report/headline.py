"""The top of the page: what an operator asks first, in large figures and a few sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from modeling.metrics.evaluation import DecisionFigures, Evaluation
from modeling.metrics.verdict import PROMISE, probability
from modeling.report.figures import count, interval, percent

_FEW_IMAGES = 200  # fewer, and the intervals are wide
_PER = 1000  # images that the sentence speaks of
_SMALL = 10  # smaller numbers keep one digit


@dataclass(frozen=True, slots=True)
class Figure:
    """A large figure with its name above and notes below; `kind` is `main` or `over` (the budget), or empty."""

    name: str
    value: str
    notes: Sequence[str]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class DecisionShare:
    """The share of images with a decision: `accept`, `review` or `reject`."""

    decision: str
    word: str
    share: float


@dataclass(frozen=True, slots=True)
class Headline:
    """Figures, a summary in sentences, and the shares of the decisions where the model has thresholds."""

    part: str
    num_images: int
    sentences: Sequence[str]
    figures: Sequence[Figure]
    shares: Sequence[DecisionShare]


def headline(evaluation: Evaluation, part: str, left_out: str = "") -> Headline:
    """What the top of the page says of an evaluation of `part`, and of the images that it left out."""
    decisions = evaluation.decisions
    figures = _decision_figures(decisions, evaluation) if decisions else _plain_figures(evaluation)
    return Headline(
        part=part,
        num_images=evaluation.num_images,
        sentences=[*sentences(evaluation), *([f"{left_out}."] if left_out else [])],
        figures=[_accuracy(evaluation, part), *figures],
        shares=_shares(decisions) if decisions else (),
    )


def sentences(evaluation: Evaluation) -> list[str]:
    """What the figures mean for the operator's next thousand images."""
    decisions, num_images = evaluation.decisions, evaluation.num_images
    if not num_images:
        return ["No image was evaluated."]
    if decisions:
        said = [_outlook(decisions, num_images), _budget(decisions)]
    else:
        said = [f"Of {_PER:,} images like these, expect about {_about(evaluation.accuracy)} to get the right label."]
    if num_images < _FEW_IMAGES:
        said.append(f"With {count(num_images, 'image')} evaluated, chance plays a large part: mind the intervals.")
    return said


def _outlook(decisions: DecisionFigures, num_images: int) -> str:
    """What the thresholds do to the next thousand images."""
    if not decisions.num_accepted:
        return f"Of {_PER:,} images like these, expect every one to be marked for a look."
    accepted = decisions.num_accepted / num_images
    wrong = accepted * (decisions.accepted_error or 0.0)
    rest = f"the other {_PER - round(_PER * accepted):,} are marked for a look"
    return (
        f"Of {_PER:,} images like these, expect about {_about(accepted)} to be answered without a person, "
        f"about {_about(wrong)} of them wrongly; {rest}."
    )


def _about(share: float) -> str:
    number = _PER * share
    return f"{number:,.0f}" if number >= _SMALL or number == 0 else f"{number:.1f}".removesuffix(".0")


def _budget(decisions: DecisionFigures) -> str:
    """Whether the error among accepted images is within the budget, and how sure that is."""
    budget, error = percent(decisions.max_error), decisions.accepted_error
    if error is None:
        return f"Nothing was accepted, so the error budget of {budget} was not put to the test."
    if decisions.budget_refuted:
        return (
            f"The error budget of {budget} is NOT kept: by chance alone so many would rarely be wrong "
            f"(p = {probability(decisions)}). Calibrate on images like these before relying on it."
        )
    if error <= decisions.max_error:
        return f"That is within the error budget of {budget}, which is {PROMISE}."
    return f"That is more than the error budget of {budget}, which is {PROMISE}; so many may be chance."


def _accuracy(evaluation: Evaluation, part: str) -> Figure:
    note = f"95 % interval {interval(evaluation.accuracy_interval)}"
    right = f"{evaluation.num_right:,} of {evaluation.num_images:,} right"
    return Figure(f"{part} accuracy", percent(evaluation.accuracy), [note, right], "main")


def _decision_figures(decisions: DecisionFigures, evaluation: Evaluation) -> list[Figure]:
    num_images, budget = max(evaluation.num_images, 1), percent(decisions.max_error)
    notes = [f"at an error budget of {budget}", f"and {percent(decisions.num_rejected / num_images)} rejected"]
    review = Figure("Go to review", percent(decisions.num_reviewed / num_images), notes)
    return [review, _accepted_error(decisions, budget), _mistakes(evaluation)]


def _accepted_error(decisions: DecisionFigures, budget: str) -> Figure:
    error, name = decisions.accepted_error, "Wrong among accepted"
    if error is None:
        return Figure(name, percent(None), ["nothing was accepted"])
    over = error > decisions.max_error
    counts = f"{decisions.num_accepted_wrong:,} of {count(decisions.num_accepted, 'accepted image')}"
    kept = (
        f"budget of {budget} NOT kept"
        if decisions.budget_refuted
        else f"{'above' if over else 'within'} the budget of {budget}"
    )
    notes = [
        counts,
        kept,
        f"95 % interval {interval(decisions.accepted_error_interval)}",
    ]
    return Figure(name, percent(error), notes, "over" if over else "")


def _plain_figures(evaluation: Evaluation) -> list[Figure]:
    best = [
        Figure(f"Right among the best {k}", percent(share), ["the true label is one of them"])
        for k, share in list(evaluation.top_k.items())[-1:]
    ]
    macro = Figure("Macro F1", percent(evaluation.macro_f1), ["every class counts the same"])
    return [*best, macro, _mistakes(evaluation)]


def _mistakes(evaluation: Evaluation) -> Figure:
    num_classes = count(len(evaluation.labels), "class", "classes")
    notes = [f"in {num_classes}", f"macro F1 {percent(evaluation.macro_f1)}"]
    return Figure("Mistakes", f"{evaluation.num_images - evaluation.num_right:,}", notes)


def _shares(decisions: DecisionFigures) -> list[DecisionShare]:
    parts = [
        ("accept", "accepted", decisions.num_accepted),
        ("review", "to review", decisions.num_reviewed),
        ("reject", "rejected", decisions.num_rejected),
    ]
    total = max(sum(number for _, _, number in parts), 1)
    return [DecisionShare(decision, word, number / total) for decision, word, number in parts]
