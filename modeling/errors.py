"""What can go wrong here.

ModelingError (a ValueError)   an operator's mistake: one line that says what, the value, what to do
├── DataError                  training data that cannot be used as it is
├── ArchitectureError          no architecture of that name, or it cannot be built so
├── ModelNameError             a model name or reference that is not well-formed
├── ModelFormatError           a model folder that is damaged, or made by a newer version
├── ModelNotFoundError         no model of that name or version
└── ModelInUseError            a model that something still points to
ImageError                     one image that cannot be read; becomes that image's answer, never ends a job
"""


class ModelingError(ValueError):
    """An operator's mistake, told in one line."""


class DataError(ModelingError):
    """Training data that cannot be used as it is."""


class ArchitectureError(ModelingError):
    """No architecture of that name, or it cannot be built for this data."""


class ModelNameError(ModelingError):
    """A model name or reference that is not well-formed."""


class ModelFormatError(ModelingError):
    """A model folder that is damaged, incomplete or of an unknown format."""


class ModelNotFoundError(ModelingError):
    """No published model of that name or version."""


class ModelInUseError(ModelingError):
    """A model that something still points to."""


class ImageError(Exception):
    """One image cannot be read.

    `code` is a short word that never changes (`empty`, `truncated`, `not_an_image`, `too_large`,
    `unsupported`, `corrupt`, `unreadable`); `message` is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
