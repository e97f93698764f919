"""The plots: training curves, confusion matrix, reliability diagram, error by coverage."""

# Shapes: L labels (rows: true, columns: predicted), 3 for RGB.
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modeling.durable import replace_durably
from modeling.metrics.evaluation import CoveragePoint, DecisionFigures, Evaluation, ReliabilityBin
from modeling.report.canvas import LIGHT, Theme, drawable, new_figure, percent_axis, png_of, style_axes
from modeling.report.figures import count, percent, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
EpochRow = Mapping[str, float | None]
Line = tuple[list[float], list[float]]  # epochs, values

FEW_IMAGES = 10  # a bin with fewer is unreliable, and is drawn pale
_FEW_IN_ALL = 200  # a curve of fewer images is rough, and names their number
_MOST_NUMBERED = 16  # labels whose cells have room for a number
_MOST_NAMED = 64  # labels whose names fit along an axis
_MOST_CELLS = 240  # a side: more labels share a cell
_MOST_POINTS = 600  # of a line: more cannot be told apart
_LONGEST_LABEL = 18
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))  # of the lines in one panel


def confusion(evaluation: Evaluation, theme: Theme) -> "Figure":
    """True labels down, predicted across: blue is right, orange wrong, darker a larger share of the row."""
    num_labels = len(evaluation.labels)
    side = float(np.clip(1.9 + 0.42 * num_labels, 4.2, 7.6))
    figure = new_figure(side, side, theme)
    axes = figure.subplots()
    style_axes(axes, theme, grid=None)
    axes.spines["bottom"].set_visible(False)
    extent = (-0.5, num_labels - 0.5, num_labels - 0.5, -0.5)
    axes.imshow(_coloured(shares_of_rows(evaluation), theme), interpolation="nearest", extent=extent)
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.set_xlabel("predicted", labelpad=8)
    axes.set_ylabel("true", labelpad=8)
    _name_labels(axes, evaluation.labels, theme)
    if num_labels <= _MOST_NUMBERED:
        _number_cells(axes, evaluation, theme)
    return figure


def reliability(bins: Sequence[ReliabilityBin], theme: Theme) -> "Figure":
    """The share that is right by score, beside the score itself; below it how many images there are."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(5.2, 4.4, theme)
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (4, 1)})
    for axes in (above, below):
        style_axes(axes, theme)
    filled = [each for each in bins if each.num_images]
    for each in filled:
        colour = theme.right if each.num_images >= FEW_IMAGES else theme.pale
        middle, width = (each.low + each.high) / 2, 0.86 * (each.high - each.low)
        above.bar(middle, each.accuracy, width, color=colour)
        above.plot([middle - width / 2, middle + width / 2], [each.mean_score] * 2, color=theme.wrong, linewidth=2.4)
        below.bar(middle, each.num_images, width, color=theme.faint)
    above.plot([0, 1], [0, 1], color=theme.faint, linewidth=1, linestyle=(0, (4, 3)))
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="right (bar) and promised (line)")
    below.set(xlabel="score of the best label", ylabel="images")
    below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=2))
    percent_axis("y", above)
    percent_axis("x", below)
    return figure


def coverage(evaluation: Evaluation, theme: Theme) -> "Figure":
    """The share of accepted images that are wrong, by the share accepted; marked: the budget and the model's choice."""
    figure = new_figure(5.2, 4.4, theme)
    axes = figure.subplots()
    style_axes(axes, theme)
    decisions = evaluation.decisions
    shown = thinned(sorted(evaluation.coverage, key=lambda point: point.coverage))
    shares, errors = [point.coverage for point in shown], [point.error for point in shown]
    marker = "o" if len(shown) < 2 else None
    axes.plot(shares, errors, color=theme.right, linewidth=1.9, marker=marker)
    axes.fill_between(shares, errors, color=theme.right, alpha=0.12, linewidth=0)
    highest = max([*errors, 0.001, *([decisions.max_error] if decisions else [])])
    below = -0.03 * highest  # room for a curve without mistakes, which else is hidden by the axis
    few = f"\n(from {count(evaluation.num_images, 'image')} only)" if evaluation.num_images < _FEW_IN_ALL else ""
    axes.set(xlim=(0, 1), ylim=(below, 1.15 * highest))
    axes.set(xlabel=f"accepted without a person{few}", ylabel="wrong among the accepted")
    if decisions:
        _mark_decision(axes, decisions, theme)
    percent_axis("x", axes)
    percent_axis("y", axes)
    return figure


def thinned(points: Sequence[CoveragePoint]) -> list[CoveragePoint]:
    """At most some hundred points, evenly taken, the first and the last among them."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    return [points[place] for place in np.linspace(0, len(points) - 1, _MOST_POINTS).round().astype(int)]


def _mark_decision(axes: "Axes", decisions: DecisionFigures, theme: Theme) -> None:
    """The budget as a line, what the thresholds did to these images as a point on or near the curve."""
    dashes = (0, (4, 3))
    budget = f"error budget {percent(decisions.max_error)}"
    axes.axhline(decisions.max_error, color=theme.wrong, linewidth=1.3, linestyle=dashes, label=budget)
    num_images = decisions.num_accepted + decisions.num_reviewed + decisions.num_rejected
    if num_images and decisions.accepted_error is not None:
        x, y = decisions.num_accepted / num_images, decisions.accepted_error
        label = f"chosen: {percent(x)} accepted, {percent(y)} of them wrong"
        (dot,) = axes.plot([x], [y], "o", markersize=9, color=theme.chosen, zorder=5, clip_on=False, label=label)
        dot.set_markeredgecolor(theme.sheet)
        dot.set_markeredgewidth(1.5)
    legend = axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, fontsize=9, reverse=True)
    for text in legend.get_texts():
        text.set_color(theme.ink)


def _coloured(shares_LL: Floats, theme: Theme) -> Floats:
    """Each cell's colour: strength is the share of its row; for a mistake its root, so that a rare one shows."""
    from matplotlib.colors import to_rgb

    sheet_3, right_3, wrong_3 = (np.array(to_rgb(colour)) for colour in (theme.sheet, theme.right, theme.wrong))
    empty_3 = 0.6 * np.array(to_rgb(theme.grid)) + 0.4 * sheet_3
    diagonal_LL1 = np.eye(len(shares_LL), dtype=bool)[:, :, None]
    strength_LL1 = np.where(diagonal_LL1, shares_LL[:, :, None], np.sqrt(shares_LL)[:, :, None])
    coloured: Floats = empty_3 + strength_LL1 * (np.where(diagonal_LL1, right_3, wrong_3) - empty_3)
    return coloured


def shares_of_rows(evaluation: Evaluation) -> Floats:
    """The matrix: each cell's share of its row's images.

    Where there are too many labels, neighbours share a cell: it has its largest mistake, on the diagonal its mean share
    right.
    """
    num_labels = len(evaluation.labels)
    starts = np.linspace(0, num_labels, min(num_labels, _MOST_CELLS), endpoint=False).astype(int)
    sizes = np.diff([*starts, num_labels])
    cell_of_L = np.repeat(np.arange(len(starts)), sizes)
    rows, columns, counts = np.array(evaluation.confusion, np.int64).reshape(-1, 3).T
    shares = counts / np.bincount(rows, counts, num_labels)[rows]
    wrong = cell_of_L[rows] != cell_of_L[columns]
    cells = np.zeros((len(starts), len(starts)))
    np.maximum.at(cells, (cell_of_L[rows[wrong]], cell_of_L[columns[wrong]]), shares[wrong])
    right = rows == columns
    np.fill_diagonal(cells, np.bincount(cell_of_L[rows[right]], shares[right], len(starts)) / sizes)
    return cells


def _name_labels(axes: "Axes", labels: Sequence[str], theme: Theme) -> None:
    """Name the labels along both axes where they fit, else number them."""
    if len(labels) > _MOST_NAMED:
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_text(f"{label.get_text()} class, by number")
        return
    names = [drawable(shortened(label, _LONGEST_LABEL)) for label in labels]
    size = 9 if len(labels) <= 20 else 7.5 if len(labels) <= 36 else 5.5
    upright = max(map(len, names)) * len(names) > 60
    axes.set_xticks(
        range(len(names)), names, rotation=90 if upright else 0, fontsize=size, color=theme.ink, parse_math=False
    )
    axes.set_yticks(range(len(names)), names, fontsize=size, color=theme.ink, parse_math=False)


def _number_cells(axes: "Axes", evaluation: Evaluation, theme: Theme) -> None:
    coloured = _coloured(shares_of_rows(evaluation), theme)
    dark = coloured @ np.array([0.299, 0.587, 0.114]) < 0.55
    for edge in range(1, len(evaluation.labels)):
        axes.axhline(edge - 0.5, color=theme.sheet, linewidth=2)
        axes.axvline(edge - 0.5, color=theme.sheet, linewidth=2)
    for row, column, count_of_cell in evaluation.confusion:
        colour = "#ffffff" if dark[row, column] else "#14181d"
        axes.text(column, row, f"{count_of_cell:,}", ha="center", va="center", fontsize=9, color=colour)


def draw_curves(history: Sequence[EpochRow], path: Path) -> None:
    """Write the curves so far as a PNG that appears whole. Takes a fifth of a second.

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
    """Loss on the left, accuracy on the right; only what was measured."""
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
        label = name.replace("_", " ")
        axes.plot(epochs, values, color=colour, lw=1.9, ls=dashes, marker=marker, markersize=6, label=label)
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


def _epoch(row: EpochRow, number: int) -> float:
    epoch = row.get("epoch")
    return number if epoch is None else epoch
