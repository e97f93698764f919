"""Whether the model's scores mean what they say, and what the thresholds make of them."""

from modeling.metrics.calibration import Calibration
from modeling.metrics.evaluation import CoveragePoint, Evaluation
from modeling.report.figures import count, percent, points
from modeling.report.html import Html, element
from modeling.report.plots import FEW_IMAGES
from modeling.report.section import Plot, Section, bar, table

_BUDGETS = (0.001, 0.005, 0.01, 0.02, 0.05)


def reliability_section(evaluation: Evaluation, plot: Plot) -> Section:
    """Score beside truth, before calibration and after."""
    lead = (
        "Does a score of 90 % mean right nine times in ten? A blue bar is the share that was right, the orange line "
        f"the score that was promised: they should meet. Pale bars hold fewer than {FEW_IMAGES} images and say little."
    )
    alt = "Reliability diagram: " + "; ".join(
        f"scores {percent(each.low)} to {percent(each.high)}: {percent(each.accuracy)} right of {each.num_images:,}"
        for each in evaluation.reliability
        if each.num_images
    )
    body = element("div", plot.image(alt), _gap(evaluation), class_="split")
    return Section("reliability", "Can the scores be trusted?", lead, body)


def coverage_section(evaluation: Evaluation, calibration: Calibration | None, plot: Plot) -> Section:
    """The share that needs no person against the share that is wrong, and the model's choice."""
    lead = (
        "The more images are accepted without a person, the more of them are wrong. The curve shows what each "
        "choice costs."
    )
    if evaluation.decisions:
        lead = f"{lead[:-1]}; the dot is what this model's thresholds did with these images."
    body = element("div", plot.image(_coverage_alt(evaluation)), _budget_table(evaluation, calibration), class_="split")
    return Section("coverage", "How much can go unseen?", lead, body)


def coverage_within(evaluation: Evaluation, max_error: float) -> CoveragePoint | None:
    """The largest share that one threshold could accept on these images within the error; None where there is none."""
    fitting = [point for point in evaluation.coverage if point.error <= max_error and point.coverage > 0]
    return max(fitting, key=lambda point: point.coverage) if fitting else None


def _gap(evaluation: Evaluation) -> Html:
    """Calibration error before and after, in words and as two bars."""
    sentence = f"On average score and truth lie {points(evaluation.ece)} apart"
    calibrated = evaluation.temperature != 1
    if calibrated:
        sentence += f"; before calibration it was {points(evaluation.raw_ece)}"
    rows = [("after calibration", evaluation.ece, "right"), ("before", evaluation.raw_ece, "wrong")]
    longest = max(evaluation.ece, evaluation.raw_ece, 1e-9)
    bars = [
        element(
            "div",
            element("span", name, class_="key"),
            bar(value / longest, kind),
            element("b", points(value)),
            class_="compare",
        )
        for name, value, kind in rows
    ]
    terms = [
        ("Expected calibration error", points(evaluation.ece)),
        (
            "Negative log likelihood",
            f"{evaluation.nll:.4f}" + (f" (before: {evaluation.raw_nll:.4f})" if calibrated else ""),
        ),
        ("Temperature", f"{evaluation.temperature:.3f}" + ("" if calibrated else " (none fitted)")),
    ]
    described = [piece for name, value in terms for piece in (element("dt", name), element("dd", value))]
    return element(
        "div",
        element("p", f"{sentence}.", class_="say"),
        *(bars if calibrated else []),
        element("dl", *described, class_="facts narrow"),
        class_="aside",
    )


def _coverage_alt(evaluation: Evaluation) -> str:
    ends = [point for budget in (0.01, 0.05) if (point := coverage_within(evaluation, budget))]
    told = "; ".join(f"{percent(point.coverage)} accepted, {percent(point.error)} of them wrong" for point in ends)
    return f"Coverage against error: {told or 'no threshold keeps the error under 5 %'}"


def _budget_table(evaluation: Evaluation, calibration: Calibration | None) -> Html:
    """What common budgets would cost on these images, and what the model expects of its own."""
    rows = []
    for budget in _BUDGETS:
        point = coverage_within(evaluation, budget)
        share = point.coverage if point else 0.0
        rows.append(
            element(
                "tr",
                element("th", percent(budget), scope="row", class_="number"),
                element("td", bar(share), percent(share), class_="with-bar"),
                element("td", percent(1 - share), class_="number"),
            )
        )
    head = [
        element("th", "wrong at most", scope="col", class_="number"),
        element("th", "accepted", scope="col"),
        element("th", "to a person", scope="col", class_="number"),
    ]
    hindsight = "With one threshold for all classes, chosen in hindsight on these very images:"
    return element(
        "div",
        _expected(evaluation, calibration),
        element("p", hindsight, class_="note"),
        table(head, rows, "budgets"),
        class_="aside",
    )


def _expected(evaluation: Evaluation, calibration: Calibration | None) -> Html | None:
    """What the model's own thresholds did where they were chosen."""
    if calibration is None:
        none = "This model has no thresholds: every answer is for you to judge."
        return None if evaluation.decisions else element("p", none, class_="say")
    share = calibration.review_rate + calibration.reject_rate
    marked = "every one was marked for a look."
    if share < 1:
        wrong = percent(calibration.accepted_error)
        marked = f"{percent(share)} were marked for a look and {wrong} of the rest were wrong."
    chosen = f"On the {count(calibration.num_images, 'validation image')} that the thresholds were chosen on, "
    return element("p", chosen + marked, class_="say")
