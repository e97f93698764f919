"""`python -m modeling.train_process REQUEST.json`: training in a process of its own, under a parent's eye.

stdout: events, one JSON object a line. stderr: all that libraries say. stdin: a pipe that the parent holds
open; when it ends the parent has died, and so does this process. SIGTERM ends it too. Exit codes: 0 trained,
1 an operator's mistake (told in an `error` event), 70 a bug (traceback on stderr), 75 the parent has gone.
"""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modeling.errors import ModelingError

EXIT_MISTAKE, EXIT_BUG, EXIT_ORPHANED = 1, 70, 75


def main(arguments: Sequence[str]) -> int:
    """Train what the request file says; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a parent may have left it ignored
    threading.Thread(target=_exit_with_parent, name="parent-watch", daemon=True).start()
    events = _take_stdout()

    def emit(event: dict[str, Any]) -> None:
        try:
            os.write(events, json.dumps(event, allow_nan=False).encode() + b"\n")
        except BrokenPipeError:
            os._exit(EXIT_ORPHANED)

    try:
        _train(arguments, emit)
    except ModelingError as err:
        emit({"event": "error", "error": str(err)})
        return EXIT_MISTAKE
    except Exception:
        traceback.print_exc()
        return EXIT_BUG
    return 0


def _train(arguments: Sequence[str], emit: Callable[[dict[str, Any]], None]) -> None:
    # Threads that spin at OpenMP's barriers slow down whoever shares the cores, and then each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from modeling.train_request import TrainRequest
    from modeling.training import train

    if len(arguments) != 1:
        raise ModelingError(f"expected one request file, not {len(arguments)} arguments")
    try:
        value = json.loads(Path(arguments[0]).read_bytes())
    except (OSError, ValueError) as err:
        raise ModelingError(f"{arguments[0]}: no request could be read ({err})") from err
    train(TrainRequest.from_json(value), emit)


def _take_stdout() -> int:
    """A descriptor of the real stdout for events; whatever else writes to stdout now writes to stderr."""
    sys.stdout.flush()
    events = os.dup(1)
    os.dup2(2, 1)
    return events


def _exit_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
