"""The figures of each epoch, written to files while a training runs: CSV, curves and TensorBoard."""

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modeling.durable import replace_durably
from modeling.images.progress import Emit

HISTORY_FILE = "history.csv"
CURVES_FILE = "curves.png"
TENSORBOARD_FOLDER = "tensorboard"
COLUMNS = ("stage", "epoch", "loss", "accuracy", "learning_rate", "seconds", "images_per_sec")

_DRAW_EVERY_S = 5.0

EpochRow = Mapping[str, Any]


class History:
    """Collects epoch events; with a folder, writes `history.csv`, `curves.png` and TensorBoard events to it."""

    def __init__(self, folder: Path | None, emit: Emit) -> None:
        self._folder = folder
        self._emit = emit
        self.rows: list[EpochRow] = []
        self._board: Any = None
        self._drawn_at = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        """Process an event, and pass it on."""
        if event["event"] == "resumed":
            self.rows += [{"stage": event["stage"], **row} for row in event["history"]]
            event = {name: value for name, value in event.items() if name != "history"}
        self._emit(event)
        if event["event"] == "epoch":
            self.rows.append({name: event[name] for name in COLUMNS if event.get(name) is not None})
            if self._folder is not None:
                self._write_or_note(self._folder, self._write)

    def close(self) -> None:
        """Draw the final curves, and close TensorBoard's file."""
        if self.rows and self._folder is not None:
            self._write_or_note(self._folder, self._draw)
        if self._board is not None and self._folder is not None:
            self._write_or_note(self._folder, lambda _: self._board.close())

    def _write_or_note(self, folder: Path, write: Callable[[Path], None]) -> None:
        """Write a file; a write error must not stop the training."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder)
        except OSError as err:
            self._emit({"event": "note", "text": f"the training's figures cannot be written: {err}"})

    def _write(self, folder: Path) -> None:
        replace_durably(folder / HISTORY_FILE, history_csv(self.rows))
        self._write_board(folder, self.rows[-1])
        if time.monotonic() - self._drawn_at > _DRAW_EVERY_S:
            self._draw(folder)

    def _draw(self, folder: Path) -> None:
        from modeling.report.plots import draw_curves  # matplotlib is slow to import

        draw_curves(self.rows, folder / CURVES_FILE)
        self._drawn_at = time.monotonic()

    def _write_board(self, folder: Path, row: EpochRow) -> None:
        """Write the row's figures in this thread: SummaryWriter's thread dies of a full disk, and its queue blocks."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        place = {"wall_time": time.time(), "step": int(row["epoch"])}
        if self._board is None:
            (folder / TENSORBOARD_FOLDER).mkdir(exist_ok=True)
            self._board = EventsWriter(str(folder / TENSORBOARD_FOLDER / "events"))
            # discards what an earlier process wrote about this and later epochs
            self._board.write_event(Event(**place, session_log=SessionLog(status=SessionLog.START)))
        for name in ("loss", "accuracy", "learning_rate", "images_per_sec"):
            if name in row:
                self._board.write_event(Event(**place, summary=scalar(f"{row['stage']}/{name}", row[name])))
        self._board.flush()


def history_csv(rows: Sequence[EpochRow]) -> bytes:
    """The CSV: a heading, and one line per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
