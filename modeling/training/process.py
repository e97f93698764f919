"""`python -m modeling.training.process REQUEST.json`: a training or an evaluation in a process of its own.

The request is that of `train` or `evaluate` as JSON, and says which by its key `task` (`train` where it is left out).
stdout: events, one JSON object a line. stderr: all that libraries say. stdin: a pipe that the parent holds
open; when it ends the parent has died, and so does this process. SIGTERM ends it too. Exit codes: 0 done,
1 an operator's mistake (told in an `error` event), 70 a bug (traceback on stderr), 75 the parent has gone.
"""

import gc
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modeling.errors import ModelingError
from modeling.images.progress import Emit

# What whoever starts this process puts into its environment, unless there is something else there already. glibc gives
# large buffers back to the kernel after every use, which cost a training on a CPU a tenth of its time and more. Threads
# of OpenMP spin for a tenth of a millisecond or so before they sleep: not at all is slow where cores are free, and
# for long slows down whoever shares them. The last is what cuBLAS wants for deterministic results.
CHILD_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "GOMP_SPINCOUNT": "100000",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}

# New objects after which Python looks for cycles of garbage. By its own 700 it does so hundreds of times while torch is
# imported, where there is none: 0.3 s of processor time.
_OBJECTS_A_COLLECTION = 20_000

EXIT_MISTAKE, EXIT_BUG, EXIT_ORPHANED = 1, 70, 75


def main(arguments: Sequence[str]) -> int:
    """Do what the request file says; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a parent may have left it ignored
    threading.Thread(target=exit_with_parent, name="parent-watch", daemon=True).start()
    events = take_stdout()

    def emit(event: dict[str, Any]) -> None:
        try:
            os.write(events, json.dumps(event, allow_nan=False).encode() + b"\n")
        except BrokenPipeError:
            os._exit(EXIT_ORPHANED)

    try:
        _run(arguments, emit)
    except ModelingError as err:
        emit({"event": "error", "error": str(err)})
        return EXIT_MISTAKE
    except Exception:
        traceback.print_exc()
        return EXIT_BUG
    return 0


def _run(arguments: Sequence[str], emit: Emit) -> None:
    if len(arguments) != 1:
        raise ModelingError(f"expected one request file, not {len(arguments)} arguments")
    try:
        request = json.loads(Path(arguments[0]).read_bytes())
    except (OSError, ValueError) as err:
        raise ModelingError(f"{arguments[0]}: no request could be read ({err})") from err
    task = request.pop("task", "train") if isinstance(request, dict) else "train"
    if not isinstance(task, str) or task not in _TASKS:
        raise ModelingError(f"{arguments[0]}: unknown task {task!r}; choose one of {', '.join(_TASKS)}")
    _TASKS[task](request, emit)


def _train(request: Mapping[str, Any], emit: Emit) -> None:
    from modeling.training.request import TrainRequest
    from modeling.training.train import train

    train(TrainRequest.from_json(request), emit)


def _evaluate(request: Mapping[str, Any], emit: Emit) -> None:
    from modeling.evaluation.request import EvaluateRequest
    from modeling.evaluation.run import evaluate

    evaluate(EvaluateRequest.from_json(request), emit)


_TASKS: dict[str, Callable[[Mapping[str, Any], Emit], object]] = {"train": _train, "evaluate": _evaluate}


def take_stdout() -> int:
    """A descriptor of the real stdout for events; whatever else writes to stdout now writes to stderr."""
    sys.stdout.flush()
    events = os.dup(1)
    os.dup2(2, 1)
    return events


def exit_with_parent() -> None:
    """Wait until standard input ends, and end this process then: its parent has gone."""
    while os.read(0, 4096):
        pass
    os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    gc.set_threshold(_OBJECTS_A_COLLECTION)
    code = main(sys.argv[1:])
    gc.freeze()  # ending does not search all that was imported for garbage: 0.4 s of processor time
    sys.exit(code)
