"""Pigeonhole as a library: `pigeonhole.classify_files`, `.load_model` and `.train`, which come from `modeling`."""

from typing import TYPE_CHECKING

import modeling

__all__ = ["classify_files", "load_model", "train"]

if TYPE_CHECKING:
    from modeling import classify_files as classify_files
    from modeling import load_model as load_model
    from modeling import train as train
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(modeling, name)

    def __dir__() -> list[str]:
        return sorted([*globals(), *__all__])
