"""The release of this process: its version, and the model formats that it reads."""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from modeling.registry.card import KNOWN_FORMATS


@dataclass(frozen=True, slots=True)
class Release:
    """version: of Pigeonhole. Rows of two versions may differ, so a job is done by workers of one."""

    version: str
    model_formats: tuple[int, ...]

    @property
    def formats_text(self) -> str:
        """The model formats as scripts of the ledger search them."""
        return f",{','.join(map(str, self.model_formats))},"


@cache
def own_release() -> Release:
    """The release that is installed here."""
    return Release(version("pigeonhole"), KNOWN_FORMATS)
