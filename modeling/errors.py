"""The exceptions of modeling.

ModelingError (a ValueError)   an operator's mistake: one line that says what failed, the value, and what to do
├── DataError                  training data that cannot be used
├── ArchitectureError          an unknown architecture, or one that does not support the data or the weights
├── ModelNameError             a model name or reference that is not well-formed
├── ModelFormatError           a model folder that is damaged, or written by a newer version
├── ModelNotFoundError         no model of that name or version
└── ModelInUseError            a model that an alias or a job still uses
ImageError                     an image that cannot be read; becomes the error of its row, never ends a job
"""


class ModelingError(ValueError):
    """An operator's mistake, described in one line."""


class DataError(ModelingError):
    """Training data that cannot be used."""


class ArchitectureError(ModelingError):
    """An unknown architecture, or one that does not support the data or the weights."""


class ModelNameError(ModelingError):
    """A model name or reference that is not well-formed."""


class ModelFormatError(ModelingError):
    """A model folder that is damaged, incomplete or of an unknown format."""


class ModelNotFoundError(ModelingError):
    """No published model of that name or version."""


class ModelInUseError(ModelingError):
    """A model that an alias or a job still uses."""


class ImageError(Exception):
    """One image cannot be read.

    `code` is a short, stable identifier (`empty`, `truncated`, `not_an_image`, `too_large`,
    `unsupported`, `corrupt`, `unreadable`); `message` is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
