"""Defers the import of torch's compiler, which Pigeonhole does not use, while torchvision is imported.

torchvision imports `torch._dynamo.utils` for one function of `roi_align`, and that imports the whole compiler: 900
modules and 1.5 s of processor time, as much as torch itself.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_MODULE = "torch._dynamo.utils"


class _DeferredModule(ModuleType):
    """A stub for `torch._dynamo.utils` that imports the real module on first use, from any thread."""

    def is_compile_supported(self, device_type: Any) -> Any:
        """Call the real function; the only name that torchvision uses at import time."""
        return _import_real().is_compile_supported(device_type)

    def __getattr__(self, name: str) -> Any:
        """Return the real module's attribute, for other code that imports the compiler in the meantime."""
        if name.startswith("__"):
            raise AttributeError(name)  # the import system looks these up on every module
        return getattr(_import_real(), name)


@contextmanager
def deferred_compiler_import() -> Iterator[None]:
    """Imports in this block do not import torch's compiler; no effect if it is already imported."""
    if "torch._dynamo" not in sys.modules:
        sys.modules.setdefault(_MODULE, _DeferredModule(_MODULE))
    try:
        yield
    finally:
        _remove_stub()


def _import_real() -> Any:
    _remove_stub()
    return importlib.import_module(_MODULE)


def _remove_stub() -> None:
    if isinstance(sys.modules.get(_MODULE), _DeferredModule):
        del sys.modules[_MODULE]
