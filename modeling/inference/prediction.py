"""The prediction for one image."""

from dataclasses import dataclass

from modeling.errors import ImageError
from modeling.metrics.decisions import Decision


@dataclass(frozen=True, slots=True)
class Prediction:
    """Labels with scores in [0, 1], best first, or an error code with its message.

    decision: what to do with the image; None if the model is not calibrated.
    remarks: of the decoder, such as `frames` (`modeling.images.remarks`); they are no part of a manifest.
    """

    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    error_code: str | None = None
    error: str | None = None
    decision: Decision | None = None
    remarks: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the image has labels."""
        return self.error_code is None

    @classmethod
    def failed(cls, error: ImageError) -> "Prediction":
        """The prediction for an image that cannot be read."""
        return cls(error_code=error.code, error=error.message)
