"""Defers imports of parts of torch that predicting does not use.

torchvision imports `torch._dynamo.utils` for one function of `roi_align`, and that imports the whole compiler: 900
modules and 1.5 s of processor time, as much as torch itself. torch imports its kernels of meta tensors, which have no
data and which only exporters and compilers use: a quarter of its own time.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_MODULE = "torch._dynamo.utils"
_META_KERNELS = "torch._meta_registrations"


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


@contextmanager
def deferred_meta_kernels() -> Iterator[None]:
    """The import of torch in this block leaves out the kernels of meta tensors; `import_meta_kernels` brings them."""
    if "torch" in sys.modules:
        yield
        return
    stub = sys.modules[_META_KERNELS] = ModuleType(_META_KERNELS)
    try:
        yield
    finally:
        if sys.modules.get(_META_KERNELS) is stub:
            del sys.modules[_META_KERNELS]


def import_meta_kernels() -> None:
    """Import them, if they were left out."""
    importlib.import_module(_META_KERNELS)


def _import_real() -> Any:
    _remove_stub()
    return importlib.import_module(_MODULE)


def _remove_stub() -> None:
    if isinstance(sys.modules.get(_MODULE), _DeferredModule):
        del sys.modules[_MODULE]
