"""Clients of lines: an image is pushed, and its bin is known before the item reaches the gate.

Imports neither torch nor Celery nor click. Nothing inside `orchestrator.lines` imports from here.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["Answer", "AsyncLineClient", "LineClient", "PushRefusedError"]

if TYPE_CHECKING:
    from orchestrator.contract.errors import PushRefusedError as PushRefusedError
    from orchestrator.contract.lines.answers import Answer as Answer
    from orchestrator.lines.client import AsyncLineClient as AsyncLineClient
    from orchestrator.lines.client import LineClient as LineClient
else:  # hidden from the type checker, which would accept any name
    _PLACES = {
        "Answer": "orchestrator.contract.lines.answers",
        "AsyncLineClient": "orchestrator.lines.client",
        "LineClient": "orchestrator.lines.client",
        "PushRefusedError": "orchestrator.contract.errors",
    }

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_PLACES[name]), name)

    def __dir__() -> list[str]:
        return sorted([*globals(), *__all__])
