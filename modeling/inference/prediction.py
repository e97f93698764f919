"""The answer for one image."""

from dataclasses import dataclass

from modeling.errors import ImageError
from modeling.metrics.calibration import Decision


@dataclass(frozen=True, slots=True)
class Prediction:
    """Labels with scores in [0, 1], best first, or an error code with its message.

    decision: what to do with the image; None where the model has no calibration, which decides.
    """

    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    error_code: str | None = None
    error: str | None = None
    decision: Decision | None = None

    @property
    def ok(self) -> bool:
        """Whether the image has an answer."""
        return self.error_code is None

    @classmethod
    def failed(cls, error: ImageError) -> "Prediction":
        """The answer for an image that cannot be read."""
        return cls(error_code=error.code, error=error.message)
