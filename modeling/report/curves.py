"""Training curves: loss and accuracy over epochs, for the report and, redrawn after every epoch, while it trains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.durable import replace_durably
from modeling.report.canvas import LIGHT, Theme, new_figure, percent_axis, png_of, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EpochRow = Mapping[str, float | None]
Line = tuple[list[float], list[float]]  # epochs, values

_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))


def draw_curves(history: Sequence[EpochRow], path: Path) -> None:
    """Write the curves so far as a PNG, whole: a viewer never sees half of it. Takes a fifth of a second.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(path, png_of(curves(history, LIGHT)))


def has_curves(history: Sequence[EpochRow]) -> bool:
    """Whether there is anything to draw."""
    return any(lines_of(history, kind) for kind in ("loss", "accuracy"))


def lines_of(history: Sequence[EpochRow], kind: str) -> dict[str, Line]:
    """The columns whose name holds `kind`, by name: epochs and values where it was measured."""
    columns = dict.fromkeys(key for row in history for key in row if kind in key)
    lines: dict[str, Line] = {}
    for key in columns:
        known = [
            (_epoch(row, number), value) for number, row in enumerate(history, 1) if (value := row.get(key)) is not None
        ]
        if known:
            lines[key] = ([epoch for epoch, _ in known], [value for _, value in known])
    return lines


def best_epoch(history: Sequence[EpochRow]) -> tuple[float, float] | None:
    """Epoch and value of the best accuracy, the last of equals, as training keeps it."""
    lines = lines_of(history, "accuracy")
    if not lines:
        return None
    name = next((name for name in lines if "val" in name), "accuracy" if "accuracy" in lines else next(iter(lines)))
    epochs, values = lines[name]
    return max(zip(epochs, values, strict=True), key=lambda point: (point[1], point[0]))


def curves(history: Sequence[EpochRow], theme: Theme) -> "Figure":
    """Loss on the left, accuracy on the right; only the one that there is."""
    panels = [(kind, lines) for kind in ("loss", "accuracy") if (lines := lines_of(history, kind))]
    figure = new_figure(9.6, 3.3, theme)
    every_axes = figure.subplots(1, max(len(panels), 1), squeeze=False)[0]
    for axes, (kind, lines) in zip(every_axes, panels, strict=False):
        _draw_panel(axes, kind, lines, theme)
    if not panels:
        every_axes[0].set_axis_off()
        every_axes[0].text(0.5, 0.5, "no epoch yet", color=theme.faint, ha="center", va="center")
    elif panels[-1][0] == "accuracy" and (best := best_epoch(history)):
        _mark_best(every_axes[-1], best, theme)
    return figure


def _draw_panel(axes: "Axes", kind: str, lines: Mapping[str, Line], theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    style_axes(axes, theme)
    colour = theme.wrong if kind == "loss" else theme.right
    for (name, (epochs, values)), dashes in zip(lines.items(), _DASHES * len(lines), strict=False):
        marker = "o" if len(values) < 2 else None
        axes.plot(
            epochs,
            values,
            color=colour,
            linewidth=1.9,
            linestyle=dashes,
            marker=marker,
            markersize=6,
            label=_words(name),
        )
    axes.set_title(kind.capitalize(), loc="left", pad=10)
    axes.set_xlabel("epoch")
    axes.margins(x=0.02, y=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    if kind == "accuracy":
        percent_axis("y", axes)
    elif min(min(values) for _, values in lines.values()) >= 0:
        axes.set_ylim(bottom=0)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=theme.faint)


def _mark_best(axes: "Axes", best: tuple[float, float], theme: Theme) -> None:
    axes.plot(
        *best, marker="o", markersize=8, markerfacecolor=theme.sheet, markeredgecolor=theme.chosen, markeredgewidth=2
    )
    best_at = f"best {100 * best[1]:.2f} % in epoch {best[0]:g}"
    axes.set_title(best_at, loc="right", pad=10, fontsize=9.5, color=theme.faint)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _epoch(row: EpochRow, number: int) -> float:
    epoch = row.get("epoch")
    return number if epoch is None else epoch
