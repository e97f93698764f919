"""Pictures with their answers: the worst mistakes, and some images as they come."""

from collections.abc import Sequence

from modeling.metrics.calibration import Calibration
from modeling.metrics.evaluation import Evaluation, Mistake
from modeling.report.content import Picture, Sample
from modeling.report.figures import score as certainty
from modeling.report.html import Html, element, join, short
from modeling.report.pictures import Captioned, thumbnail
from modeling.report.section import Section

MOST_PICTURES = 24
_WORDS = {"accept": "accepted", "review": "to review", "reject": "rejected"}

Pictured = tuple[Mistake, Picture | None]


def mistakes_section(evaluation: Evaluation, pictured: Sequence[Pictured], calibration: Calibration | None) -> Section:
    """The most confident mistakes, with what the thresholds would have done to each."""
    num_wrong = evaluation.num_images - evaluation.num_right
    if not pictured:
        return Section("mistakes", "Worst mistakes", "Every image got its true label.", Html(""))
    fates = [_fate(mistake, evaluation, calibration) for mistake, _ in pictured]
    cards = [_mistake_card(mistake, picture, fate) for (mistake, picture), fate in zip(pictured, fates, strict=True)]
    shown = f"the {len(cards)} surest of {num_wrong:,}" if num_wrong > len(cards) else f"all {num_wrong:,}"
    lead = (
        f"Where the model was surest and wrong ({shown}). Check the true label first: a sure mistake is often "
        "an image that lies in the wrong folder."
    )
    return Section(
        "mistakes", "Worst mistakes", lead, join([_slipped(fates), element("div", *cards, class_="gallery")])
    )


def samples_section(samples: Sequence[Sample]) -> Section:
    """Some images with predictions, right and wrong."""
    cards = [_sample_card(sample) for sample in samples[:MOST_PICTURES]]
    lead = "Images taken as they come, with the model's answer and its score: what its daily work looks like."
    return Section("samples", "Samples", lead, element("div", *cards, class_="gallery"))


def mistake_captions(pictured: Sequence[Pictured]) -> list[Captioned]:
    """The mistakes as a sheet of pictures shows them."""
    return [
        (picture, f"true: {mistake.label}", f"{mistake.predicted} {certainty(mistake.score)}")
        for mistake, picture in pictured
    ]


def sample_captions(samples: Sequence[Sample]) -> list[Captioned]:
    """The samples as a sheet of pictures shows them: the second line only where the answer is wrong."""
    return [
        (
            sample.picture,
            f"{sample.predicted} {certainty(sample.score)}",
            f"true: {sample.label}" if sample.label != sample.predicted else "",
        )
        for sample in samples[:MOST_PICTURES]
    ]


def _fate(mistake: Mistake, evaluation: Evaluation, calibration: Calibration | None) -> str | None:
    if calibration is None:
        return None
    return calibration.decide(evaluation.labels.index(mistake.predicted), mistake.score)


def _slipped(fates: Sequence[str | None]) -> Html | None:
    """How many of the mistakes nobody would have seen."""
    if None in fates:
        return None
    num_slipped = sum(fate == "accept" for fate in fates)
    if not num_slipped:
        return element(
            "p", "The thresholds mark every one of these for a look: none would slip through.", class_="note"
        )
    verb = "scores" if num_slipped == 1 else "score"
    return element(
        "p",
        element("strong", f"{num_slipped:,} of these {len(fates):,}"),
        f" {verb} high enough to be accepted unseen.",
        class_="note",
    )


def _mistake_card(mistake: Mistake, picture: Picture | None, fate: str | None) -> Html:
    alt = f"{mistake.name}: true label {mistake.label}, predicted {mistake.predicted}"
    return _card(
        thumbnail(picture, alt),
        _answer(mistake.predicted, mistake.score, right=False),
        _line("true", mistake.label),
        badge(fate, "slipped" if fate == "accept" else None),
        mistake.name,
    )


def _sample_card(sample: Sample) -> Html:
    right = sample.predicted == sample.label
    alt = f"{sample.name}: true label {sample.label}, predicted {sample.predicted}"
    return _card(
        thumbnail(sample.picture, alt),
        _answer(sample.predicted, sample.score, right=right),
        None if right else _line("true", sample.label),
        badge(sample.decision, "slipped" if sample.decision == "accept" and not right else None),
        sample.name,
    )


def _card(picture: Html, answer: Html, truth: Html | None, mark: Html | None, name: str) -> Html:
    file = element("span", short(name, 20), class_="file")
    return element(
        "figure",
        element("div", picture, class_="window"),
        element("figcaption", answer, truth, mark, file),
        class_="card",
    )


def _answer(label: str, score: float, *, right: bool) -> Html:
    sign = element("span", "✓\u00a0" if right else "✗\u00a0", aria_label="right" if right else "wrong", role="img")
    return element(
        "span",
        sign,
        element("b", short(label, 20)),
        element("span", f" {certainty(score)}", class_="score"),
        class_="answer right" if right else "answer wrong",
    )


def _line(name: str, value: str) -> Html:
    return element("span", element("span", f"{name} ", class_="key"), short(value, 20), class_="truth")


def badge(decision: str | None, kind: str | None = None) -> Html | None:
    """A decision as a small mark with its word, in the colour of `kind` or its own."""
    return element("span", _WORDS.get(decision, decision), class_=f"badge {kind or decision}") if decision else None
