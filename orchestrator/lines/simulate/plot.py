"""The timeline of a simulation: each item's answer time against its arrival, the gate, and what was waiting."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.durable import replace_durably
from modeling.report.canvas import LIGHT, drawable, new_figure, png_of, style_axes
from orchestrator.contract.home import set_library_folders
from orchestrator.contract.settings import get_settings
from orchestrator.lines.simulate.belt import BeltPlan, Sample
from orchestrator.lines.simulate.figures import ACCEPTED, Figures, reason_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A marker and a colour each (Okabe and Ito's, and greys): no meaning by colour alone. The rest share the last.
_LOOKS = {
    ACCEPTED: (".", "#0072b2"),
    "next_bin": ("^", "#56b4e9"),
    "degraded": ("v", "#009e73"),
    "low_confidence": ("D", "#e69f00"),
    "unreadable": ("p", "#cc79a7"),
    "no_bin": ("h", "#8a6d3b"),
    "bin_full": ("H", "#8a6d3b"),
    "late": ("x", "#d55e00"),
    "no_worker": ("+", "#d55e00"),
    "crashed": ("*", "#d55e00"),
    "busy": ("s", "#262a30"),
    "paused": ("P", "#262a30"),
    "no_server": ("X", "#262a30"),
}
_OTHER = ("o", "#62666b")
_MOST_POINTS = 10_000  # of one reason: more cannot be told apart
_HIGHEST_OVER_GATE = 1.6  # the axis ends here, and what took longer is drawn at its edge


def draw_timeline(
    path: Path,
    title: str,
    samples: Sequence[Sample],
    plan: BeltPlan,
    figures: Figures,
    events: Sequence[tuple[float, str]] = (),
) -> None:
    """Write the timeline as a PNG. events: what happened, with its seconds from the belt's start."""
    set_library_folders(get_settings())
    figure = new_figure(9.6, 5.4, LIGHT)
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (4, 1)})
    for axes in (above, below):
        style_axes(axes, LIGHT)
    above.set_title(drawable(title), loc="left")
    ordered = sorted(samples, key=lambda sample: sample.due_s)
    _draw_answers(above, ordered, plan, figures)
    _draw_events(above, events)
    _draw_waiting(below, ordered)
    replace_durably(path, png_of(figure), mode=None)


def _draw_answers(axes: "Axes", samples: Sequence[Sample], plan: BeltPlan, figures: Figures) -> None:
    highest = _HIGHEST_OVER_GATE * plan.gate_ms
    for reason, num_items in figures.by_reason.items():
        marker, colour = _LOOKS.get(reason, _OTHER)
        shown = _thinned([sample for sample in samples if reason_of(sample) == reason])
        x, y = [sample.due_s for sample in shown], [min(sample.ms, highest) for sample in shown]
        axes.plot(x, y, marker, color=colour, markersize=5, linestyle="none", label=f"{reason} ({num_items:,})")
    axes.axhline(plan.gate_ms, color=LIGHT.ink, linewidth=1.2)
    axes.annotate(
        f"gate, {plan.gate_ms:,.0f} ms", (1, plan.gate_ms), (-2, 3), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", fontsize=9, color=LIGHT.ink,
    )  # fmt: skip
    if plan.deadline_ms < plan.gate_ms:
        axes.axhline(plan.deadline_ms, color=LIGHT.faint, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"deadline, {plan.deadline_ms:,.0f} ms", (1, plan.deadline_ms), (-2, 3),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", fontsize=9, color=LIGHT.faint,
        )  # fmt: skip
    axes.set_yscale("log")
    fastest = min((sample.ms for sample in samples), default=1.0)
    axes.set_ylim(max(0.1, min(0.8 * fastest, plan.gate_ms / 10)), highest)
    axes.yaxis.set_major_formatter(lambda ms, _: f"{ms:,.0f}" if ms >= 1 else f"{ms:g}")
    axes.yaxis.minorticks_off()
    axes.set_ylabel("ms from the trigger to the answer")
    if figures.by_reason:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=5, frameon=False, fontsize=9)


def _draw_events(axes: "Axes", events: Sequence[tuple[float, str]]) -> None:
    for moment, text in events:
        axes.axvline(moment, color=LIGHT.faint, linewidth=1, linestyle=(0, (1, 1.5)))
        axes.annotate(
            drawable(text), (moment, 1), (4, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
            va="top", fontsize=9, color=LIGHT.faint,
        )  # fmt: skip


def _draw_waiting(axes: "Axes", samples: Sequence[Sample]) -> None:
    changes = sorted([(sample.sent_s, 1) for sample in samples] + [(sample.answered_s, -1) for sample in samples])
    moments, waiting = [0.0], [0]
    for moment, by in changes:
        moments.append(moment)
        waiting.append(waiting[-1] + by)
    axes.step(moments, waiting, where="post", color=LIGHT.right, linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("waiting\nfor answers")


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[:: -(-len(samples) // _MOST_POINTS)] if samples else samples
