"""Which lines a worker serves: `all`, `none`, or a list of names."""

from dataclasses import dataclass
from typing import Self

from orchestrator.contract.lines.settings import check_line_name


@dataclass(frozen=True, slots=True)
class LineChoice:
    """names: None: all lines."""

    names: frozenset[str] | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises UsageError where a name is not valid."""
        if text.strip() == "all":
            return cls()
        if text.strip() == "none":
            return cls(frozenset())
        return cls(frozenset(check_line_name(name.strip()) for name in text.split(",") if name.strip()))

    @property
    def any(self) -> bool:
        return self.names is None or bool(self.names)

    def includes(self, name: str) -> bool:
        return self.names is None or name in self.names
