"""The figures of each epoch, where people and programs look for them while a training runs."""

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
    """Gathers the epoch events; with a folder, keeps `history.csv`, `curves.png` and TensorBoard's events there."""

    def __init__(self, folder: Path | None, emit: Emit) -> None:
        self._folder = folder
        self._emit = emit
        self.rows: list[EpochRow] = []
        self._board: Any = None
        self._drawn_at = 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        """Take an event, and pass it on."""
        if event["event"] == "resumed":
            self.rows += [{"stage": event["stage"], **row} for row in event["history"]]
            event = {name: value for name, value in event.items() if name != "history"}
        self._emit(event)
        if event["event"] == "epoch":
            self.rows.append({name: event[name] for name in COLUMNS if event.get(name) is not None})
            if self._folder is not None:
                self._trying(self._folder, self._write)

    def close(self) -> None:
        """Draw the last curves, and finish TensorBoard's file."""
        if self.rows and self._folder is not None:
            self._trying(self._folder, self._draw)
        if self._board is not None and self._folder is not None:
            self._trying(self._folder, lambda _: self._board.close())

    def _trying(self, folder: Path, write: Callable[[Path], None]) -> None:
        """Write something; the figures are worth less than the training, which goes on without."""
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
        """Write the row's figures in this thread: SummaryWriter's dies of a full disk, and its full queue blocks."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        place = {"wall_time": time.time(), "step": int(row["epoch"])}
        if self._board is None:
            (folder / TENSORBOARD_FOLDER).mkdir(exist_ok=True)
            self._board = EventsWriter(str(folder / TENSORBOARD_FOLDER / "events"))
            # what an earlier process told of this epoch and later ones holds no more
            self._board.write_event(Event(**place, session_log=SessionLog(status=SessionLog.START)))
        for name in ("loss", "accuracy", "learning_rate", "images_per_sec"):
            if name in row:
                self._board.write_event(Event(**place, summary=scalar(f"{row['stage']}/{name}", row[name])))
        self._board.flush()


def history_csv(rows: Sequence[EpochRow]) -> bytes:
    """One line an epoch, with a heading."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
