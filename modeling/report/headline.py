"""The top of the page: what an operator asks first, in large figures and one sentence."""

from collections.abc import Sequence

from modeling.metrics.evaluation import DecisionFigures, Evaluation
from modeling.report.figures import count, interval, percent
from modeling.report.html import Html, element, join

_FEW_IMAGES = 200  # fewer, and the intervals are wide
_PER = 1000  # images that the sentence speaks of
_SMALL = 10  # below it a number keeps one digit


def headline(evaluation: Evaluation, part: str) -> Html:
    """Tiles, the sentence, and where the images go."""
    decisions = evaluation.decisions
    tiles = _decision_tiles(decisions, evaluation) if decisions else _plain_tiles(evaluation)
    return element(
        "section",
        element("h2", f"At a glance: {count(evaluation.num_images, 'image')} of the {part} part", id="glance-title"),
        element("p", " ".join(sentences(evaluation)), class_="verdict"),
        element("div", _accuracy_tile(evaluation, part), *tiles, class_="tiles"),
        _fate_bar(decisions) if decisions else None,
        id="glance",
        aria_labelledby="glance-title",
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
    """What the thresholds do to the next images, as numbers of people's size."""
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
    """Whether the accepted images kept to the stated error, and how sure that is."""
    budget, error = percent(decisions.max_error), decisions.accepted_error
    if error is None:
        return f"Nothing was accepted, so the error budget of {budget} was not put to the test."
    if error <= decisions.max_error:
        return f"The wrong ones stay within the error budget of {budget}."
    bounds = decisions.accepted_error_interval
    if bounds and bounds[0] <= decisions.max_error:
        return f"That is more than the error budget of {budget}, though so few images may mislead: {interval(bounds)}."
    return f"That is more than the error budget of {budget}: calibrate on images like these before relying on it."


def _accuracy_tile(evaluation: Evaluation, part: str) -> Html:
    note = f"95 % interval {interval(evaluation.accuracy_interval)}"
    right = f"{evaluation.num_right:,} of {evaluation.num_images:,} right"
    return _tile(f"{part} accuracy", percent(evaluation.accuracy), [note, right], main=True)


def _decision_tiles(decisions: DecisionFigures, evaluation: Evaluation) -> list[Html]:
    num_images, budget = max(evaluation.num_images, 1), percent(decisions.max_error)
    notes = [f"at an error budget of {budget}", f"and {percent(decisions.num_rejected / num_images)} rejected"]
    review = _tile("Go to review", percent(decisions.num_reviewed / num_images), notes)
    return [review, _error_tile(decisions, budget), _mistakes_tile(evaluation)]


def _error_tile(decisions: DecisionFigures, budget: str) -> Html:
    error, name = decisions.accepted_error, "Wrong among accepted"
    if error is None:
        return _tile(name, percent(None), ["nothing was accepted"])
    over = error > decisions.max_error
    notes = [
        f"{'above' if over else 'within'} the budget of {budget}",
        f"95 % interval {interval(decisions.accepted_error_interval)}",
    ]
    return _tile(name, percent(error), notes, kind="over" if over else "")


def _plain_tiles(evaluation: Evaluation) -> list[Html]:
    best = [
        _tile(f"FinalizeLease among the best {k}", percent(share), ["the true label is one of them"])
        for k, share in list(evaluation.top_k.items())[-1:]
    ]
    macro = _tile("Macro F1", percent(evaluation.macro_f1), ["every class counts the same"])
    return [*best, macro, _mistakes_tile(evaluation)]


def _mistakes_tile(evaluation: Evaluation) -> Html:
    num_wrong = evaluation.num_images - evaluation.num_right
    return _tile(
        "Mistakes",
        f"{num_wrong:,}",
        [f"in {count(len(evaluation.labels), 'class', 'classes')}", f"macro F1 {percent(evaluation.macro_f1)}"],
    )


def _tile(name: str, value: str, notes: Sequence[str], *, main: bool = False, kind: str = "") -> Html:
    lines = [element("span", note, class_="note") for note in notes]
    classes = " ".join(filter(None, ("tile", "main" if main else "", kind)))
    return element(
        "div", element("span", name, class_="name"), element("span", value, class_="value"), *lines, class_=classes
    )


def _fate_bar(decisions: DecisionFigures) -> Html:
    """Accepted, reviewed and rejected as one bar with its legend."""
    parts = [
        ("accept", decisions.num_accepted, "accepted"),
        ("review", decisions.num_reviewed, "to review"),
        ("reject", decisions.num_rejected, "rejected"),
    ]
    total = max(sum(number for _, number, _ in parts), 1)
    pieces = [
        element("span", class_=f"piece {kind}", style=f"flex-grow:{number / total:.5f}")
        for kind, number, _ in parts
        if number
    ]
    legend = [
        element("li", element("span", class_=f"swatch {kind}", aria_hidden="true"), f"{percent(number / total)} {word}")
        for kind, number, word in parts
    ]
    return join([element("div", *pieces, class_="fate", aria_hidden="true"), element("ul", *legend, class_="legend")])
