"""What a classifier is: images in, predictions out. The functions of the library are imported when they are used.

Nothing inside `modeling` imports from here.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["classify_files", "load_model", "train"]

if TYPE_CHECKING:
    from modeling.inference.classify_files import classify_files as classify_files
    from modeling.inference.classify_files import load_model as load_model
    from modeling.training.train import train_folder as train
else:  # hidden from the type checker, which would accept any name
    _PLACES = {
        "classify_files": ("modeling.inference.classify_files", "classify_files"),
        "load_model": ("modeling.inference.classify_files", "load_model"),
        "train": ("modeling.training.train", "train_folder"),
    }

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, function = _PLACES[name]
        return getattr(import_module(module), function)

    def __dir__() -> list[str]:
        return sorted([*globals(), *__all__])
