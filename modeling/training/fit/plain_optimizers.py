"""torch's optimizers without the import of its compiler: 900 modules, a quarter of a short training's processor time.

torch imports the compiler at the first call of a method, only to keep the method out of it. Nothing is compiled in a
training, so the methods run plainly here; if something has imported the compiler, torch's own way is taken.
"""

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch._compile import _disable_dynamo

_COMPILER = "torch._dynamo"
_ASKED = "__dynamo_disable"  # of a function: what torch calls in its place, made by the compiler


def _plain_step(kind: type[torch.optim.Optimizer]) -> Callable[..., Any]:
    """The step of `kind`, without a break in a graph that nobody makes."""
    step: Callable[..., Any] = torch.no_grad()(inspect.unwrap(kind.step))
    return step


class SGD(torch.optim.SGD):
    """torch's, whose step takes no part in compiling."""

    step = _plain_step(torch.optim.SGD)


class AdamW(torch.optim.AdamW):
    """torch's, whose step takes no part in compiling."""

    step = _plain_step(torch.optim.AdamW)


def _run_plainly(method: Any) -> None:
    """Let a method that torch keeps out of its compiler run without asking the compiler, while there is none."""
    function = method.__wrapped__

    def call(*args: Any, **kwargs: Any) -> Any:
        if _COMPILER in sys.modules:
            vars(function).pop(_ASKED, None)
            return method(*args, **kwargs)
        return function(*args, **kwargs)

    vars(function).setdefault(_ASKED, call)


_KEPT_OUT = _disable_dynamo(lambda: None).__code__
for _method in vars(torch.optim.Optimizer).values():
    if getattr(_method, "__code__", None) is _KEPT_OUT:
        _run_plainly(_method)
