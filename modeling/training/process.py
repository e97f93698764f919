"""`python -m modeling.training.process REQUEST.json`: runs a training or an evaluation in a separate process.

The request is a `TrainRequest` or an `EvaluateRequest` as JSON; its key `task` says which (default: `train`).
stdout: events, one JSON object per line. stderr: the output of libraries. stdin: a pipe that the parent keeps open; if
it is closed, the parent has died, and this process exits. SIGTERM also ends it. Exit codes: 0 success, 1 an operator's
mistake or a full disk (reported in an `error` event), 70 a bug (traceback on stderr), 71 no file can be opened or
thread started now, or the storage is away (reported in an `interrupted` event: trying again may help), 72 memory ran
out (`memory`), 73 a later attempt works on the training (`superseded`), 74 the storage did not give the data or take
the model (`storage`: trying again may help, and if it does not, the text says what to do), 75 the parent has died.
"""

import contextlib
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

from modeling.durable import decode_json
from modeling.errors import ModelingError, is_out_of_memory, takes_no_writes, trouble_of
from modeling.images.progress import Emit
from modeling.training.attempt import SupersededError

# Environment variables that the parent sets for this process unless they are already set. By default glibc returns
# large buffers to the kernel after every use, which costs a training on a CPU at least a tenth of its time. OpenMP
# threads spin for about a tenth of a millisecond before they sleep: without spinning they are slow if cores are free,
# and long spinning slows down other processes. cuBLAS needs the last one for deterministic results.
CHILD_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "GOMP_SPINCOUNT": "100000",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}

# New objects after which Python's garbage collector runs. With the default of 700 it runs hundreds of times while torch
# is imported, and finds nothing: 0.3 s of processor time.
_OBJECTS_A_COLLECTION = 20_000

EXIT_MISTAKE, EXIT_BUG, EXIT_INTERRUPTED, EXIT_MEMORY, EXIT_SUPERSEDED, EXIT_STORAGE = 1, 70, 71, 72, 73, 74
EXIT_ORPHANED = 75


def main(arguments: Sequence[str]) -> int:
    """Run the request file; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent may have ignored it
    events = take_stdout()

    def emit(event: dict[str, Any]) -> None:
        try:
            os.write(events, json.dumps(event, allow_nan=False).encode() + b"\n")
        except BrokenPipeError:
            os._exit(EXIT_ORPHANED)

    try:
        threading.Thread(target=exit_with_parent, name="parent-watch", daemon=True).start()
        _run(arguments, emit)
    except SupersededError as err:
        emit({"event": "superseded", "text": str(err)})
        return EXIT_SUPERSEDED
    except ModelingError as err:
        return _explain_mistake(err, emit)
    except Exception as err:
        with contextlib.suppress(OSError):  # the log's disk is full
            traceback.print_exc()
        return _explain(err, emit)
    return 0


def _explain_mistake(err: ModelingError, emit: Emit) -> int:
    """Report an operator's mistake, or what looks like one and may pass; returns the exit code."""
    trouble = trouble_of(err)
    if trouble == "worker":
        return _interrupted(err, emit)
    if trouble == "storage":
        emit({"event": "storage", "text": str(err)})
        return EXIT_STORAGE
    emit({"event": "error", "error": str(err)})
    return EXIT_MISTAKE


def _explain(err: Exception, emit: Emit) -> int:
    """Report an error that says nothing about the request or the code; returns the exit code."""
    if takes_no_writes(err):
        emit({"event": "error", "error": f"{err}; free disk space, then resume the job"})
        return EXIT_MISTAKE
    if isinstance(err, MemoryError | RuntimeError) and is_out_of_memory(err):
        emit({"event": "memory", "text": " ".join(str(err).split())[:300] or "memory ran out"})
        return EXIT_MEMORY
    if trouble_of(err):
        return _interrupted(err, emit)
    return EXIT_BUG


def _interrupted(err: Exception, emit: Emit) -> int:
    emit({"event": "interrupted", "text": str(err)})
    return EXIT_INTERRUPTED


def _run(arguments: Sequence[str], emit: Emit) -> None:
    if len(arguments) != 1:
        raise ModelingError(f"expected one request file, not {len(arguments)} arguments")
    try:
        data = Path(arguments[0]).read_bytes()
    except OSError as err:
        raise ModelingError(f"{arguments[0]}: no request could be read ({err})") from err
    request = decode_json(data, arguments[0], error=ModelingError)
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
    """A descriptor of the real stdout for events; other writes to stdout go to stderr from now on."""
    sys.stdout.flush()
    events = os.dup(1)
    os.dup2(2, 1)
    return events


def exit_with_parent() -> None:
    """Wait until standard input is closed, then exit: the parent has died."""
    while os.read(0, 4096):
        pass
    os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    gc.set_threshold(_OBJECTS_A_COLLECTION)
    code = main(sys.argv[1:])
    if "triton" not in sys.modules:  # takes what the collector skips for leaks, and prints hundreds into the log
        gc.freeze()  # at exit, the collector skips all imported objects: saves 0.4 s of processor time
    sys.exit(code)
