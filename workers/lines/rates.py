"""How busy lines keep the device, and how fast it is when it never has to wait for an image."""

from collections.abc import Callable
from dataclasses import dataclass

from workers.lines.model import LineModel
from workers.lines.requests import OpenLine

_WINDOW_S = 0.5
_WEIGHT = 0.3  # of a window in a running mean
_FORGET = 0.98  # of a speed, with each window that did not measure it: it may have been a bad time
_ENOUGH = 8  # images in a window that tell a speed


@dataclass(slots=True)
class _Used:
    now_s: float = 0.0
    mean: float = 0.0


class Rates:
    """Counts in windows of half a second; the caller has a lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun_s = clock()
        self._starved = False
        self._images: dict[LineModel, int] = {}
        self._used: dict[OpenLine, _Used] = {}

    def starved(self) -> None:
        """A stream found nothing to predict."""
        self._starved = True
        self._turn()

    def predicted(self, line: OpenLine, model: LineModel, num_images: int, device_s: float) -> None:
        """A batch was predicted, in one stream."""
        self._images[model] = self._images.get(model, 0) + num_images
        self._used.setdefault(line, _Used()).now_s += device_s / model.streams
        self._turn()

    def utilisation(self, line: OpenLine) -> float:
        """The share of all streams' time that a line has used lately, 0 to 1."""
        self._turn()
        return min(1.0, self._used[line].mean) if line in self._used else 0.0

    def forget(self, line: OpenLine) -> None:
        """A line is closed, and nothing of it is held."""
        self._used.pop(line, None)

    def _turn(self) -> None:
        """Close the window if it is over."""
        now = self._clock()
        elapsed_s = now - self._begun_s
        if elapsed_s < _WINDOW_S:
            return
        if not self._starved and len(self._images) == 1:
            [(model, images)] = self._images.items()
            if images >= _ENOUGH:
                ms = elapsed_s * 1e3 / images
                model.saturated_ms += (_WEIGHT if model.saturated_ms else 1.0) * (ms - model.saturated_ms)
        else:
            for model in self._images:
                model.saturated_ms *= _FORGET
        for used in self._used.values():
            used.mean += _WEIGHT * (used.now_s / elapsed_s - used.mean)
            used.now_s = 0.0
        self._begun_s, self._starved = now, False
        self._images.clear()
