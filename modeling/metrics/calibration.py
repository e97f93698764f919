"""A model's calibration: the temperature that scales its logits, and the thresholds that turn scores into decisions."""

# Shapes: N images.
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field

from modeling.durable import STRICT, Number, validated
from modeling.errors import ModelFormatError
from modeling.metrics.decisions import DECISIONS, Decision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEVER = 2.0  # a threshold that no score reaches


@dataclass(frozen=True, slots=True)
class Calibration:
    """A model's temperature and thresholds, fitted on validation images and stored in its card.

    temperature: logits are divided by it before the softmax (Guo et al. 2017); above 0.
    max_error: the error budget: the share of accepted images that may be wrong, on average over models; in (0, 1).
    accept: by label, the score from which an image with that best label is accepted; above 1: never.
    reject_below: images with a lower best score are rejected: the label is more likely wrong than right. It never
        exceeds an accept threshold.
    num_images: the number of validation images it was fitted on.
    review_rate, reject_rate, accepted_error: expected rates, measured on the validation images.
    """

    temperature: Annotated[Number, Field(gt=0)]
    max_error: Number
    accept: tuple[Number, ...]
    reject_below: Number
    num_images: int
    review_rate: Number
    reject_rate: Number
    accepted_error: Number

    __pydantic_config__ = STRICT

    def decide(self, label: int, score: float) -> Decision:
        """The decision for an image whose best label (by index) has this calibrated score."""
        if score >= self.accept[label]:
            return "accept"
        return "review" if score >= self.reject_below else "reject"

    def decide_all(self, labels_N: "NDArray[np.integer]", scores_N: "NDArray[np.floating]") -> list[Decision]:
        """`decide` for many images at once, in their order."""
        import numpy as np  # a fifth of the start of every command that reads a card

        accepted_N = scores_N >= np.asarray(self.accept)[labels_N]
        codes_N = np.where(accepted_N, 0, np.where(scores_N >= self.reject_below, 1, 2))
        return [DECISIONS[code] for code in codes_N.tolist()]

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self) | {"accept": list(self.accept)}

    @classmethod
    def from_json(cls, value: Any, num_labels: int) -> Self:
        """The reverse of `to_json`.

        Raises:
            ModelFormatError: keys, types or ranges that do not fit.
        """
        calibration = validated(cls, value, "calibration")
        calibration.check_labels(num_labels)
        return calibration

    def check_labels(self, num_labels: int) -> None:
        """Raises ModelFormatError where there is not one accept threshold for each label."""
        if len(self.accept) != num_labels:
            raise ModelFormatError(f"calibration must accept each of {num_labels} labels, not {self.accept}")
