"""torch's compiler put off while torchvision is imported: a second that nothing here has any use for.

torchvision imports `torch._dynamo.utils` for one function of `roi_align`, and with it the whole compiler: 900 modules
and 1.5 s of processor time, as long as torch itself takes.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo.utils"


class _PutOff(ModuleType):
    """Stands in for `torch._dynamo.utils`: imports it as soon as anything of it is really used, from any thread."""

    def is_compile_supported(self, device_type: Any) -> Any:
        """What the real one says; the only name that torchvision asks for when it is imported."""
        return _real().is_compile_supported(device_type)

    def __getattr__(self, name: str) -> Any:
        """Whoever else imports the compiler meanwhile gets the real thing."""
        if name.startswith("__"):
            raise AttributeError(name)  # the import system asks for these of every module
        return getattr(_real(), name)


@contextmanager
def compiler_put_off() -> Iterator[None]:
    """Imports in this block do not bring in torch's compiler; where it is there already, nothing changes."""
    if "torch._dynamo" not in sys.modules:
        sys.modules.setdefault(_NAME, _PutOff(_NAME))
    try:
        yield
    finally:
        _take_away()


def _real() -> Any:
    _take_away()
    return importlib.import_module(_NAME)


def _take_away() -> None:
    if isinstance(sys.modules.get(_NAME), _PutOff):
        del sys.modules[_NAME]
