"""Computes the figures of an evaluation from a network's answers.

Own code, not scikit-learn: figures must repeat to the bit; ties and classes without images have defined results.
"""

# Shapes: N images, B images of a block, L labels.
import numpy as np
from numpy.typing import NDArray

from modeling.metrics.answers import Answers, Scored, row_blocks
from modeling.metrics.calibration import Calibration
from modeling.metrics.chance import exceeds_p, wilson_interval
from modeling.metrics.evaluation import ClassFigures, DecisionFigures, Evaluation, Mistake

TOP_KS = (2, 3, 5, 10)
MAX_MISTAKES = 50


def evaluate_answers(answers: Answers, calibration: Calibration | None) -> Evaluation:
    """The figures of `answers`, with calibrated scores; without a calibration, with the softmax scores.

    Raises:
        ModelingError: there are no images, or a logit is not finite.
    """
    temperature = calibration.temperature if calibration else 1.0
    scored, raw = Scored.of(answers, temperature), Scored.of(answers, 1.0)
    classes = _class_figures(answers, scored)
    num_images, num_right = len(answers.names), int(scored.right_N.sum())
    return Evaluation(
        labels=answers.labels,
        num_images=num_images,
        num_right=num_right,
        accuracy=num_right / num_images,
        accuracy_interval=wilson_interval(num_right, num_images),
        top_k=_top_k(answers),
        macro_f1=_macro_f1(classes),
        nll=scored.nll,
        ece=scored.ece,
        raw_nll=raw.nll,
        raw_ece=raw.ece,
        temperature=temperature,
        confusion=confusion(answers, scored),
        classes=classes,
        reliability=scored.reliability(),
        coverage=scored.coverage(),
        decisions=_decision_figures(scored, calibration) if calibration else None,
        mistakes=_mistakes(answers, scored),
    )


def confusion(answers: Answers, scored: Scored) -> tuple[tuple[int, int, int], ...]:
    """The pairs of true and predicted label that occur, by their places, with their numbers of images."""
    num_labels = len(answers.labels)
    cells, counts = np.unique(answers.targets_N * num_labels + scored.predicted_N, return_counts=True)
    return tuple(zip((cells // num_labels).tolist(), (cells % num_labels).tolist(), counts.tolist(), strict=True))


def _class_figures(answers: Answers, scored: Scored) -> tuple[ClassFigures, ...]:
    """Precision, recall and F1 of each label; none of a label without images: no answer with it could be right."""
    chosen = (answers.targets_N, scored.predicted_N, answers.targets_N[scored.right_N])
    counted = (np.bincount(labels_N, minlength=len(answers.labels)).tolist() for labels_N in chosen)
    counts = zip(answers.labels, *counted, strict=True)
    return tuple(
        ClassFigures(
            label=label,
            num_images=num_images,
            num_predicted=num_predicted,
            num_right=num_right,
            precision=num_right / num_predicted if num_images and num_predicted else None,
            recall=num_right / num_images if num_images else None,
            recall_interval=wilson_interval(num_right, num_images) if num_images else None,
            f1=2 * num_right / (num_images + num_predicted) if num_images else None,
        )
        for label, num_images, num_predicted, num_right in counts
    )


def _macro_f1(classes: tuple[ClassFigures, ...]) -> float:
    """Mean F1 of the labels that have images; labels that do not occur in the data do not count."""
    scores = [each.f1 for each in classes if each.num_images and each.f1 is not None]
    return sum(scores) / len(scores)


def _top_k(answers: Answers) -> dict[str, float]:
    """The share of images whose true label is among the k best; of equal logits, the first label ranks higher."""
    rank_N = np.concatenate(
        [_ranks(answers.logits_NL[rows], answers.targets_N[rows]) for rows in row_blocks(answers.logits_NL)]
    )
    return {str(k): float((rank_N < k).mean()) for k in TOP_KS if k < len(answers.labels)}


def _ranks(logits_BL: NDArray[np.float32], targets_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many labels rank before the true one."""
    truth_B1 = logits_BL[np.arange(len(logits_BL)), targets_B, None]
    before_BL = np.arange(logits_BL.shape[1]) < targets_B[:, None]
    ranks_B: NDArray[np.int64] = ((logits_BL > truth_B1) | ((logits_BL == truth_B1) & before_BL)).sum(axis=1)
    return ranks_B


def _decision_figures(scored: Scored, calibration: Calibration) -> DecisionFigures:
    decisions_N = np.array(calibration.decide_all(scored.predicted_N, scored.scores_N))
    accepted_N = decisions_N == "accept"
    num_accepted, num_wrong = int(accepted_N.sum()), int((accepted_N & ~scored.right_N).sum())
    return DecisionFigures(
        max_error=calibration.max_error,
        num_accepted=num_accepted,
        num_accepted_wrong=num_wrong,
        num_reviewed=int((decisions_N == "review").sum()),
        num_rejected=int((decisions_N == "reject").sum()),
        accepted_error=num_wrong / num_accepted if num_accepted else None,
        accepted_error_interval=wilson_interval(num_wrong, num_accepted) if num_accepted else None,
        budget_p=exceeds_p(num_wrong, num_accepted, calibration.max_error) if num_accepted else None,
    )


def _mistakes(answers: Answers, scored: Scored) -> tuple[Mistake, ...]:
    """The wrong answers with the highest scores; equal scores stay in the order of the data."""
    wrong_N = np.flatnonzero(~scored.right_N)
    worst_N = wrong_N[np.argsort(-scored.scores_N[wrong_N], kind="stable")][:MAX_MISTAKES]
    return tuple(
        Mistake(
            index=index,
            name=answers.names[index],
            label=answers.labels[answers.targets_N[index]],
            predicted=answers.labels[scored.predicted_N[index]],
            score=float(scored.scores_N[index]),
        )
        for index in worst_N.tolist()
    )
